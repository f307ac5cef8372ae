"""Every field with its default: see `cake_jax.config.default`, which any config file, in any folder, starts from.

python scripts/run.py --config=configs/default.py --print_config
"""

from cake_jax.config import default


def get_config():
    """The defaults, as they are."""
    return default()
