"""The handle of an array: where its bytes are, as plain JSON.

::

    {"kind": "array", "version": 1, "dtype": "float64", "shape": [569, 30],
     "parts": [{"ref": {"element": "m1", "region": 1, "epoch": 5, "extents": [[0, 136560]]}}]}

One part with one extent holds the whole array in C order, in the byte order of the machine (little
endian). It holds no data and nothing secret.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

from libd.errors import LibdError
from libd.ref import Ref
from remote_array.errors import ArrayHandleError

__all__ = ["VERSION", "ArrayHandle", "checked_dtype"]

VERSION = 1
_KINDS = "biufc"  # bool, signed, unsigned, float, complex


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """A dtype that remote arrays can have: numeric or bool, in native byte order.

    Raises
    ------
    ArrayHandleError
        For anything else.
    """
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except TypeError as error:
        raise ArrayHandleError(f"dtype: {error}") from None
    if found.kind not in _KINDS or not found.isnative:
        raise ArrayHandleError(
            f"dtype: {found} is not supported; numbers and bool in native byte order are"
        )
    return found


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ref: dict[str, Any]


class _Wire(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="array"):
    version: int
    dtype: str
    shape: list[int]
    parts: list[_Part]


class ArrayHandle:
    """What `RemoteArray.handle` writes and `RemoteArray.open` reads."""

    __slots__ = ("dtype", "ref", "shape")

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], ref: Ref) -> None:
        self.dtype = dtype
        self.shape = shape
        self.ref = ref

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize

    def to_json(self) -> dict[str, Any]:
        """A plain dict of JSON types."""
        return {
            "kind": "array",
            "version": VERSION,
            "dtype": self.dtype.name,
            "shape": list(self.shape),
            "parts": [{"ref": self.ref.to_json()}],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ArrayHandle:
        """Read and check what `to_json` gave.

        Raises
        ------
        ArrayHandleError
            If it is not the handle of an array; the message names the field.
        """
        try:
            wire = msgspec.convert(data, _Wire)
        except msgspec.ValidationError as error:
            message, _, path = str(error).partition(" - at ")
            where = path.strip("`").removeprefix("$").lstrip(".")
            raise ArrayHandleError(f"{where}: {message}" if where else message) from None
        if wire.version != VERSION:
            raise ArrayHandleError(
                f"version: the handle has version {wire.version}, this code reads {VERSION}"
            )
        if any(n < 0 for n in wire.shape):
            raise ArrayHandleError(f"shape: {wire.shape} has a negative length")
        if len(wire.parts) != 1:
            raise ArrayHandleError(f"parts: an array has one part, not {len(wire.parts)}")
        try:
            ref = Ref.from_json(wire.parts[0].ref)
        except LibdError as error:
            raise ArrayHandleError(f"parts[0].ref: {error}") from None
        handle = cls(checked_dtype(wire.dtype), tuple(wire.shape), ref)
        if len(ref.extents) != 1 or ref.extents[0][1] < handle.nbytes:
            raise ArrayHandleError(
                f"parts[0].ref.extents: one extent of {handle.nbytes} bytes is needed, "
                f"not {[list(e) for e in ref.extents]}"
            )
        return handle
