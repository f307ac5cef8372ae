"""Starts p(x) by name. A new start is one file and one line of `STARTS`."""

from cake_jax.synthesis.starts.normal import NORMAL
from cake_jax.synthesis.starts.octaves import CONTRASTED, SMOOTH
from cake_jax.synthesis.starts.start import Start

STARTS: dict[str, Start] = {"normal": NORMAL, "smooth": SMOOTH, "contrasted": CONTRASTED}

__all__ = ["STARTS", "Start"]
