"""What a figure of the report is: a title, a caption, and the picture."""

from typing import NamedTuple

from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """A figure with its words.

    Attributes:
      title: Heading of the figure, for a reader who knows nothing of the method.
      caption: What the figure shows, and how to read it.
      figure: The picture.
    """

    title: str
    caption: str
    figure: Figure
