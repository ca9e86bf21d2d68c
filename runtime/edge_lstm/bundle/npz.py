"""Reads arrays from an untrusted .npz file: no pickles, no compression, no array larger than its data."""

from __future__ import annotations

import io
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from edge_lstm.bundle.stored_zip import contents, directory

_MAX_ARRAYS = 1000
_DTYPE_KINDS = "fiuU"  # numbers and texts
_HEADER_READERS: dict[tuple[int, int], Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


# Raised by `read_npz`, and by access to an array that is missing.
NPZ_ERRORS = (KeyError, ValueError, EOFError, OSError, RuntimeError)


def read_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name. Raises one of NPZ_ERRORS if the content is not a file of uncompressed arrays.

    NumPy's own loader allocates the size in a header, and decompresses the zip file, before it checks either. Here the
    number of arrays and their sizes are checked first.
    """
    entries = directory(content, _MAX_ARRAYS)
    return {name.removesuffix(".npy"): _array(data) for name, data in contents(content, entries).items()}


def _array(data: bytes) -> NDArray[Any]:
    file = io.BytesIO(data)
    version = npy.read_magic(file)  # type: ignore[no-untyped-call]
    if version not in _HEADER_READERS:
        raise ValueError(f"an array in version {version} of its format")
    shape, by_columns, dtype = _HEADER_READERS[version](file)
    if dtype.kind not in _DTYPE_KINDS:
        raise ValueError(f"an array of {dtype}")
    if prod(shape) * dtype.itemsize != len(data) - file.tell():
        raise ValueError(f"an array that claims {shape} of {dtype} in {len(data)} bytes")
    flat: NDArray[Any] = np.frombuffer(data, dtype, offset=file.tell())
    return flat.reshape(shape, order="F" if by_columns else "C").copy()
