"""NumPy arrays as the library's arguments."""

import numpy as np


def floats(name, array):
    """`array` as aligned float32 in C's order. Only strided or unaligned arrays are copied."""
    array = np.asarray(array)
    if array.dtype != np.float32:
        raise TypeError(f"{name} is {array.dtype}; expected float32, for instance {name}.astype(np.float32)")
    return np.require(array, np.float32, "CA")


def output(out, shape):
    """`out`, checked, or a new array of `shape`."""
    if out is None:
        return np.empty(shape, np.float32)
    if not isinstance(out, np.ndarray) or out.dtype != np.float32:
        raise TypeError("out must be an array of float32")
    if out.shape != tuple(shape):
        raise ValueError(f"out has shape {out.shape}; expected {tuple(shape)}")
    if not (out.flags.c_contiguous and out.flags.aligned and out.flags.writeable):
        raise ValueError("out must be writeable and contiguous in C's order")
    return out


def argument(array):
    """The address and length of `array`, or those of no array."""
    return (None, 0) if array is None else (array.ctypes.data, array.size)
