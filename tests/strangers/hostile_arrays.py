"""Parts of files in NumPy's formats that do harm."""

import io

import numpy as np


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


def npy(array):
    """The content of an `.npy` file."""
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def npy_header(shape, descr="<f4"):
    """The header of an array, without its values."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {"descr": descr, "fortran_order": False, "shape": shape})
    return content.getvalue()


def pickled(trace):
    """An array of one object that makes the file `trace` when it is unpickled."""
    return npy(np.array([Payload(trace)], object))
