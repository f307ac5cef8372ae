"""Metrics and figures as event files, which TensorBoard shows."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cake_jax.stores.metrics.writer import scalars


class TensorBoard:
    """A `MetricsWriter` that writes event files into the folder `tensorboard` of a run.

    A step is one record of its file, so a kill leaves the whole step or nothing of it. Values that earlier files have
    are not written again.
    """

    library = "tensorboardX"

    def __init__(self, folder: Path) -> None:
        from tensorboardX.event_file_writer import EventsWriter

        folder = Path(folder) / "tensorboard"
        folder.mkdir(exist_ok=True)
        events = (event for path in folder.glob("events.*") for event in _events(path))
        self._recorded = {(value.tag, event.step) for event in events for value in event.summary.value}
        # Each writer has a file of its own, because several processes may write.
        self._file = EventsWriter(str(folder / "events"), f".{time.time_ns()}")

    def write(self, stage: str, step: int, values: Mapping[str, Any]) -> None:
        """Writes the numbers among the values, each as `<stage>/<name>`."""
        self._write(step, {tag: {"simple_value": number} for tag, number in scalars(stage, values).items()})

    def picture(self, name: str, path: Path) -> None:
        """Writes a figure as `figures/<name>`."""
        from PIL import Image

        with Image.open(path) as image:
            width, height = image.size
        content = {"width": width, "height": height, "encoded_image_string": path.read_bytes()}
        self._write(0, {f"figures/{name}": {"image": content}})

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        from tensorboardX.proto.event_pb2 import Event

        new = [{"tag": tag, **value} for tag, value in values.items() if (tag, step) not in self._recorded]
        if new:
            self._file.write_event(Event(wall_time=time.time(), step=step, summary={"value": new}))
            self._file.flush()
            self._recorded.update((value["tag"], step) for value in new)


def _events(path: Path) -> Iterator[Any]:
    """The complete events of a file. Each has its length and a checksum before it, and a checksum after it."""
    from tensorboardX.proto.event_pb2 import Event

    content, place = path.read_bytes(), 0
    while place < len(content):
        start = place + 12
        end = start + int.from_bytes(content[place : place + 8], "little")
        place = end + 4
        if place <= len(content):
            yield Event.FromString(content[start:end])
