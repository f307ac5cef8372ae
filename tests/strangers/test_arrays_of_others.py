"""Arrays in NumPy's formats that somebody made to do harm."""

import pickle
import zipfile

import numpy as np
import pytest
from cake_errors import message_of
from data_files import make_arrays
from hostile_arrays import Payload, npy, npy_header, pickled
from limits import little_memory

from cake_jax import data, files
from cake_jax.data import DataSettings, cache
from cake_jax.types import DataSpec


def write_npz(path, changes):
    """An `.npz` file of `make_arrays`, where some members have other bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in make_arrays().items():
            archive.writestr(f"{name}.npy", changes.get(name, npy(array)))


@pytest.mark.parametrize("shape", [(10**12, 6, 5, 3), (2**62, 6, 5, 3), (30, 10**6, 10**6, 3)])
def test_a_header_that_claims_what_the_file_lacks_is_refused(shape, tmp_path):
    path = tmp_path / "data.npz"
    labels = npy_header((shape[0],), "|u1")
    write_npz(path, {"x_train": npy_header(shape, "|u1"), "y_train": labels})
    with little_memory():
        for call in (data.check, data.train_size, data.load):
            message = message_of(call, DataSettings("npz", str(path)))
            assert message.startswith(f"{path}: x_train has shape {shape}")
            assert message.endswith("but the file holds 0 bytes of it")


def test_an_array_that_unpacks_to_far_more_than_the_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_UNPACKED_BYTES", 2**24)
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "test"):
            for name, header, size in (
                (f"x_{part}", npy_header((12, 1000, 10_000), "|u1"), 12 * 10**7),
                (f"y_{part}", npy_header((12,), "|u1"), 12),
            ):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    file.write(header)
                    file.write(bytes(size))
    assert path.stat().st_size < 2**22
    for call in (data.check, data.load):
        message = message_of(call, DataSettings("npz", str(path)))
        assert message.startswith(f"{path}: unpacks to 0.2 GB, more than 100 times its size")


@pytest.mark.parametrize("name", ["x_train", "y_train", "x_test", "y_test"])
def test_objects_in_an_array_run_no_code(name, tmp_path):
    trace = tmp_path / "trace"
    write_npz(tmp_path / "data.npz", {name: pickled(trace)})
    message = message_of(data.load, DataSettings("npz", str(tmp_path / "data.npz")))
    assert message.startswith(f"{tmp_path / 'data.npz'}: {name} has Python objects, which are never read; save an ")
    assert not trace.exists()
    pickle.loads(pickle.dumps(Payload(trace))).close()
    assert trace.exists(), "unpickling does run code"


@pytest.mark.parametrize("descr", ["__import__('os')", "|O", "<U9", "V8", "[('a', '<f4')]", "(" * 5000])
def test_odd_types_in_a_header_are_refused(descr, tmp_path):
    path = tmp_path / "data.npz"
    write_npz(path, {"x_train": npy_header((30, 6, 5, 3)).replace(b"<f4", descr.encode()[:40])})
    assert message_of(data.load, DataSettings("npz", str(path))).startswith(f"{path}: ")


@pytest.mark.parametrize("content", [npy(1.0), npy_header((10**12,)), b"", b"PK\x03\x04", "pickled"])
def test_another_file_in_the_cache_counts_as_missing(content, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "images.npz"
    path.write_bytes(pickled(trace) if content == "pickled" else content)
    made = np.ones((1, 2)), np.zeros(1)
    with little_memory():
        assert cache.examples(path, 1, np.arange(1), lambda: made)[0] is made[0]
    assert not trace.exists()


def test_nested_lists_in_the_cache_count_as_missing(tmp_path):
    (tmp_path / "spec.json").write_text("[" * 100_000)
    assert cache.spec(tmp_path / "spec.json", lambda: DataSpec((2,), 3)) == DataSpec((2,), 3)
