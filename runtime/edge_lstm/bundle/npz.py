"""Reads arrays from an untrusted .npz file: no pickles, no compression, no array larger than its data."""

from __future__ import annotations

import io
import zipfile
from math import prod
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

_MAX_ARRAYS = 1000
_DTYPE_KINDS = "fiuU"  # numbers and texts
_HEADER_READERS: dict[tuple[int, int], Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


# Raised by `read_npz`, and by access to an array that is missing.
NPZ_ERRORS = (KeyError, ValueError, EOFError, OSError, RuntimeError, NotImplementedError, zipfile.BadZipFile)


def read_npz(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays by name. Raises one of NPZ_ERRORS if the content is not a file of uncompressed arrays.

    NumPy's own loader allocates the size in a header, and decompresses the zip file, before it checks either.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        if len(infos) > _MAX_ARRAYS or len({info.filename for info in infos}) < len(infos):
            raise ValueError(f"{len(infos)} arrays, or two of one name")
        if any(info.compress_type != zipfile.ZIP_STORED for info in infos):
            raise ValueError("compressed arrays")
        if sum(info.file_size for info in infos) > len(content):
            raise ValueError("arrays that claim more bytes than there are")
        return {info.filename.removesuffix(".npy"): _array(archive.read(info)) for info in infos}


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
