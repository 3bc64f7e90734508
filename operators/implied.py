"""Conditions that follow from a disjunction, and are quicker to look at.

``a BETWEEN 0 AND 5 AND (…) OR a BETWEEN 6 AND 10 AND (…)`` holds for no row but with ``a BETWEEN 0
AND 10``. Kernels look at comparisons of a column with a constant first, and many rows go before
anything else is computed for them; they do not find such comparisons in disjunctions themselves.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from decimal import Decimal

import pyarrow.types as pt

from operators.expr import Call, Column, Expr, Lit
from operators.rewrite import conjuncts, walk_expr
from operators.types import BOOL

__all__ = ["implied_bounds"]

# Fewer comparisons are looked at as quickly as those that follow from them.
_LEAST = 6

_LOWER = ("greater_equal", "greater", "equal")
_UPPER = ("less_equal", "less", "equal")

_Bound = tuple[Decimal, Call]
"""Where on the number line a comparison has its end."""


def implied_bounds(terms: Iterable[Expr]) -> Iterator[Expr]:
    """Comparisons of columns with constants that hold wherever all `terms` do, and are not among
    them: at most two for each column of each disjunction.
    """
    given = list(terms)
    known = set(given)
    for term in given:
        branches = _branches(term)
        if len(branches) < 2 or sum(isinstance(e, Lit) for e in walk_expr(term)) < _LEAST:
            continue
        for upper in (False, True):
            bounds = [_bounds(conjuncts(b), upper) for b in branches]
            for column in sorted(set.intersection(*(set(b) for b in bounds))):
                _, bound = _loosest([b[column] for b in bounds], upper)
                if bound.function == "equal":
                    bound = Call(BOOL, "less_equal" if upper else "greater_equal", bound.args)
                if bound not in known:
                    known.add(bound)
                    yield bound


def _branches(expr: Expr) -> list[Expr]:
    """The terms that OR joins."""
    if isinstance(expr, Call) and expr.function == "or":
        return [branch for arg in expr.args for branch in _branches(arg)]
    return [expr]


def _bounds(terms: Iterable[Expr], upper: bool) -> dict[int, _Bound]:
    """The tightest upper or lower bounds that conjuncts are for columns."""
    found: dict[int, list[_Bound]] = {}
    for term in terms:
        match term:
            case Call(function=name, args=(Column(index=index), Lit() as literal)) if (
                name in (_UPPER if upper else _LOWER) and (end := _place(literal)) is not None
            ):
                found.setdefault(index, []).append((end, term))
    return {index: _loosest(bounds, not upper) for index, bounds in found.items()}


def _loosest(bounds: Iterable[_Bound], upper: bool) -> _Bound:
    """Of upper bounds the greatest, of lower ones the least."""
    return max(bounds, key=_end) if upper else min(bounds, key=_end)


def _end(bound: _Bound) -> Decimal:
    return bound[0]


def _place(literal: Lit) -> Decimal | None:
    """A constant on the number line. NaN has no place on it, so floats have none."""
    if pt.is_floating(literal.type) or isinstance(literal.value, bool):
        return None
    match literal.value:
        case int() | Decimal():
            return Decimal(literal.value)
        case datetime.datetime():
            return None
        case datetime.date():
            return Decimal(literal.value.toordinal())
    return None
