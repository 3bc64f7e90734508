"""The text of one SELECT."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from operators.duckdb.sqltypes import identifier, sql_type
from operators.expr import Expr

__all__ = ["Select", "as_term", "distinct_names", "indent", "is_reference"]

_QUALIFIER = re.compile(r"\w+\.")
_REFERENCE = re.compile(r"""(\w+|"[^"]*")\.(\w+|"([^"]|"")*")""")
_NAMED = re.compile(r"""(?<!\w)([^\W\d]\w*|"[^"]*")\.""")
_LITERAL = re.compile(r"'(?:[^']|'')*'")


@dataclass
class Select:
    """A SELECT under construction; `columns` are the SQL texts of its outputs over `source`."""

    source: str
    columns: list[str]
    simple: list[bool]
    where: list[str] = field(default_factory=list)
    group: str | None = None
    having: list[str] = field(default_factory=list)
    order: list[tuple[str, str]] = field(default_factory=list)
    limit: str = ""
    aggregated: bool = False
    measures: tuple[str, ...] = ()
    windowed: bool = False
    table: str | None = None

    @property
    def bare(self) -> bool:
        """Whether this is nothing but columns of a FROM clause."""
        return all(self.simple) and not (
            self.where or self.aggregated or self.windowed or self.order or self.limit
        )

    def render(self, names: Sequence[str]) -> str:
        """The text, with the outputs under `names`, made unique."""
        outputs = []
        for text, name in zip(self.columns, distinct_names(names), strict=True):
            alias = identifier(name)
            named = text == alias or (
                text.endswith(alias) and _QUALIFIER.fullmatch(text.removesuffix(alias))
            )
            outputs.append(text if named else f"{text} AS {alias}")
        listed = ", ".join(outputs) or "1 AS one"
        if len(listed) > 100:
            listed = "\n" + ",\n".join("  " + o for o in outputs)
        else:
            listed = " " + listed
        text = f"SELECT{listed}"
        if self.source:
            text += f"\nFROM {self.source}"
        if self.where:
            text += "\nWHERE " + "\n  AND ".join(self.where)
        if self.group is not None:
            text += f"\nGROUP BY {self.group}"
        elif self.aggregated and not any(m in c for m in self.measures for c in self.columns):
            text += "\nGROUP BY ()"  # One row, although no output says so any more.
        if self.having:
            text += "\nHAVING " + "\n  AND ".join(self.having)
        if self.order:
            # An output's alias goes before everything else in ORDER BY, so it may stand for its
            # text.
            aliases = dict(
                zip(
                    reversed(self.columns),
                    map(identifier, reversed(distinct_names(names))),
                    strict=True,
                )
            )
            terms = [aliases.get(term, term) + direction for term, direction in self.order]
            text += "\nORDER BY " + ", ".join(terms)
        return text + self.limit

    def joins(self, filled: bool) -> bool:
        """Whether the columns mean the same above a join as below it: a constant does not
        become NULL where the join finds no partner.
        """
        return not filled or all(map(is_reference, self.columns))

    def tight_columns(self) -> list[str]:
        """The columns as operands: in parentheses unless they are names or single calls."""
        return [
            text if simple or _closed(text) else f"({text})"
            for text, simple in zip(self.columns, self.simple, strict=True)
        ]


def is_reference(text: str) -> bool:
    """Whether a text is a column of a table, as the lowering writes it."""
    return _REFERENCE.fullmatch(text) is not None


def indent(text: str) -> str:
    """A text inside of another's parentheses."""
    return "\n".join("  " + line for line in text.split("\n"))


def as_term(text: str, expr: Expr) -> str:
    """A term of GROUP BY or ORDER BY: a number there would be a position, be it in parentheses or
    negated, but a cast is none.
    """
    named = _NAMED.search(_LITERAL.sub("", text))
    return text if named else f"CAST({text} AS {sql_type(expr.type)})"


def distinct_names(names: Sequence[str]) -> list[str]:
    """`names` with repetitions numbered (DuckDB's identifiers ignore case)."""
    taken = {n.lower() for n in names}
    seen: set[str] = set()
    result = []
    for name in names:
        unique, n = name or "c", 1
        while unique.lower() in seen or (n > 1 and unique.lower() in taken):
            n += 1
            unique = f"{name or 'c'}_{n}"
        seen.add(unique.lower())
        result.append(unique)
    return result


def _closed(text: str) -> bool:
    """Whether `text` is one call, so that no operator beside it can take it apart."""
    head, bracket, _ = text.partition("(")
    if not bracket or not text.endswith(")") or not all(c.isalnum() or c == "_" for c in head):
        return False
    depth = 0
    quote = ""
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c == "(":
            depth += 1
        elif c == ")":
            depth -= 1
            if depth == 0 and i < len(text) - 1:
                return False
    return True
