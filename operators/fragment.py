"""What a lowered plan reads, whatever the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from operators.rel import Source

__all__ = ["FragmentInput"]


@dataclass(frozen=True, slots=True)
class FragmentInput:
    """A table that a lowered plan names.

    Attributes
    ----------
    name
        The identifier (unquoted) under which the plan's text reads it; unique in the fragment.
    source
        What it is. The kernel reads `ParquetSource` itself; an `InputSource` is supplied by
        whoever runs the fragment.
    columns
        Names of the columns that are used, in the source's order.
    """

    name: str
    source: Source
    columns: tuple[str, ...]
