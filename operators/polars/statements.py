"""The function that a plan becomes, as it is written."""

from __future__ import annotations

import keyword
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from operators.expr import Column, Expr, ScalarSubquery
from operators.polars.fragment import FUNCTION
from operators.polars.frame import Frame, call, free_name, quoted_name, unique_names
from operators.polars.properties import has_one_row
from operators.polars.types import NAMES, VALUES
from operators.rel import Rel, Scan, Source, Values
from operators.rewrite import expressions, map_expr, subqueries
from operators.work import is_work

__all__ = ["Input", "Statements"]

# What a module has besides, into which a function may be put.
_TAKEN = ("element", "main")


@dataclass
class Input:
    name: str
    source: Source
    columns: list[str]


class Statements(ABC):
    """The function being written: its parameters, assignments, and what relations became."""

    def __init__(self, plan: Rel) -> None:
        self.inputs: list[Input] = []
        self.statements: list[str] = []
        self._names: Counter[str] = Counter((FUNCTION, *NAMES, VALUES, *_TAKEN))
        self._uses: Counter[int] = Counter()
        self._shared: dict[int, Frame] = {}
        self._count(plan)

    def _count(self, rel: Rel) -> None:
        self._uses[id(rel)] += 1
        if self._uses[id(rel)] > 1:
            return
        for child in rel.inputs():
            self._count(child)
        for expr in expressions(rel):
            for sub in subqueries(expr):
                self._count(sub)

    def fresh(self, base: str) -> str:
        """An identifier that nothing else in the function has."""
        base = "".join(c if c.isalnum() else "_" for c in base.lower()).strip("_")
        if not base.isidentifier() or keyword.iskeyword(base) or not base.isascii():
            base = "t"
        while True:
            self._names[base] += 1
            n = self._names[base]
            name = base if n == 1 else f"{base}_{n}"
            if n == 1 or name not in self._names:
                self._names[name] += n > 1
                return name

    def frame(self, rel: Rel) -> Frame:
        """The frame of `rel`; one that is used more than once is a variable."""
        return self.coded(rel).decoded()

    def coded(self, rel: Rel) -> Frame:
        """The same, for a reader that knows what to do with strings that stand as numbers."""
        if self._uses[id(rel)] == 1 or isinstance(rel, Scan | Values):
            return self.build(rel)
        if id(rel) not in self._shared:
            frame = self.build(rel).exact()
            if is_work(rel):
                frame = frame.then("cache()")
            self._shared[id(rel)] = self.variable(frame, "shared")
        return self._shared[id(rel)]

    def variable(self, frame: Frame, hint: str = "t") -> Frame:
        name = self.fresh(hint)
        self.statements.append(f"{name} = {frame.chained()}")
        return replace(frame, base=name, calls=())

    def operand(self, frame: Frame) -> Frame:
        """A frame that may stand in parentheses."""
        text = frame.argument()
        return frame if "\n" not in text and len(text) <= 50 else self.variable(frame)

    @abstractmethod
    def build(self, rel: Rel) -> Frame:
        """The frame of `rel`, whoever else reads it."""

    def selected(self, frame: Frame, positions: Sequence[int], wanted: Sequence[str]) -> Frame:
        """The columns at `positions` under the names that are wanted, as far as these differ."""
        if not positions:
            return replace(frame, names=(), types=(), whole=False, coded=frozenset())
        names = unique_names(wanted)
        if frame.whole and names == frame.names and tuple(positions) == tuple(range(len(names))):
            return frame
        types = tuple(frame.types[p] for p in positions)
        constant = frozenset(
            n for p, n in zip(positions, names, strict=True) if frame.names[p] in frame.constant
        )
        coded = frozenset(
            n for p, n in zip(positions, names, strict=True) if frame.names[p] in frame.coded
        )
        chosen = tuple((frame.names[p], n) for p, n in zip(positions, names, strict=True))
        if frame.chosen:  # a choice of what was just chosen
            before = {new: old for old, new in frame.chosen}
            chosen = tuple((before[old], new) for old, new in chosen)
            frame = replace(frame, calls=frame.calls[:-1])
        terms = [
            quoted_name(old)
            if old == new
            else f"pl.col({quoted_name(old)}).alias({quoted_name(new)})"
            for old, new in chosen
        ]
        frame = frame.then(call("select", terms))
        return replace(
            frame,
            names=names,
            types=types,
            whole=True,
            chosen=chosen,
            constant=constant,
            coded=coded,
        )

    def with_scalars(self, frame: Frame, exprs: Sequence[Expr]) -> tuple[Frame, list[Expr]]:
        """The values of scalar subqueries as columns of the frame, and the expressions over it."""
        columns: dict[int, Column] = {}

        def visit(expr: Expr) -> Expr:
            nonlocal frame
            if not isinstance(expr, ScalarSubquery):
                return expr
            if id(expr.rel) not in columns:
                frame = self._with_scalar(frame, expr)
                columns[id(expr.rel)] = Column(expr.type, len(frame.names) - 1)
            return columns[id(expr.rel)]

        replaced = [map_expr(e, visit) for e in exprs]
        return frame, replaced

    def _with_scalar(self, frame: Frame, expr: ScalarSubquery) -> Frame:
        value = self.frame(expr.rel)
        name = free_name("scalar", frame.names)
        text = f"pl.col({quoted_name(value.names[0])})"
        if not has_one_row(expr.rel):
            # None if there is no row, an error if there are two.
            text += ".item(allow_empty=True)"
        one = self.operand(value.then(f"select({text}.alias({quoted_name(name)}))"))
        joined = frame.exact().then(f'join({one.argument()}, how="cross")', whole=False)
        return replace(
            joined,
            names=(*frame.names, name),
            types=(*frame.types, expr.type),
            constant=frame.constant | {name},
        )
