"""Reads what the writers of TensorBoard and Weights & Biases have written, with the code of these libraries."""

import json


def tensorboard(folder):
    """The content of a run's event files, by tag: steps and values of the scalars, and steps of the pictures."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    tags = events.Tags()
    scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags["scalars"]}
    return scalars, {tag: [event.step for event in events.Images(tag)] for tag in tags["images"]}


def wandb(folder):
    """What W&B recorded offline for a run: the id and the exit code of each part, and each recorded dict."""
    import wandb

    wandb.teardown()  # ends the process of W&B, which may not have written everything before
    ids, codes, rows = [], [], []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in _wandb_records(path.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.append(record.run.run_id)
            elif kind == "exit":
                codes.append(record.exit.exit_code)
            elif kind == "history":
                items = ((item.key or "/".join(item.nested_key), item.value_json) for item in record.history.item)
                # W&B's own values begin with an underscore.
                rows.append({name: json.loads(value) for name, value in items if not name.startswith("_")})
    return ids, codes, rows


def _wandb_records(content):
    """The records of a `.wandb` file: after 7 bytes, a log as LevelDB writes it, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    place, data = 7, b""
    while place + 7 <= len(content):
        if 2**15 - place % 2**15 < 7:  # the rest of a block that has no room for a header
            place += 2**15 - place % 2**15
        start, length = place + 7, int.from_bytes(content[place + 4 : place + 6], "little")
        data += content[start : start + length]
        if content[place + 6] in (1, 4):  # the whole of a record, or its last part
            yield Record.FromString(data)
            data = b""
        place = start + length
