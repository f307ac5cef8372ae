"""Every field with its default. `cake_jax.config.default` describes the fields. Every config file starts from it.

python scripts/run.py --config=configs/default.py --print_config
"""

from cake_jax.config import default


def get_config():
    """The defaults without changes."""
    return default()
