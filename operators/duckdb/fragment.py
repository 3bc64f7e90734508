"""What lowering produces and a kernel runs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from operators.errors import PlanError
from operators.fragment import FragmentInput
from operators.rel import InputSource, ParquetSource
from operators.schema import Schema

__all__ = ["Fragment", "FragmentInput"]


@dataclass(frozen=True, slots=True)
class Fragment:
    """One statement, what it reads, and the schema of its answer.

    `fixed_joins` says that the plan chose join order and build sides, so that the kernel must not;
    `join_filters`, that rows may be left out below a join for what its other side has.
    """

    sql: str
    inputs: tuple[FragmentInput, ...]
    schema: Schema
    fixed_joins: bool = False
    join_filters: bool = True

    def with_part(self, index: int, count: int, table: str | None = None) -> Fragment:
        """The same fragment reading only share `index` of `count` of its Parquet tables (or of
        the one named).
        """
        if not 0 <= index < count:
            raise PlanError(f"there is no part {index} of {count}")
        inputs = []
        for one in self.inputs:
            if isinstance(one.source, ParquetSource) and table in (None, one.name):
                source = dataclasses.replace(one.source, part=(index, count))
                one = dataclasses.replace(one, source=source)
            inputs.append(one)
        return dataclasses.replace(self, inputs=tuple(inputs))

    @property
    def supplied(self) -> tuple[FragmentInput, ...]:
        """The inputs that whoever runs the fragment must supply."""
        return tuple(i for i in self.inputs if isinstance(i.source, InputSource))
