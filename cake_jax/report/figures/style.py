"""The style that all figures share."""

import matplotlib

COLORS = matplotlib.colormaps["tab10"]
