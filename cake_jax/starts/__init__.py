"""Starts p(x) by name. A new start is one file and one line of `STARTS`."""

from cake_jax import checks
from cake_jax.starts.leaves import LEAVES
from cake_jax.starts.normal import NORMAL
from cake_jax.starts.octaves import CONTRASTED, SMOOTH
from cake_jax.starts.start import Start
from cake_jax.starts.strokes import STROKES
from cake_jax.types import CakeError, DataSpec

STARTS: dict[str, Start] = {
    "normal": NORMAL,
    "smooth": SMOOTH,
    "contrasted": CONTRASTED,
    "strokes": STROKES,
    "leaves": LEAVES,
}


def check(name: str, spec: DataSpec, field: str) -> None:
    """Refuses a start that is unknown, or does not suit the inputs.

    Args:
      name: The start.
      spec: Specification of the inputs.
      field: The config field that the name comes from, for messages.

    Raises:
      CakeError: There is no such start, or it is for images and the inputs are none.
    """
    checks.one_of(field, name, STARTS)
    if STARTS[name].needs_images and not spec.is_image:
        raise CakeError(f"{field}: inputs of shape {spec.shape} are no images; set it to 'normal'")


__all__ = ["STARTS", "Start", "check"]
