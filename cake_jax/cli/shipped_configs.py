"""Configs by name. The installed package has the repository's folder `configs`, so `--config=digits` works anywhere."""

from collections.abc import Sequence
from pathlib import Path

from cake_jax import checks
from cake_jax.types import CakeError

_PACKAGE = Path(__file__).parents[1]
# In a checkout the folder lies beside the package.
FOLDER = next((path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()), None)


def path_of(config: str) -> str:
    """The path of a config file, with the variant.

    Args:
      config: `name[:variant]` of a shipped config, or a path, which is returned unchanged.

    Raises:
      CakeError: There is neither a file nor a shipped config of this name.
    """
    name, colon, variant = config.partition(":")
    if not name or name.endswith(".py") or Path(name).name != name or Path(name).is_file():
        return config
    names = sorted(path.stem for path in FOLDER.glob("*.py")) if FOLDER else []
    if name not in names:
        advice = checks.did_you_mean(name, names) or f"; name a file, or one of {', '.join(names)}"
        raise CakeError(f"config: there is no config '{name}'{advice}")
    return f"{FOLDER}/{name}.py{colon}{variant}"


def with_paths(argv: Sequence[str]) -> list[str]:
    """A command line in which shipped configs are replaced by their paths."""
    replaced, flag = [], ""
    for argument in argv:
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config") and equals:
            argument = f"{name}={path_of(value)}"
        elif flag in ("--config", "-config"):
            argument = path_of(argument)
        flag = argument
        replaced.append(argument)
    return replaced
