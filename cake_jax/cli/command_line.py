"""The config of a command line: a config file, and flags that change its fields."""

import ast
import re
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from cake_jax.cli import shipped_configs

_MODEL_OPTION = re.compile(r"--?config\.(?P<model>teacher|student)\.model\.options\.(?P<name>\w+)=(?P<value>.*)", re.S)


def config_of(config: str, arguments: Sequence[str]) -> ConfigDict:
    """The config that another process gets from its command line.

    Args:
      config: Config file or name of a shipped config, with a variant after a colon.
      arguments: Further arguments. Those that are not about the config are ignored.

    Raises:
      Exception: The config file raises an error, or a flag does not fit.
    """
    changes = [argument for argument in arguments if argument.lstrip("-").startswith("config.")]
    argv, options = without_model_options(shipped_configs.with_paths(["", f"--config={config}", *changes]))
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    set_model_options(holder.value, options)
    return holder.value


def without_model_options(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str, Any]]]:
    """Takes the options of models out of the arguments, because config_flags accepts no field that a config lacks.

    Returns:
      The other arguments, and for each option `--config.<model>.model.options.<name>=<value>` these three parts.
    """
    rest, options = [], []
    for argument in argv:
        found = _MODEL_OPTION.fullmatch(argument)
        if found is None:
            rest.append(argument)
            continue
        try:
            value = ast.literal_eval(found["value"])
        except (ValueError, SyntaxError):
            value = found["value"]
        options.append((found["model"], found["name"], value))
    return rest, options


def set_model_options(config: ConfigDict, options: Sequence[tuple[str, str, Any]]) -> None:
    """Puts the options that `without_model_options` has taken out into the config."""
    for model, name, value in options:
        with config.unlocked():
            config[model].model.options[name] = value
