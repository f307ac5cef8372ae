"""`python -m cake_jax.cli`."""

from cake_jax.cli.main import main

main()
