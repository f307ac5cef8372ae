"""Style of all figures."""

import matplotlib

COLORS = matplotlib.colormaps["tab10"]
