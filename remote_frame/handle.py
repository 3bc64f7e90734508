"""Handles: where the columns of a frame are, as plain JSON that elements pass to one another.

A handle holds no data and nothing secret. It looks like this (`FrameHandle`)::

    {"kind": "frame", "version": 1,
     "schema": [["ss_item_sk", "int32", true], ["ss_net_paid", "decimal32(7,2)", true]],
     "parts": [{"ref": {"element": "m1", "region": 3, "epoch": 17,
                        "extents": [[0, 0], [0, 4096], [4096, 128], [4224, 4096]]},
                "rows": 1024, "nulls": [0, 12], "min": [1, null], "max": [18000, null]}]}

One part is one region of a memory element. Its ref's extents are the Arrow buffers of the columns,
in order: validity and data for fixed-width types; validity, offsets and data for strings. An absent
validity has length 0. A part has at least one row: an empty frame has no parts and costs no memory.
``min`` and ``max`` are there for columns of integers, dates, timestamps and decimals of up to 64
bits, as the stored integer (days, units of the timestamp, the unscaled decimal), and null
elsewhere.

What a writer returns at an exchange is an `ExchangeHandle`::

    {"kind": "exchange", "partitions": [frame of reader 0, frame of reader 1, …]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from libd.errors import LibdError
from libd.ref import Ref
from remote_frame.errors import HandleError
from remote_frame.types import buffer_kinds, minimum_sizes, type_from_text, type_to_text

__all__ = ["VERSION", "ExchangeHandle", "FieldSpec", "FrameHandle", "Part", "Stat", "load_handle"]

VERSION = 1
"""The version of handles that this code writes, and the only one that it reads."""

Stat = int | None
"""A least or greatest value, as the stored integer."""


class FieldSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One column: its name, its Arrow type, whether it may hold nulls."""

    name: str
    type: pa.DataType
    nullable: bool = True


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The rows of one region.

    Attributes
    ----------
    ref
        The region and, as its extents, the buffers of all columns.
    rows
        At least 1.
    nulls
        Nulls per column.
    min, max
        Least and greatest value per column that is not null, None where unknown; both empty if
        nothing is known.
    """

    ref: Ref
    rows: int
    nulls: tuple[int, ...]
    min: tuple[Stat, ...] = ()
    max: tuple[Stat, ...] = ()

    def __post_init__(self) -> None:
        # Decoding fills in a dataclass field by field, without the checks of its constructor.
        try:
            Ref(self.ref.element, self.ref.region, self.ref.epoch, self.ref.extents)
        except LibdError as error:
            raise HandleError(f"ref: {error}") from None

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, without the padding between them."""
        return self.ref.size


class FrameHandle(
    msgspec.Struct,
    frozen=True,
    dict=True,
    forbid_unknown_fields=True,
    tag_field="kind",
    tag="frame",
):
    """A frame: its schema and its parts, each in one region of some memory element.

    Raises
    ------
    HandleError
        On construction and from `from_json`, if the fields contradict one another.
    """

    version: int
    schema: tuple[FieldSpec, ...]
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise HandleError(
                f"version: the handle has version {self.version}, this code reads {VERSION}"
            )
        for number, part in enumerate(self.parts):
            _check_part(part, self.schema, f"parts[{number}]")

    @classmethod
    def build(cls, schema: pa.Schema, parts: Iterable[Part]) -> FrameHandle:
        """A handle of the current version over an Arrow schema."""
        fields = tuple(FieldSpec(f.name, f.type, f.nullable) for f in schema)
        return cls(version=VERSION, schema=fields, parts=tuple(parts))

    @classmethod
    def from_json(cls, data: Any) -> FrameHandle:
        """Read and check what `to_json` gave; `HandleError` names the field that is wrong."""
        handle = load_handle(data)
        if not isinstance(handle, FrameHandle):
            raise HandleError(
                "kind: this is the handle of an exchange; open one of its partitions "
                "(remote_frame.partition)"
            )
        return handle

    def to_json(self) -> dict[str, Any]:
        """A plain dict of JSON types."""
        return _to_json(self)

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        """The schema with the types as they are stored."""
        return pa.schema([pa.field(f.name, f.type, f.nullable) for f in self.schema])

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, without padding."""
        return sum(part.nbytes for part in self.parts)

    @cached_property
    def extents_of(self) -> tuple[slice, ...]:
        """For every column the slice of a part's extents that are its buffers."""
        slices, start = [], 0
        for field in self.schema:
            stop = start + len(buffer_kinds(field.type))
            slices.append(slice(start, stop))
            start = stop
        return tuple(slices)


class ExchangeHandle(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="exchange"
):
    """What one writer put into an exchange: a frame for every reader, all of one schema."""

    partitions: tuple[FrameHandle, ...]

    def __post_init__(self) -> None:
        if not self.partitions:
            raise HandleError("partitions: an exchange has at least one partition")
        for number, partition in enumerate(self.partitions):
            if partition.schema != self.partitions[0].schema:
                raise HandleError(f"partitions[{number}].schema: differs from that of partition 0")

    @classmethod
    def from_json(cls, data: Any) -> ExchangeHandle:
        """Read and check what `to_json` gave; `HandleError` names the field that is wrong."""
        handle = load_handle(data)
        if not isinstance(handle, ExchangeHandle):
            raise HandleError("kind: this is the handle of a frame, not of an exchange")
        return handle

    def to_json(self) -> dict[str, Any]:
        """A plain dict of JSON types."""
        return _to_json(self)


def load_handle(data: Any) -> FrameHandle | ExchangeHandle:
    """Read the JSON of either kind of handle.

    Raises
    ------
    HandleError
        If it is neither; the message names the field.
    """
    if isinstance(data, (FrameHandle, ExchangeHandle)):
        return data
    if not isinstance(data, Mapping):
        raise HandleError(f"a handle is a JSON object, not {type(data).__name__}")
    try:
        return msgspec.convert(data, FrameHandle | ExchangeHandle, dec_hook=_decode)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at ")
        where = path.strip("`").removeprefix("$").lstrip(".")
        raise HandleError(f"{where}: {message}" if where else message) from None


def _check_part(part: Part, schema: Sequence[FieldSpec], where: str) -> None:
    if part.rows < 1:
        raise HandleError(f"{where}.rows: {part.rows} rows, but a part has at least one")
    for name, values in (("nulls", part.nulls), ("min", part.min), ("max", part.max)):
        if len(values) != len(schema) and (values or name == "nulls"):
            raise HandleError(f"{where}.{name}: {len(values)} entries for {len(schema)} columns")
    for field, nulls in zip(schema, part.nulls, strict=True):
        if not 0 <= nulls <= part.rows:
            raise HandleError(
                f"{where}.nulls: column {field.name!r} has {nulls} nulls in {part.rows} rows"
            )
    least = [
        (field.name, kind, size)
        for field in schema
        for kind, size in zip(
            buffer_kinds(field.type), minimum_sizes(field.type, part.rows), strict=True
        )
    ]
    if len(part.ref.extents) != len(least):
        raise HandleError(
            f"{where}.ref.extents: {len(part.ref.extents)} extents, but the schema's columns have "
            f"{len(least)} buffers"
        )
    bits = (part.rows + 7) // 8
    for (name, kind, size), (_, length) in zip(least, part.ref.extents, strict=True):
        if length < size or (kind == "validity" and 0 < length < bits):
            raise HandleError(
                f"{where}.ref.extents: the {kind} of column {name!r} has {length} bytes, "
                f"{part.rows} rows need {max(size, bits if kind == 'validity' else 0)}"
            )


def _decode(type: type, value: Any) -> Any:
    if type is pa.DataType:
        if not isinstance(value, str):
            raise ValueError(f"Expected the name of a column type, got {value!r:.80}")
        return type_from_text(value)
    raise NotImplementedError(type)


def _to_json(handle: FrameHandle | ExchangeHandle) -> dict[str, Any]:
    # Through text, because `to_builtins` leaves tuples, which are equal to no JSON list.
    built: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(handle, enc_hook=_encode))
    return built


def _encode(value: Any) -> Any:
    if isinstance(value, pa.DataType):
        return type_to_text(value)
    raise NotImplementedError(type(value))
