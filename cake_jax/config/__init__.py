"""Configs: every field with its default, and `resolve`, which turns a config into typed settings.

Config files start from `default()` and change fields. Flags change single fields: `--config.synthesis.num_steps=64`.
"""

from cake_jax.config.fields import check_fields, default, with_variant
from cake_jax.config.resolution import resolve

__all__ = ["check_fields", "default", "resolve", "with_variant"]
