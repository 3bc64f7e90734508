"""`Statement`: what a DuckDB statement has besides its last SELECT: names, subqueries, inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from operators.duckdb.fragment import FragmentInput
from operators.duckdb.select import indent
from operators.rel import Source

__all__ = ["Input", "Statement"]


@dataclass(slots=True)
class Input:
    """A source, the name that it has in the statement, and which of its columns are read."""

    name: str
    source: Source
    columns: list[str]


class Statement:
    """A statement in the making. No two of its tables have the same name, whatever its case.

    Parameters
    ----------
    names
        Of inputs that have one already.
    """

    def __init__(self, names: Mapping[Source, str] | None = None) -> None:
        self._given = dict(names or {})
        self._names = Counter(n.lower() for n in self._given.values())
        self._subqueries: list[tuple[str, str]] = []
        self._materialized: set[str] = set()
        self._inputs: dict[tuple[Source, str], Input] = {}

    def avoid(self, names: Iterable[str]) -> None:
        """Let nothing be called so."""
        self._names.update(n.lower() for n in names)

    def fresh(self, base: str) -> str:
        """An identifier like `base` that no other table has."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in base.lower()) or "t"
        if base[0].isdigit():
            base = "t" + base
        self._names[base] += 1
        if self._names[base] == 1:
            return base
        name = f"{base}_{self._names[base]}"
        if name in self._names:
            return self.fresh(name)
        self._names[name] = 1
        return name

    def define(self, hint: str, text: str) -> str:
        """Let a name like `hint` be a subquery; return the name."""
        name = self.fresh(hint)
        self._subqueries.append((name, text))
        return name

    def materialize(self, name: str) -> None:
        """Have a subquery computed once, however often it is read."""
        self._materialized.add(name)

    def read(self, source: Source, name: str) -> tuple[Input, str]:
        """An input, and the alias under which it is read this time."""
        if (known := self._inputs.get((source, name))) is not None:
            return known, self.fresh(name)
        called = self._given.get(source) or self.fresh(name)
        made = self._inputs[source, name] = Input(called, source, [])
        return made, made.name

    @property
    def inputs(self) -> tuple[FragmentInput, ...]:
        """What it reads, in the order of its first reading."""
        return tuple(
            FragmentInput(i.name, i.source, tuple(i.columns)) for i in self._inputs.values()
        )

    def text(self, last: str) -> str:
        """The whole statement, with its last SELECT."""
        if not self._subqueries:
            return last
        named = ",\n".join(
            f"{name} AS {'MATERIALIZED ' if name in self._materialized else ''}(\n{indent(text)}\n)"
            for name, text in self._subqueries
        )
        return f"WITH {named}\n{last}"
