"""The command line: `python scripts/run.py`, `python -m cake_jax.cli`, and `cake-jax` once installed."""

from cake_jax.cli.main import main

__all__ = ["main"]
