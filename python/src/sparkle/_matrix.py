"""Matrix products."""

import ctypes

import numpy as np

from ._arrays import argument, floats, output
from ._devices import handle_of
from ._errors import check
from ._library import GemmDesc, library

_ROW_MAJOR, _NO_TRANS, _TRANS = 101, 111, 112


def _operand(name, array):
    """The stored matrix, its transposition and the distance of its rows. A transposed array is not copied."""
    array = np.asarray(array)
    if array.ndim != 2:
        raise ValueError(f"{name} has shape {array.shape}; expected a matrix")
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        stored, transposed = floats(name, array.T), _TRANS
    else:
        stored, transposed = floats(name, array), _NO_TRANS
    return stored, transposed, max(1, stored.shape[1])


def sgemm(a, b, c=None, *, alpha=1.0, beta=0.0, device=None, out=None):
    """alpha a b + beta c of float32 matrices: a (m, k), b (k, n), c and the result (m, n).

    Transposed matrices such as x.T are read in place. Returns a new matrix, or `out`, which may be c.
    """
    (a, trans_a, lda), (b, trans_b, ldb) = _operand("a", a), _operand("b", b)
    m, k = a.shape if trans_a == _NO_TRANS else a.shape[::-1]
    inner, n = b.shape if trans_b == _NO_TRANS else b.shape[::-1]
    if inner != k:
        raise ValueError(f"a has {k} columns, b has {inner} rows")
    if c is None and beta:
        raise ValueError(f"beta is {beta}, but there is no c")
    out = output(out, (m, n))
    if c is not None and c is not out:
        if np.shape(c) != (m, n):
            raise ValueError(f"c has shape {np.shape(c)}; expected {(m, n)}")
        # The library reads a and b before it writes, but this copy would come first.
        a, b = (it.copy() if np.may_share_memory(it, out) else it for it in (a, b))
        np.copyto(out, floats("c", c))
    desc = GemmDesc(
        ctypes.sizeof(GemmDesc), _ROW_MAJOR, trans_a, trans_b, m, n, k, lda, ldb, max(1, n), alpha, beta
    )
    handle, _open = handle_of(device)
    check(library.sparkle_sgemm(handle, desc, *argument(a), *argument(b), *argument(out)))
    return out
