"""Cutting a plan into stages: each operator is placed where its input's rows are, or its input is
moved to it.

The cutter walks the plan from the leaves up. For every relation it knows how the rows are spread
over the copies of a stage (`engine.stages.fragments`), and moves rows (hash, gather, broadcast)
only where the operator above needs it. What consumers would *like* goes down as a wish: columns by
which to scatter, if rows are scattered anyhow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from engine.errors import EngineError
from engine.optimizer.expressions import (
    map_subqueries,
    with_inputs,
)
from engine.optimizer.sharing import LARGE_ROWS, intern, shared, worth_sharing
from engine.stages.aggregates import cut_aggregation
from engine.stages.fragments import (
    CutSettings,
    Estimator,
    Fragment,
    Keys,
    Workshop,
    all_relations,
    remap,
)
from engine.stages.joins import cut_join
from engine.stages.model import StagePlan
from operators.expr import Column, Expr, Window
from operators.rel import (
    Aggregation,
    Filter,
    Join,
    Leading,
    Limit,
    ParquetSource,
    Project,
    Rel,
    Scan,
    SetOperation,
    Sort,
    Values,
)
from operators.types import same_type

__all__ = ["Cutter", "cut"]


def cut(plan: Rel, estimates: Estimator, settings: CutSettings | None = None) -> StagePlan:
    """Cut `plan` into stages.

    The answer of the stages is the answer of the plan, whatever `estimates` says and however fine
    the cut is; rows come in the plan's order where it has one.
    """
    settings = settings or CutSettings()
    plan = intern(plan)
    cutter = Cutter(
        Workshop(settings, estimates), shared(plan), _split_threshold(plan, estimates, settings)
    )
    root = cutter.visit(plan, None)
    return cutter.workshop.finish(root)


def _all_scans(plan: Rel) -> list[Scan]:
    return [
        n
        for n in all_relations(plan)
        if isinstance(n, Scan) and isinstance(n.source, ParquetSource)
    ]


def _split_threshold(plan: Rel, estimates: Estimator, settings: CutSettings) -> float:
    """Tables of at least so many rows are read in parts: the large ones, or else the largest of
    the query. It does not matter where nothing is parted.
    """
    if settings.parallelism == 1:
        return settings.whole_rows
    rows = [estimates.rows(replace(s, predicate=None)) for s in _all_scans(plan)]
    if not rows or max(rows) >= settings.whole_rows:
        return settings.whole_rows
    return max(1.0, max(estimates.rows(s) for s in _all_scans(plan)) / 2)


@dataclass(slots=True)
class Cutter:
    """One walk over one plan."""

    workshop: Workshop
    shared: frozenset[int]
    split_rows: float
    large_rows: float = LARGE_ROWS
    _done: dict[int, Fragment] = field(default_factory=dict)

    def visit(self, rel: Rel, wish: Keys | None) -> Fragment:
        """The fragment that computes `rel`; `wish` names columns of `rel` to scatter by, if rows
        move anyhow.
        """
        if id(rel) not in self.shared:
            return self._place(rel, wish)
        if id(rel) not in self._done:
            self._done[id(rel)] = self._share(rel, self._place(rel, wish), wish)
        return self._done[id(rel)]

    def _share(self, rel: Rel, fragment: Fragment, wish: Keys | None) -> Fragment:
        """A subplan with several readers: computed once if it does any work worth keeping."""
        if self.workshop.settings.parallelism == 1:
            return fragment  # the kernel computes it once for all who read it in one statement
        if not worth_sharing(rel, self.workshop.estimates.rows, self.large_rows):
            return fragment
        if not fragment.parted and self.workshop.replicate(fragment) is fragment:
            return fragment
        return self.workshop.share(fragment, wish)

    def _place(self, rel: Rel, wish: Keys | None) -> Fragment:
        rel = map_subqueries(rel, self._subquery)
        match rel:
            case Scan():
                return self._scan(rel)
            case Values():
                return Fragment(rel, None)
            case Filter() | Leading():
                below = self.visit(rel.input, wish)
                return Fragment(with_inputs(rel, [below.rel]), below.placement)
            case Project():
                return self._project(rel, wish)
            case Join():
                return cut_join(self, rel, wish)
            case Aggregation():
                return cut_aggregation(self, rel, wish)
            case Sort():
                below = self.workshop.gather(self.visit(rel.input, None))
                return Fragment(with_inputs(rel, [below.rel]), None)
            case Limit():
                return self._limit(rel)
            case SetOperation():
                return self._set_operation(rel)
        raise EngineError(f"a {type(rel).__name__} cannot be cut into stages")

    def _subquery(self, rel: Rel) -> Rel:
        """A relation inside an expression: computed whole, beforehand."""
        return self.workshop.replicate(self.workshop.gather(self.visit(rel, None))).rel

    def _scan(self, rel: Scan) -> Fragment:
        source = rel.source
        if not isinstance(source, ParquetSource) or self.workshop.settings.parallelism == 1:
            return Fragment(rel, None)
        if self.workshop.estimates.rows(replace(rel, predicate=None)) < self.split_rows:
            return Fragment(rel, None)
        share = replace(source, part=(0, self.workshop.settings.parallelism))
        return Fragment(replace(rel, source=share), frozenset())

    # Projections and windows

    def _project(self, rel: Project, wish: Keys | None) -> Fragment:
        windows = [e for e in rel.exprs if isinstance(e, Window)]
        if windows:
            return self._window(rel, windows)
        below_wish = None
        if wish is not None:
            wanted = [rel.exprs[c] for c in wish]
            columns = tuple(e.index for e in wanted if isinstance(e, Column))
            below_wish = columns or None
        below = self.visit(rel.input, below_wish)
        return Fragment(with_inputs(rel, [below.rel]), _through(rel.exprs, below))

    def _window(self, rel: Project, windows: Sequence[Window]) -> Fragment:
        """Windows need their partitions in one place: by a column that all of them partition by,
        or else gathered.
        """
        per_window = [{e.index for e in w.partition_by if isinstance(e, Column)} for w in windows]
        common = set.intersection(*per_window)
        below = self.visit(rel.input, tuple(sorted(common)) or None)
        if below.parted and not below.within(common):
            below = (
                self.workshop.hash(below, tuple(sorted(common)))
                if common
                else self.workshop.gather(below)
            )
        return Fragment(with_inputs(rel, [below.rel]), _through(rel.exprs, below))

    # Limits

    def _limit(self, rel: Limit) -> Fragment:
        """Each copy keeps the first rows of its own; the first of these are the first of all."""
        if isinstance(rel.input, Sort):
            return self._top(rel, rel.input)
        below = self.visit(rel.input, None)
        if below.parted:
            below = self.workshop.gather(_kept(below, rel))
        return Fragment(with_inputs(rel, [below.rel]), None)

    def _top(self, rel: Limit, sort: Sort) -> Fragment:
        sort_node = map_subqueries(sort, self._subquery)
        below = self.visit(sort.input, None)
        if below.parted:
            ordered = with_inputs(sort_node, [below.rel])
            below = self.workshop.gather(_kept(Fragment(ordered, below.placement), rel))
        ordered = with_inputs(sort_node, [below.rel])
        return Fragment(with_inputs(rel, [ordered]), None)

    # Set operations

    def _set_operation(self, rel: SetOperation) -> Fragment:
        operands = [self.visit(o, None) for o in rel.operands]
        if any(o.parted for o in operands):
            operands = self._union(operands) if _keeps_all(rel) else self._matched(rel, operands)
        placement = None
        if operands[0].parted:
            placement = frozenset.intersection(*(o.keys for o in operands))
        return Fragment(with_inputs(rel, [o.rel for o in operands]), placement)

    def _union(self, operands: list[Fragment]) -> list[Fragment]:
        """UNION ALL: every row stays where it is; rows that are everywhere must count once."""
        return [self.workshop.spread(o) for o in operands]

    def _matched(self, rel: SetOperation, operands: list[Fragment]) -> list[Fragment]:
        """Operations that compare rows: equal rows in one place, which takes equal types, or
        everything in one.
        """
        first = operands[0].rel.schema
        comparable = len(first) > 0 and all(
            same_type(a.type, b.type) and same_type(a.type, c.type)
            for o in operands
            for a, b, c in zip(first, o.rel.schema, rel.schema, strict=True)
        )
        if (
            not comparable
            or max(map(self.workshop.rows, operands)) <= self.workshop.settings.gather_rows
        ):
            return [self.workshop.gather(o) for o in operands]
        columns = tuple(range(len(first)))
        placed = [o.within(columns) for o in operands]
        common = set.intersection(*(set(p) for p in placed))
        keys = min(common, key=lambda t: (len(t), t)) if common else columns
        return [self.workshop.hash(o, keys) for o in operands]


def _keeps_all(rel: SetOperation) -> bool:
    return rel.operation == "union" and rel.all


def _kept(fragment: Fragment, limit: Limit) -> Fragment:
    """The rows of each copy that may be among those that `limit` keeps."""
    if limit.count is None:
        return fragment
    most = limit.count + limit.offset
    return replace(fragment, rel=Limit(fragment.rel.schema, fragment.rel, most))


def _through(exprs: Sequence[Expr], below: Fragment) -> frozenset[Keys] | None:
    """The placement of a projection's output."""
    if below.placement is None:
        return None
    positions: dict[int, int] = {}
    for position, expr in enumerate(exprs):
        if isinstance(expr, Column):
            positions.setdefault(expr.index, position)
    return remap(below.placement, positions)
