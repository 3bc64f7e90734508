"""Handles: where the columns of a frame are, as plain JSON that elements pass to one another.

A handle holds no data and nothing secret. It looks like this (`FrameHandle`)::

    {"kind": "frame", "version": 2,
     "schema": [["ss_item_sk", "int32", true], ["i_category", "string", true]],
     "parts": [{"ref": {"element": "m1", "region": 3, "epoch": 17, "extents": [[0, 17024]]},
                "rows": 1024, "nulls": [0, 12], "bytes": [8310],
                "min": [1, "Books"], "max": [18000, "Women"]}],
     "distinct": ["AAKL…", "BBFA…"], "sampled": 1024}

One part is one extent of a region of a memory element. Where the buffers of its columns are in it
follows from its rows, nulls and ``bytes``, the length of the values of each column of strings
(`operators.part_columns.layout`): column after column validity, if there are nulls, offsets for
strings, and data, each 64-byte aligned. Parts may share a region. A part has at least one row: an
empty frame has no parts and costs no memory.

``min`` and ``max`` bound the values that are not null: of columns of integers, dates, timestamps
and decimals as the stored integer (days, units of the timestamp, the unscaled decimal), of floats
as number, of strings as their first bytes, at most eight (values that begin with the ``max`` may
stand above it). Null is unknown. ``distinct`` are sketches of the distinct values of each column
(`operators.distinct`), over all parts that the writer wrote; ``sampled`` is how many
of their rows entered them.

What a writer returns at an exchange is an `ExchangeHandle`, which has the schema once, and the
parts of each reader::

    {"kind": "exchange", "version": 2, "schema": […], "partitions": [[part, …], [part, …], …],
     "distinct": […], "sampled": 4096}
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec
import pyarrow as pa

from libd.errors import LibdError
from libd.ref import Ref
from operators._partition import Layout
from operators.distinct import Distinct
from operators.part_columns import Stat, layout
from remote_frame.errors import HandleError
from remote_frame.types import is_variable, type_from_text, type_to_text

__all__ = [
    "VERSION",
    "ExchangeHandle",
    "FieldSpec",
    "FrameHandle",
    "HandleStream",
    "Part",
    "Stat",
    "load_handle",
    "partition_of",
]

VERSION = 2
"""The version of handles that this code writes, and the only one that it reads."""


class FieldSpec(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One column: its name, its Arrow type, whether it may hold nulls."""

    name: str
    type: pa.DataType
    nullable: bool = True


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Some rows, in one extent of a region.

    Attributes
    ----------
    ref
        The region, and as its only extent all bytes of the part.
    rows
        At least 1.
    nulls
        Nulls per column.
    bytes
        Bytes of the values of each column of strings or binaries.
    min, max
        Bounds of the values per column that are not null, None where unknown; both empty if nothing
        is known.
    """

    ref: Ref
    rows: int
    nulls: tuple[int, ...]
    bytes: tuple[int, ...] = ()
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
        """Bytes of all buffers, with the padding between them."""
        return self.ref.size


class FrameHandle(
    msgspec.Struct,
    frozen=True,
    dict=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="frame",
):
    """A frame: its schema and its parts, each in some memory element.

    Raises
    ------
    HandleError
        On construction and from `from_json`, if the fields contradict one another.
    """

    version: int
    schema: tuple[FieldSpec, ...]
    parts: tuple[Part, ...]
    distinct: tuple[str, ...] = ()
    sampled: int = 0

    def __post_init__(self) -> None:
        _check_frame(self.version, self.schema, self.distinct, self.sampled)
        _check_parts(self.parts, self.schema, self.layout, "parts")

    @classmethod
    def build(
        cls, schema: pa.Schema, parts: Iterable[Part], distinct: Sequence[Distinct] = ()
    ) -> FrameHandle:
        """A handle of the current version over an Arrow schema."""
        texts, sampled = _sketch_texts(distinct)
        return cls(VERSION, _fields(schema), tuple(parts), texts, sampled)

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

    @cached_property
    def layout(self) -> Layout:
        """Where all columns are in a part."""
        return layout([f.type for f in self.schema], range(len(self.schema)))

    @property
    def rows(self) -> int:
        """Rows of all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts, with padding."""
        return sum(part.nbytes for part in self.parts)

    @cached_property
    def sketches(self) -> tuple[Distinct, ...]:
        """The sketch of every column; empty if there are none."""
        return tuple(Distinct.from_text(text, self.sampled) for text in self.distinct)


class ExchangeHandle(
    msgspec.Struct,
    frozen=True,
    dict=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="kind",
    tag="exchange",
):
    """What one writer put into an exchange: parts for every reader, all of one schema."""

    version: int
    schema: tuple[FieldSpec, ...]
    partitions: tuple[tuple[Part, ...], ...]
    distinct: tuple[str, ...] = ()
    sampled: int = 0

    def __post_init__(self) -> None:
        _check_frame(self.version, self.schema, self.distinct, self.sampled)
        if not self.partitions:
            raise HandleError("partitions: an exchange has at least one partition")
        whole = layout([f.type for f in self.schema], range(len(self.schema)))
        for number, parts in enumerate(self.partitions):
            _check_parts(parts, self.schema, whole, f"partitions[{number}]")

    @classmethod
    def build(
        cls,
        schema: pa.Schema,
        partitions: Iterable[Iterable[Part]],
        distinct: Sequence[Distinct] = (),
    ) -> ExchangeHandle:
        """A handle of the current version over an Arrow schema."""
        texts, sampled = _sketch_texts(distinct)
        return cls(VERSION, _fields(schema), tuple(map(tuple, partitions)), texts, sampled)

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

    def partition(self, index: int) -> FrameHandle:
        """What reader `index` reads; the sketches are those of all readers' rows."""
        return FrameHandle(
            self.version, self.schema, self.partitions[index], self.distinct, self.sampled
        )

    def whole(self) -> FrameHandle:
        """All partitions as one frame."""
        parts = tuple(part for partition in self.partitions for part in partition)
        return FrameHandle(self.version, self.schema, parts, self.distinct, self.sampled)

    @property
    def rows(self) -> int:
        """Rows of all partitions."""
        return sum(part.rows for partition in self.partitions for part in partition)

    @property
    def nbytes(self) -> int:
        """Bytes of all partitions, with padding."""
        return sum(part.nbytes for partition in self.partitions for part in partition)


class HandleStream:
    """Handles of one frame as they are committed, for readers that do not wait for the last.

    Iterating gives the handles so far and then blocks until more are there or the stream is closed;
    it may be iterated again, and by several threads.
    """

    def __init__(self, handles: Iterable[FrameHandle] = ()) -> None:
        self._handles = list(handles)
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def append(self, handle: FrameHandle) -> None:
        """Another handle is committed."""
        with self._changed:
            if self._closed:
                raise HandleError("the stream of handles is closed")
            self._handles.append(handle)
            self._changed.notify_all()

    def close(self, error: BaseException | None = None) -> None:
        """No more will come; with an error, readers that want more get it raised."""
        with self._changed:
            self._closed = True
            self._error = self._error or error
            self._changed.notify_all()

    def __iter__(self) -> Iterator[FrameHandle]:
        number = 0
        while True:
            with self._changed:
                while not self._closed and len(self._handles) == number:
                    self._changed.wait()
                if number == len(self._handles):
                    if self._error is not None:
                        raise self._error
                    return
                handle = self._handles[number]
            number += 1
            yield handle


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


def partition_of(handles: Iterable[Any], index: int) -> list[FrameHandle]:
    """What reader `index` reads of the exchanges of all writers, whose handles are JSON or parsed.

    Raises
    ------
    HandleError
        If a handle is not that of an exchange, or has no such partition.
    """
    found = []
    for number, data in enumerate(handles):
        handle = load_handle(data)
        if not isinstance(handle, ExchangeHandle):
            raise HandleError(f"handle {number}: kind: a frame is not an exchange")
        if not 0 <= index < len(handle.partitions):
            raise HandleError(
                f"handle {number}: there is no partition {index}, it has {len(handle.partitions)}"
            )
        found.append(handle.partition(index))
    return found


def _fields(schema: pa.Schema) -> tuple[FieldSpec, ...]:
    return tuple(FieldSpec(f.name, f.type, f.nullable) for f in schema)


def _sketch_texts(sketches: Sequence[Distinct]) -> tuple[tuple[str, ...], int]:
    rows = max((s.rows for s in sketches), default=0)
    return (tuple(s.to_text() for s in sketches), rows) if rows else ((), 0)


def _check_frame(
    version: int, schema: Sequence[FieldSpec], distinct: Sequence[str], sampled: int
) -> None:
    if version != VERSION:
        raise HandleError(f"version: the handle has version {version}, this code reads {VERSION}")
    if distinct and len(distinct) != len(schema):
        raise HandleError(f"distinct: {len(distinct)} entries for {len(schema)} columns")
    if sampled < 0:
        raise HandleError(f"sampled: {sampled} rows")
    for number, text in enumerate(distinct):
        try:
            Distinct.from_text(text, sampled)
        except ValueError as error:
            raise HandleError(f"distinct[{number}]: {error}") from None


def _check_parts(
    parts: Sequence[Part], schema: Sequence[FieldSpec], whole: Layout, where: str
) -> None:
    strings = sum(is_variable(field.type) for field in schema) if parts else 0
    for number, part in enumerate(parts):
        try:
            _check_part(part, schema, whole, strings)
        except HandleError as error:
            raise HandleError(f"{where}[{number}].{error}") from None


def _check_part(part: Part, schema: Sequence[FieldSpec], whole: Layout, strings: int) -> None:
    if part.rows < 1:
        raise HandleError(f"rows: {part.rows} rows, but a part has at least one")
    for name, values in (("nulls", part.nulls), ("min", part.min), ("max", part.max)):
        if len(values) != len(schema) and (values or name == "nulls"):
            raise HandleError(f"{name}: {len(values)} entries for {len(schema)} columns")
    if part.nulls and not 0 <= min(part.nulls) <= max(part.nulls) <= part.rows:
        column = next(c for c, nulls in enumerate(part.nulls) if not 0 <= nulls <= part.rows)
        raise HandleError(
            f"nulls: column {schema[column].name!r} has {part.nulls[column]} nulls in "
            f"{part.rows} rows"
        )
    if len(part.bytes) != strings or (strings and min(part.bytes) < 0):
        raise HandleError(
            f"bytes: {list(part.bytes)!r:.80} are not the lengths of {strings} columns of strings"
        )
    if len(part.ref.extents) != 1:
        raise HandleError(f"ref.extents: {len(part.ref.extents)} extents, but a part has one")
    try:
        needed = whole.size(part.rows, part.nulls, part.bytes)
    except (ValueError, OverflowError) as error:
        raise HandleError(f"rows: {error}") from None
    if part.nbytes != needed:
        raise HandleError(
            f"ref.extents: the part has {part.nbytes} bytes, its {part.rows} rows need {needed}"
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
