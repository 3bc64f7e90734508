"""Joins by column names over the IR's joins by position."""

from __future__ import annotations

from collections.abc import Sequence

from operators import build
from operators.expr import Expr
from operators.rel import JoinKind, Rel
from remote_frame.errors import AmbiguousColumnError, ExpressionError
from remote_frame.expressions import position

__all__ = ["JOINS", "Keys", "join", "keys"]

JOINS: tuple[JoinKind, ...] = ("inner", "left", "right", "full", "semi", "anti", "cross")

Keys = tuple[list[str], list[str], bool]
"""Left names, right names, and whether they were given as one list."""


def keys(
    on: str | Sequence[str] | None,
    left_on: str | Sequence[str] | None,
    right_on: str | Sequence[str] | None,
    how: str,
) -> Keys:
    """Check the key arguments of a join and bring them into one form."""
    if how not in JOINS:
        raise ExpressionError(f"join: how={how!r}; it is one of {', '.join(JOINS)}")
    if how == "cross":
        if on is not None or left_on is not None or right_on is not None:
            raise ExpressionError("join: a cross join has no keys")
        return [], [], True
    if on is not None:
        if left_on is not None or right_on is not None:
            raise ExpressionError("join: give either `on` or `left_on` and `right_on`")
        shared = _names(on)
        left, right = shared, shared
    elif left_on is None or right_on is None:
        raise ExpressionError("join: keys are needed: `on`, or both `left_on` and `right_on`")
    else:
        left, right = _names(left_on), _names(right_on)
    if not left or len(left) != len(right):
        raise ExpressionError(f"join: {len(left)} left keys and {len(right)} right keys")
    return left, right, on is not None


def join(left: Rel, right: Rel, names: Keys, how: JoinKind, suffix: str) -> Rel:
    """The join with the columns that `RemoteFrame.join` promises."""
    left_names, right_names, same = names
    pairs = [
        (position(left.schema, a), position(right.schema, b))
        for a, b in zip(left_names, right_names, strict=True)
    ]
    joined = build.join(left, right, how, on=pairs)
    if how in ("semi", "anti"):
        return joined
    width = len(left.schema)
    exprs: list[Expr] = []
    out: list[str] = []
    left_key = {a: width + b for a, b in pairs}
    for i, name in enumerate(left.schema.names):
        mine: Expr = build.col(joined.schema, i)
        if i in left_key and how == "right":
            if not same:
                continue
            mine = build.col(joined.schema, left_key[i])
        elif i in left_key and how == "full" and same:
            mine = build.call("coalesce", mine, build.col(joined.schema, left_key[i]))
        exprs.append(mine)
        out.append(name)
    dropped = {b for _, b in pairs} if same or how in ("inner", "left") else set()
    taken = set(out)
    for j, name in enumerate(right.schema.names):
        if j in dropped:
            continue
        exprs.append(build.col(joined.schema, width + j))
        out.append(name + suffix if name in taken else name)
    twice = sorted({n for n in out[len(taken) :] if out.count(n) > 1})
    if twice:
        raise AmbiguousColumnError(
            f"join: two columns of the result would be called {', '.join(map(repr, twice))}; "
            f"choose another suffix than {suffix!r}"
        )
    return build.project(joined, exprs, out)


def _names(given: str | Sequence[str]) -> list[str]:
    names = [given] if isinstance(given, str) else list(given)
    for name in names:
        if not isinstance(name, str):
            raise ExpressionError(f"join: keys are names of columns, not {name!r}")
    return names
