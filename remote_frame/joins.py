"""Joins by column names over the IR's joins by position."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.types as pt

from operators import build
from operators.expr import Call, Column, Expr
from operators.rel import Join, JoinKind, Rel
from operators.schema import Schema
from operators.types import INTERVAL, TIMESTAMP, common_type
from remote_frame.core import Node, as_expr, flat
from remote_frame.dates import span_of_time
from remote_frame.errors import AmbiguousColumnError, ExpressionError
from remote_frame.scopes import RowScope, position

__all__ = ["JOINS", "AsofStrategy", "Keys", "by_keys", "join", "join_asof", "join_where", "keys"]

JOINS: tuple[JoinKind, ...] = ("inner", "left", "right", "full", "semi", "anti", "cross")

AsofStrategy = Literal["backward", "forward", "nearest"]


@dataclass(frozen=True, slots=True)
class Keys:
    """Key columns pairwise; `shared` says that they were given as one list of names."""

    left: list[str]
    right: list[str]
    shared: bool


def keys(on: Any, left_on: Any, right_on: Any, how: str) -> Keys:
    """Check the key arguments of a join and bring them into one form."""
    if how not in JOINS:
        raise ExpressionError(f"join: how={how!r}; it is one of {', '.join(JOINS)}")
    if how == "cross":
        if on is not None or left_on is not None or right_on is not None:
            raise ExpressionError("join: a cross join has no keys")
        return Keys([], [], True)
    found = by_keys("join", on, left_on, right_on)
    if found is None:
        raise ExpressionError("join: keys are needed: `on`, or both `left_on` and `right_on`")
    return found


def by_keys(what: str, on: Any, left_on: Any, right_on: Any, word: str = "on") -> Keys | None:
    """The key arguments in one form; None if none were given."""
    pair = f"`left_{word}` and `right_{word}`" if word == "on" else "`by_left` and `by_right`"
    if on is not None:
        if left_on is not None or right_on is not None:
            raise ExpressionError(f"{what}: give either `{word}` or {pair}")
        names = _names(what, on)
        if not names:
            raise ExpressionError(f"{what}: 0 left keys and 0 right keys")
        return Keys(names, names, True)
    if left_on is None and right_on is None:
        return None
    if left_on is None or right_on is None:
        raise ExpressionError(f"{what}: keys are needed: `{word}`, or both {pair}")
    left, right = _names(what, left_on), _names(what, right_on)
    if not left or len(left) != len(right):
        raise ExpressionError(f"{what}: {len(left)} left keys and {len(right)} right keys")
    return Keys(left, right, False)


def join(
    left: Rel,
    right: Rel,
    names: Keys,
    how: JoinKind,
    suffix: str,
    nulls_equal: bool = False,
    coalesce: bool | None = None,
) -> Rel:
    """The join with the columns that `RemoteFrame.join` promises."""
    pairs = _positions(left.schema, right.schema, names)
    joined = build.join(left, right, how, on=pairs, null_equal=[nulls_equal] * len(pairs))
    if how in ("semi", "anti"):
        return joined
    if coalesce is None:
        coalesce = names.shared or how != "full"
    width = len(left.schema)
    partner = {a: width + b for a, b in pairs} if coalesce else {}
    exprs: list[Expr] = []
    out: list[str] = []
    for i, name in enumerate(left.schema.names):
        mine: Expr = build.col(joined.schema, i)
        if i in partner and how == "right":
            if not names.shared:
                continue
            mine = build.col(joined.schema, partner[i])
        elif i in partner and how == "full":
            mine = build.call("coalesce", mine, build.col(joined.schema, partner[i]))
        exprs.append(mine)
        out.append(name)
    dropped = set()
    if coalesce and (names.shared or how != "right"):
        dropped = {b for _, b in pairs}
    return _with_right(joined, right.schema, width, exprs, out, dropped, suffix, "join")


def join_where(left: Rel, right: Rel, predicates: Sequence[Any], suffix: str) -> Rel:
    """Pairs of rows for which all predicates are true; names as in the result."""
    if not predicates:
        raise ExpressionError("join_where: a condition is needed")
    width = len(left.schema)
    both = Schema(left.schema.fields + right.schema.fields)
    names = _suffixed(list(left.schema.names), right.schema.names, suffix, "join_where")
    scope = RowScope(both.rename(names))
    terms = [e.lower(scope) for p in predicates for e in as_expr(p).expand(scope.schema)]
    if scope.extended:
        raise ExpressionError("join_where: a condition is about one pair of rows, not several")
    equal: list[tuple[int, int]] = []
    rest: list[Expr] = []
    for term in terms:
        pair = _equality(term, width)
        if pair is None:
            rest.append(term)
        else:
            equal.append(pair)
    joined = build.join(left, right, "inner", on=equal, condition=build.conjunction(rest))
    columns = [build.col(joined.schema, i) for i in range(len(joined.schema))]
    return build.project(joined, columns, names)


def _equality(term: Expr, width: int) -> tuple[int, int] | None:
    """The key pair that a condition is, None if it is none."""
    match term:
        case Call(function="equal", args=(Column(index=a), Column(index=b))):
            a, b = min(a, b), max(a, b)
            if a < width <= b:
                return a, b - width
    return None


def join_asof(
    left: Rel,
    right: Rel,
    on: Keys,
    by: Keys | None,
    strategy: AsofStrategy,
    suffix: str,
    tolerance: Any,
    coalesce: bool,
    exact: bool,
) -> Rel:
    """The join with the columns that `RemoteFrame.join_asof` promises."""
    if strategy not in ("backward", "forward", "nearest"):
        raise ExpressionError(
            f"join_asof: strategy={strategy!r}; it is backward, forward or nearest"
        )
    if len(on.left) != 1:
        raise ExpressionError(f"join_asof: {len(on.left)} columns in `on`; it takes one")
    ((mine, theirs),) = _positions(left.schema, right.schema, on)
    pairs = [] if by is None else _positions(left.schema, right.schema, by)
    # A string would follow the other side, as in a comparison; keys do not.
    common_type(left.schema[mine].type, right.schema[theirs].type)
    width, right_width = len(left.schema), len(right.schema)
    ways = ["backward", "forward"] if strategy == "nearest" else [strategy]
    joined: Rel = left
    for i, way in enumerate(ways):
        function = ("greater" if way == "backward" else "less") + ("_equal" if exact else "")
        both = Schema(joined.schema.fields + right.schema.fields)
        start = width + i * right_width
        test = build.call(function, build.col(both, mine), build.col(both, start + theirs))
        joined = build.join(joined, right, "asof", on=pairs, condition=test)

    def right_column(j: int) -> Expr:
        """Column `j` of the row that was found, null if it is too far away."""
        found: Expr = build.col(joined.schema, width + j)
        here = build.col(joined.schema, mine)
        before = build.col(joined.schema, width + theirs)
        limits: list[tuple[Expr, Expr | None, Expr]] = []
        if strategy == "nearest":
            after = build.col(joined.schema, width + right_width + theirs)
            other = build.col(joined.schema, width + right_width + j)
            nearer = build.call(
                "or",
                build.call("is_null", before),
                build.call(
                    "less_equal",
                    build.call("subtract", after, here),
                    build.call("subtract", here, before),
                ),
            )
            use = build.call("and", build.call("is_not_null", after), nearer)
            limits = [(use, _near(here, after, tolerance), other)]
        limits.append((build.lit(True), _near(here, before, tolerance), found))
        if tolerance is None and len(limits) == 1:
            return found
        return build.case(
            [
                (use, value if near is None else build.case([(near, value)]))
                for use, near, value in limits
            ]
        )

    exprs: list[Expr] = [build.col(joined.schema, i) for i in range(width)]
    dropped = {b for _, b in pairs} if by is not None and by.shared else set()
    if coalesce and on.shared:
        dropped.add(theirs)
    names = list(left.schema.names)
    kept = [j for j in range(right_width) if j not in dropped]
    out = _suffixed(names, [right.schema.names[j] for j in kept], suffix, "join_asof")
    return build.project(joined, [*exprs, *(right_column(j) for j in kept)], out)


def _near(here: Expr, there: Expr, tolerance: Any) -> Expr | None:
    """Whether two values are no further apart than `tolerance`."""
    if tolerance is None:
        return None
    if pt.is_date(here.type) or pt.is_timestamp(here.type):
        span = build.lit(span_of_time(tolerance, "join_asof: tolerance"), INTERVAL)
        low, high = (build.cast(e, TIMESTAMP) for e in (here, there))
        return build.call(
            "and",
            build.call("less_equal", build.call("subtract", low, span), high),
            build.call("less_equal", high, build.call("add", low, span)),
        )
    if isinstance(tolerance, str | datetime.timedelta):
        raise ExpressionError(
            f"join_asof: tolerance={tolerance!r} is a span of time and the key a {here.type}"
        )
    distance = build.call("abs", build.call("subtract", here, there))
    return build.call("less_equal", distance, build.lit(tolerance))


def _positions(left: Schema, right: Schema, names: Keys) -> list[tuple[int, int]]:
    return [
        (position(left, a), position(right, b))
        for a, b in zip(names.left, names.right, strict=True)
    ]


def _with_right(
    joined: Join,
    right: Schema,
    width: int,
    exprs: list[Expr],
    names: list[str],
    dropped: set[int],
    suffix: str,
    what: str,
) -> Rel:
    """A projection to `exprs` and the right columns that are not `dropped`."""
    kept = [j for j in range(len(right)) if j not in dropped]
    columns = [build.col(joined.schema, width + j) for j in kept]
    out = _suffixed(names, [right.names[j] for j in kept], suffix, what)
    return build.project(joined, [*exprs, *columns], out)


def _suffixed(left: list[str], right: Sequence[str], suffix: str, what: str) -> list[str]:
    """Names of both sides; right ones that the left has too get the suffix."""
    taken = set(left)
    added = [name + suffix if name in taken else name for name in right]
    out = [*left, *added]
    times = Counter(out)
    twice = sorted({n for n in added if times[n] > 1})
    if twice:
        raise AmbiguousColumnError(
            f"{what}: two columns of the result would be called {', '.join(map(repr, twice))}; "
            f"choose another suffix than {suffix!r}"
        )
    return out


def _names(what: str, given: Any) -> list[str]:
    names = []
    for one in flat([given]):
        name = one.text if isinstance(one, Node) and one.text == one.root_name else one
        if not isinstance(name, str):
            raise ExpressionError(
                f"{what}: keys are names of columns, not {one!r}: make it a column with "
                "with_columns()"
            )
        names.append(name)
    return names
