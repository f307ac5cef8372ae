"""Arrays in NumPy's formats that somebody made to do harm."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from cake_errors import message_of
from data_files import make_arrays
from limits import little_memory

from cake_jax import data
from cake_jax.data import DataSettings


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def npy_header(shape, descr="<f4"):
    """The header of an array, without its values."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


def write_npz(path, changes):
    """An `.npz` file of `make_arrays`, where some members have other bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in make_arrays().items():
            content = io.BytesIO()
            np.save(content, array)
            archive.writestr(f"{name}.npy", changes.get(name, content.getvalue()))


def pickled(trace):
    content = io.BytesIO()
    np.save(content, np.array([Payload(trace)], object), allow_pickle=True)
    return content.getvalue()


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


def test_an_array_that_unpacks_to_far_more_than_the_file_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in ("train", "test"):
            for name, header, size in (
                (f"x_{part}", npy_header((12, 10_000, 10_000), "|u1"), 12 * 10**8),
                (f"y_{part}", npy_header((12,), "|u1"), 12),
            ):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    file.write(header)
                    for start in range(0, size, 10**8):
                        file.write(bytes(min(10**8, size - start)))
    assert path.stat().st_size < 2**22
    with little_memory():
        for call in (data.check, data.load):
            message = message_of(call, DataSettings("npz", str(path)))
            assert message.startswith(f"{path}: unpacks to 2.4 GB, more than 100 times its size")


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
