"""Style of all figures."""

from typing import Any

import matplotlib

COLORS = matplotlib.colormaps["tab10"]
# With more classes, neither their names nor numbers for each fit.
MOST_NAMED = 20
# The report shows figures without background, so their lines and texts must be readable on white and on black.
_GRAY = "#777777"
ON_ANY_BACKGROUND: Any = {
    "savefig.transparent": True,
    "text.parse_math": False,  # a class may have dollars in its name
    "legend.facecolor": "white",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.titlecolor", "axes.edgecolor", "xtick.color", "ytick.color"), _GRAY
    ),
}
