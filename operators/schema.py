"""Schemas of the plan IR: named, typed, nullable columns, in order.

Types are pyarrow's, because every boundary of the IR (Parquet, memory elements, DuckDB) already
speaks them. Names are for people; the IR itself refers to columns by position, so that duplicate
names are harmless.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

__all__ = ["Field", "Schema"]


@dataclass(frozen=True, slots=True)
class Field:
    """One column: its name, its Arrow type and whether it may hold nulls."""

    name: str
    type: pa.DataType
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Schema:
    """An ordered tuple of fields; names need not be unique."""

    fields: tuple[Field, ...]

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __getitem__(self, position: int) -> Field:
        return self.fields[position]

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple([f.name for f in self.fields])

    @property
    def types(self) -> tuple[pa.DataType, ...]:
        """Column types in order."""
        return tuple([f.type for f in self.fields])

    def select(self, positions: Sequence[int]) -> Schema:
        """The fields at `positions`, in that order."""
        fields = self.fields
        return Schema(tuple([fields[p] for p in positions]))

    def rename(self, names: Sequence[str]) -> Schema:
        """The same columns under other names."""
        return Schema(
            tuple(Field(n, f.type, f.nullable) for n, f in zip(names, self.fields, strict=True))
        )

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> Schema:
        """Convert from a `pyarrow.Schema`."""
        return cls(tuple(Field(f.name, f.type, f.nullable) for f in schema))

    def to_arrow(self) -> pa.Schema:
        """Convert to a `pyarrow.Schema`."""
        return pa.schema([pa.field(f.name, f.type, f.nullable) for f in self.fields])
