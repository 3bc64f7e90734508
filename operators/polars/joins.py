"""Joins and set operations of lazy frames."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa
import pyarrow.types as pt

from operators.errors import UnsupportedPlan
from operators.expr import Expr
from operators.polars.frame import (
    Frame,
    call,
    free_name,
    listed,
    one_or_list,
    quoted_name,
    unique_names,
)
from operators.polars.properties import has_one_row, is_distinct
from operators.polars.statements import Statements
from operators.polars.types import polars_type
from operators.rel import Join, SetOperation
from operators.rewrite import columns_used, conjuncts, remap, subqueries

__all__ = ["Joins"]


class Joins(Statements, ABC):
    """Writes what has several inputs."""

    def join(self, rel: Join) -> Frame:
        if rel.kind == "asof" or not rel.left_keys:
            return self._keyless(rel)
        if len(set(rel.null_equal)) > 1:
            raise UnsupportedPlan("a join in which some keys only may be NULL")
        if (
            rel.kind == "semi"
            and rel.condition is not None
            and is_distinct(rel.right, rel.right_keys)
        ):
            # A row finds one partner at most, so that no row comes twice.
            joined = self.join(replace(rel, kind="inner", build=None))
            width = len(rel.left.schema)
            names = joined.names[:width]
            coded = joined.coded.intersection(names)
            return replace(
                joined, names=names, types=joined.types[:width], whole=False, coded=coded
            )
        width, used = len(rel.left.schema), columns_used(rel.condition)
        left = self.coded(rel.left).decoded({*rel.left_keys, *(i for i in used if i < width)})
        right = self.coded(rel.right).decoded(
            {*rel.right_keys, *(i - width for i in used if i >= width)}
        )
        left = left.exact()
        above, right = self._placed(rel, right)
        left_on, right_on = [], []
        if rel.kind not in ("semi", "anti"):
            right = self._renamed(right, left.names)
        for a, b in zip(rel.left_keys, rel.right_keys, strict=True):
            x, y = _key(left, a, right.types[b]), _key(right, b, left.types[a])
            left_on.append(x)
            right_on.append(y)
        nulls = ["nulls_equal=True"] if any(rel.null_equal) else []
        on = [f"left_on={one_or_list(left_on)}", f"right_on={one_or_list(right_on)}"]
        if rel.kind == "mark":
            return self._mark(rel, left, right, left_on, right_on, nulls)
        right = self.operand(right)
        if rel.kind in ("semi", "anti"):
            arguments = [right.argument(), *on, f'how="{rel.kind}"', *nulls]
            return left.then(call("join", arguments))
        arguments = [right.argument(), *on, f'how="{rel.kind}"', *nulls, "coalesce=False"]
        joined = replace(
            left.then(call("join", arguments)),
            names=(*left.names, *right.names),
            types=(*left.types, *right.types),
            coded=left.coded | right.coded,
        )
        if above:
            terms = [joined.writer.condition(t) for t in above]
            joined = joined.then(call("filter", terms))
        return joined

    def _placed(self, rel: Join, right: Frame) -> tuple[list[Expr], Frame]:
        """The terms of a join's condition that apply above it; those of the right side alone are
        applied there.
        """
        width = len(rel.left.schema)
        above = []
        for term in conjuncts(rel.condition):
            if any(True for _ in subqueries(term)):
                raise UnsupportedPlan("a subquery in a join's condition")
            used = columns_used(term)
            if rel.kind == "inner":
                above.append(term)
            elif rel.kind in ("left", "semi", "anti", "mark") and used and min(used) >= width:
                moved = remap(term, {i: i - width for i in used})
                right = right.then(call("filter", [right.writer.condition(moved)]))
            else:
                raise UnsupportedPlan(f"a condition of a {rel.kind} join")
        return above, right

    def _keyless(self, rel: Join) -> Frame:
        if rel.kind not in ("inner", "cross") or not (
            rel.condition is None or has_one_row(rel.left) or has_one_row(rel.right)
        ):
            raise UnsupportedPlan(f"a {rel.kind} join without keys")
        left = self.frame(rel.left).exact()
        right = self.operand(self._renamed(self.frame(rel.right), left.names).exact())
        joined = replace(
            left.then(f'join({right.argument()}, how="cross")'),
            names=(*left.names, *right.names),
            types=(*left.types, *right.types),
        )
        if rel.condition is None:
            return joined
        wider, (condition,) = self.with_scalars(joined, [rel.condition])
        terms = [wider.writer.condition(t) for t in conjuncts(condition)]
        return replace(wider.then(call("filter", terms)), names=joined.names, types=joined.types)

    def _mark(
        self,
        rel: Join,
        left: Frame,
        right: Frame,
        left_on: Sequence[str],
        right_on: Sequence[str],
        nulls: Sequence[str],
    ) -> Frame:
        """Whether there is a partner, as a column: no left row may find two."""
        name = free_name(rel.schema.names[-1] or "mark", left.names)
        keys = [f"key_{i}" for i in range(len(right_on))]
        while set(keys) & {*left.names, name}:
            keys = [k + "_" for k in keys]
        terms = [
            f"{t if t.startswith('pl.') else f'pl.col({t})'}.alias({quoted_name(k)})"
            for t, k in zip(right_on, keys, strict=True)
        ]
        partners = self.variable(
            right.then(call("select", terms))
            .then("unique()")
            .then(f"with_columns(pl.lit(True).alias({quoted_name(name)}))"),
            "partners",
        )
        on = [
            f"left_on={one_or_list(left_on)}",
            f"right_on={one_or_list([quoted_name(k) for k in keys])}",
        ]
        joined = call("join", [partners.base, *on, 'how="left"', *nulls])
        marked = left.then(joined)
        marked = marked.then(f"with_columns(pl.col({quoted_name(name)}).fill_null(False))")
        return replace(marked, names=(*left.names, name), types=(*left.types, pa.bool_()))

    def _renamed(self, frame: Frame, taken: Sequence[str]) -> Frame:
        """With no column called as one of `taken` is."""
        frame = frame.exact()
        used = {*taken, *frame.names}
        renamed = {}
        for name in frame.names:
            if name in taken:
                renamed[name] = free_name(name, used)
                used.add(renamed[name])
        if not renamed:
            return frame
        pairs = ", ".join(f"{quoted_name(a)}: {quoted_name(b)}" for a, b in renamed.items())
        names = tuple(renamed.get(n, n) for n in frame.names)
        coded = frozenset(renamed.get(n, n) for n in frame.coded)
        return replace(frame.then(f"rename({{{pairs}}})"), names=names, coded=coded)

    def set(self, rel: SetOperation) -> Frame:
        names = unique_names(rel.schema.names)
        parts = []
        for operand in rel.operands:
            if operand.schema.types != rel.schema.types:
                raise UnsupportedPlan("a set operation on unlike types")
            frame = self.frame(operand)
            if frame.names != names or not frame.whole:
                frame = self.selected(frame, range(len(names)), names)
            parts.append(frame)
        if rel.operation == "union":
            texts = [self.operand(p).argument() for p in parts]
            union = Frame(call("pl.concat", [listed(texts)]), (), names, rel.schema.types)
            return union if rel.all else union.then("unique()")
        if rel.all:
            raise UnsupportedPlan(f"{rel.operation} all")
        how = "semi" if rel.operation == "intersect" else "anti"
        frame = parts[0].then("unique()")
        for part in parts[1:]:
            other = self.operand(part).argument()
            on = one_or_list([quoted_name(n) for n in names])
            arguments = [other, f"on={on}", f'how="{how}"', "nulls_equal=True"]
            frame = frame.then(call("join", arguments))
        return frame


def _key(frame: Frame, position: int, other: pa.DataType) -> str:
    """A join key as the name of a column, or an expression of the type that both keys have."""
    name, type = quoted_name(frame.names[position]), frame.types[position]
    if type == other:
        return name
    if pt.is_signed_integer(type) and pt.is_signed_integer(other):
        return (
            name
            if type.bit_width > other.bit_width
            else f"pl.col({name}).cast({polars_type(other)})"
        )
    raise UnsupportedPlan(f"a join of {type} with {other}")
