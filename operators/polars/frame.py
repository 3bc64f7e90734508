"""A lazy frame under construction, as text, and the ways in which calls are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import pyarrow as pa

from operators.errors import UnsupportedPlan
from operators.polars.expressions import Writer
from operators.polars.text import plain_name, quoted

__all__ = [
    "Frame",
    "call",
    "flags",
    "free_name",
    "indented",
    "listed",
    "one_or_list",
    "parenthesized",
    "quoted_name",
    "unique_names",
]

_WIDTH = 96


@dataclass(frozen=True)
class Frame:
    """A lazy frame under construction: method calls on a variable.

    `names` are those of the relation's columns, by position; `whole` says that the frame has these
    columns, in this order, and no others. `chosen` are the old and new names of the columns that
    the last call chooses, if that is all that it does; `constant` are names of columns that may
    be one value to Polars, `coded` of strings that stand as numbers (`operators.polars.coding`).
    """

    base: str
    calls: tuple[str, ...]
    names: tuple[str, ...]
    types: tuple[pa.DataType, ...]
    whole: bool = True
    chosen: tuple[tuple[str, str], ...] = ()
    constant: frozenset[str] = frozenset()
    coded: frozenset[str] = frozenset()

    def then(self, call: str, *, whole: bool | None = None) -> Frame:
        """With another method call, which leaves the columns as they are."""
        whole = self.whole if whole is None else whole
        calls = *self.calls, call
        return Frame(self.base, calls, self.names, self.types, whole, (), self.constant, self.coded)

    def exact(self) -> Frame:
        """Without other columns."""
        if self.whole:
            return self
        if not self.names:
            raise UnsupportedPlan("a relation without columns")
        return self.then(call("select", map(quoted_name, self.names)), whole=True)

    def cast(self, names: Iterable[str], type: str) -> Frame:
        """With some columns of another type to Polars."""
        chosen = [quoted_name(n) for n in self.names if n in {*names}]
        return self.then(f"with_columns(pl.col({', '.join(chosen)}).cast({type}))")

    def decoded(self, positions: Iterable[int] | None = None) -> Frame:
        """With strings as strings: all, or those at some positions."""
        among = self.names if positions is None else [self.names[i] for i in positions]
        names = self.coded.intersection(among)
        if not names:
            return self
        return replace(self.cast(names, "pl.String"), coded=self.coded - names)

    def chained(self) -> str:
        """The text of the whole chain."""
        line = self.base + "".join(f".{c}" for c in self.calls)
        if "\n" not in line and len(line) <= _WIDTH - 12:
            return line
        return "(\n" + indented("\n".join([self.base, *(f".{c}" for c in self.calls)])) + "\n)"

    def argument(self) -> str:
        """The text of a short chain, for the argument of a call."""
        return self.base + "".join(f".{c}" for c in self.calls)

    @property
    def writer(self) -> Writer:
        """Writes expressions over the columns."""
        return Writer(self.names, self.types, constant=[n in self.constant for n in self.names])


def quoted_name(name: str) -> str:
    """A column's name, for a call that takes names.

    Raises
    ------
    UnsupportedPlan
        If Polars would take it for a pattern.
    """
    return quoted(plain_name(name))


def parenthesized(text: str) -> str:
    """An expression to whose right a method may be called."""
    return text if _chain(text) else f"({text})"


def _chain(text: str) -> bool:
    """Whether the text is a chain of names and calls, with no operator outside of parentheses."""
    depth, quote, escaped = 0, "", False
    for c in text:
        if quote:
            if escaped:
                escaped = False
            elif c == "\\":
                escaped = True
            elif c == quote:
                quote = ""
        elif c in "\"'":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif depth == 0 and not (c.isalnum() or c in "._"):
            return False
    return True


def indented(text: str) -> str:
    return "\n".join("    " + line if line else line for line in text.split("\n"))


def call(method: str, arguments: Iterable[str]) -> str:
    """A call, over several lines where it is long."""
    arguments = list(arguments)
    line = f"{method}({', '.join(arguments)})"
    if len(line) <= _WIDTH - 16 and "\n" not in line:
        return line
    return f"{method}(\n" + "".join(indented(a) + ",\n" for a in arguments) + ")"


def listed(texts: Sequence[str]) -> str:
    line = f"[{', '.join(texts)}]"
    if len(line) <= _WIDTH - 20 and "\n" not in line:
        return line
    return "[\n" + "".join(indented(t) + ",\n" for t in texts) + "]"


def one_or_list(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"


def flags(flags: Sequence[bool]) -> str:
    return str(flags[0]) if len(set(flags)) == 1 else str(list(flags))


def free_name(base: str, taken: Sequence[str] | AbstractSet[str]) -> str:
    name, n = base, 1
    while name in taken:
        n += 1
        name = f"{base}_{n}"
    return name


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """`names` with repetitions numbered."""
    taken, seen, result = set(names), set[str](), []
    for name in names:
        base = name or "c"
        unique = base if base not in seen else free_name(base, taken | seen)
        seen.add(unique)
        result.append(unique)
    return tuple(result)
