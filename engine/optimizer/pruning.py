"""Column pruning: every relation puts out the columns that its readers need, and no others.

Columns that only a filter or a join looks at are dropped right above it, so that they are not
written into an exchange. A relation that several others read puts out what any of them needs, and
stays one relation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from engine.optimizer.expressions import (
    columns_of,
    expressions_of,
    has_window,
    map_expressions,
    map_subqueries,
    renumber,
    renumber_aggregate,
    subqueries_of,
    with_inputs,
)
from operators.expr import Column, Expr
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Leading,
    Limit,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
)
from operators.rewrite import substitute

__all__ = ["prune"]


def prune(plan: Rel) -> Rel:
    """`plan` without columns that nobody reads; the columns of `plan` itself all stay."""
    return _Pruning(plan).result(plan)


class _Pruning:
    """Two passes over a graph of relations: what is needed, readers first; then rebuilding."""

    def __init__(self, plan: Rel) -> None:
        self._needed: dict[int, set[int]] = {}
        self._rebuilt: dict[int, Rel] = {}
        order = list(_readers_last(plan))
        for rel in order:
            self._needed[id(rel)] = set()
        self._need(plan, range(len(plan.schema)))
        for rel in reversed(order):
            for below in subqueries_of(rel):
                self._need(below, range(len(below.schema)))
            for below, columns in zip(rel.inputs(), self._asked(rel), strict=True):
                self._need(below, columns)
        for rel in order:
            self._rebuilt[id(rel)] = self._rebuild(rel)

    def _need(self, rel: Rel, columns: Iterable[int]) -> None:
        self._needed[id(rel)].update(columns)

    def _wanted(self, rel: Rel) -> list[int]:
        """What `rel` puts out, ascending (the first column if nothing is needed)."""
        return sorted(self._needed[id(rel)]) or list(range(min(1, len(rel.schema))))

    def result(self, plan: Rel) -> Rel:
        """The pruned form of a relation of which every column stays."""
        return self._rebuilt[id(plan)]

    def _asked(self, rel: Rel) -> list[set[int]]:
        """For each input of `rel`, the columns that `rel` asks of it."""
        wanted = set(self._wanted(rel))
        match rel:
            case Project(exprs=exprs):
                return [columns_of(exprs[i] for i in wanted)]
            case Join():
                return list(self._join_asks(rel, wanted))
            case Aggregation():
                return [columns_of(expressions_of(_without_measures(rel, wanted)[0]))]
            case Filter() | Sort() | Limit() | Leading():
                return [wanted | columns_of(expressions_of(rel))]
            case SetOperation() if rel.operation == "union" and rel.all:
                return [wanted for _ in rel.operands]
        return [set(range(len(i.schema))) for i in rel.inputs()]

    def _join_asks(self, rel: Join, wanted: set[int]) -> tuple[set[int], set[int]]:
        width = len(rel.left.schema)
        conditions = columns_of(expressions_of(rel))
        used = wanted | conditions
        # Position `width` of a mark join's output is the mark; in its condition it is the first
        # right column.
        of_right = conditions if rel.kind in ("semi", "anti", "mark") else used
        return (
            {c for c in used if c < width} | set(rel.left_keys),
            {c - width for c in of_right if c >= width} | set(rel.right_keys),
        )

    # Rebuilding: every relation puts out exactly what is wanted of it

    def _input(self, rel: Rel, columns: Sequence[int]) -> Rel:
        """The pruned form of an input, with exactly `columns` (the first if there are none)."""
        wanted = self._wanted(rel)
        return _trim(self._rebuilt[id(rel)], wanted, list(columns) or wanted[:1])

    def _rebuild(self, rel: Rel) -> Rel:
        wanted = self._wanted(rel)
        rel = map_subqueries(rel, lambda r: self._rebuilt[id(r)])
        match rel:
            case Scan(columns=columns):
                if len(wanted) == len(columns):
                    return rel
                kept = tuple([columns[i] for i in wanted])
                schema = rel.schema.select(wanted)
                return Scan(schema, rel.source, rel.source_schema, kept, rel.predicate)
            case Project(exprs=exprs):
                return self._project(rel, wanted, tuple(exprs[i] for i in wanted))
            case Join():
                return self._join(rel, wanted)
            case Aggregation():
                return self._aggregation(rel, wanted)
            case Filter() | Sort() | Limit() | Leading():
                return _trim(*self._transparent(rel, wanted), wanted)
            case SetOperation() if rel.operation == "union" and rel.all:
                operands = tuple(self._input(o, wanted) for o in rel.operands)
                return replace(rel, operands=operands, schema=rel.schema.select(wanted))
            case SetOperation():
                operands = tuple(self._rebuilt[id(o)] for o in rel.operands)
                rel = with_inputs(rel, operands)
        return _trim(rel, list(range(len(rel.schema))), wanted)

    def _transparent(
        self, rel: Filter | Sort | Limit | Leading, wanted: Sequence[int]
    ) -> tuple[Rel, list[int]]:
        """A relation that hands its input's columns on, with those that it needs itself; and which
        they are.

        A limit stays right above its sort: the two are one operator.
        """
        have = sorted({*wanted, *columns_of(expressions_of(rel))})
        if isinstance(rel, Limit) and isinstance(rel.input, Sort):
            sort = map_subqueries(rel.input, lambda r: self._rebuilt[id(r)])
            assert isinstance(sort, Sort)
            below, have = self._transparent(sort, wanted)
        else:
            below = self._input(rel.input, have)
            have = have or self._wanted(rel.input)[:1]
        at = _positions(have)
        if isinstance(rel, Filter):
            return Filter(below.schema, below, _moved(rel.predicate, at)), have
        rel = replace(rel, input=below, schema=below.schema)
        return map_expressions(rel, lambda e: _moved(e, at)), have

    def _project(self, rel: Project, wanted: Sequence[int], kept: tuple[Expr, ...]) -> Rel:
        have = sorted(columns_of(kept))
        below = self._input(rel.input, have)
        at = _positions(have)
        exprs = tuple([_moved(e, at) for e in kept])
        return _plain(Project(rel.schema.select(wanted), below, exprs))

    def _join(self, rel: Join, wanted: list[int]) -> Rel:
        width = len(rel.left.schema)
        asked = self._join_asks(rel, set(wanted))
        left_have, right_have = (
            sorted(a) or self._wanted(side)[:1] for a, side in zip(asked, rel.inputs(), strict=True)
        )
        left, right = self._input(rel.left, left_have), self._input(rel.right, right_have)
        at_left, at_right = _positions(left_have), _positions(right_have)
        at = dict(at_left) | {c + width: i + len(left_have) for c, i in at_right.items()}
        if rel.kind in ("semi", "anti"):
            have = left_have
        elif rel.kind == "mark":
            have = [*left_have, width]
        else:
            have = [*left_have, *(c + width for c in right_have)]
        new = Join(
            rel.schema.select(have),
            left,
            right,
            rel.kind,
            tuple([at_left[k] for k in rel.left_keys]),
            tuple([at_right[k] for k in rel.right_keys]),
            rel.null_equal,
            None if rel.condition is None else renumber(rel.condition, at),
            rel.build,
        )
        return _trim(new, have, wanted)

    def _aggregation(self, rel: Aggregation, wanted: list[int]) -> Rel:
        bare, have = _without_measures(rel, wanted)
        have_below = sorted(columns_of(expressions_of(bare)))
        below = self._input(rel.input, have_below)
        at = _positions(have_below)
        new = replace(
            bare,
            input=below,
            keys=tuple([_moved(k, at) for k in bare.keys]),
            measures=tuple(renumber_aggregate(m, at) for m in bare.measures),
        )
        return _trim(new, have, wanted)


def _without_measures(rel: Aggregation, wanted: Collection[int]) -> tuple[Aggregation, list[int]]:
    """`rel` with the measures that are wanted, and which columns it has then.

    Keys stay, because they make the groups.
    """
    first = len(rel.schema) - len(rel.measures)
    kept = [c - first for c in sorted(wanted) if c >= first]
    if not first and not kept and rel.measures:
        kept = [0]
    have = [*range(first), *(i + first for i in kept)]
    measures = tuple(rel.measures[i] for i in kept)
    return replace(rel, schema=rel.schema.select(have), measures=measures), have


def _readers_last(plan: Rel) -> Iterator[Rel]:
    """Every relation once, inputs and subqueries before those that read them."""
    seen: set[int] = set()

    def visit(rel: Rel) -> Iterator[Rel]:
        if id(rel) in seen:
            return
        seen.add(id(rel))
        for below in (*rel.inputs(), *subqueries_of(rel)):
            yield from visit(below)
        yield rel

    return visit(plan)


def _plain(rel: Project) -> Rel:
    """`rel` without what only chooses columns below it, or itself where that is all that it does.

    Orders of joins leave such projections between each two; every pass over a plan would look at
    them.
    """
    below = rel.input
    if isinstance(below, Project) and all(isinstance(e, Column) for e in below.exprs):
        exprs = below.exprs
        below = below.input
        chosen = (exprs[e.index] if type(e) is Column else substitute(e, exprs) for e in rel.exprs)
        rel = Project(rel.schema, below, tuple(chosen))
    stays = len(rel.schema) == len(below.schema) and all(
        type(e) is Column and e.index == i for i, e in enumerate(rel.exprs)
    )
    return below if stays and rel.schema == below.schema else rel


def _moved(expr: Expr, at: Mapping[int, int]) -> Expr:
    """`expr` over columns that moved; most expressions are a column."""
    return Column(expr.type, at[expr.index]) if type(expr) is Column else renumber(expr, at)


def _positions(have: Sequence[int]) -> Mapping[int, int]:
    return {old: new for new, old in enumerate(have)}


def _trim(rel: Rel, have: list[int], wanted: list[int]) -> Rel:
    """`rel`, whose columns are those that were at `have`, with only those that were at `wanted`."""
    if have == wanted:
        return rel
    at = _positions(have)
    kept = [at[c] for c in wanted]
    schema = rel.schema.select(kept)
    match rel:
        case Project(exprs=exprs) if not has_window(exprs):  # another reader would not share them
            return replace(rel, schema=schema, exprs=tuple(exprs[i] for i in kept))
        case Scan(columns=columns):
            return replace(rel, schema=schema, columns=tuple(columns[i] for i in kept))
    fields = rel.schema.fields
    return Project(schema, rel, tuple([Column(fields[i].type, i) for i in kept]))
