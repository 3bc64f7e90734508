"""Similar subplans computed in one pass.

Finds aggregations, windows and what stands upon them that have the same shape (the same operators
over the same tables, whatever their filters and columns), and replaces them by one relation that
computes all (`engine.optimizer.fusion`), as long as that is estimated to handle fewer rows. Equal
subplans are the special case in which nothing differs but the columns that readers take.

It pays where scans, joins and groupings are repeated with other constants: CTEs that are read per
year or quarter, scalar subqueries over bands of one column. It does not where each copy reads a
small, separate share of a table; the estimates tell.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.optimizer.expressions import (
    every_relation,
    has_window,
    map_subqueries,
    subqueries_of,
    with_inputs,
)
from engine.optimizer.fusion import Fused, fuse
from engine.optimizer.joingroup import RowEstimates
from engine.optimizer.sharing import intern, shared, unfiltered
from operators.expr import Column, Window
from operators.rel import Aggregation, Filter, Join, Limit, Project, Rel, Scan, SetOperation, Sort

__all__ = ["reuse_similar"]

_GAIN = 0.9
"""Of the rows that members handle, the share that a fused relation may handle at most."""

_ROUNDS = 12


def reuse_similar(plan: Rel, estimates: RowEstimates) -> Rel:
    """`plan` (interned) with similar subplans fused where fewer rows are handled then."""
    if not _repeats(plan):
        return plan
    for _ in range(_ROUNDS):
        found = _best(plan, estimates)
        if found is None:
            return plan
        members, fused = found
        plan = intern(_replace(plan, members, fused))
    return plan


def _best(plan: Rel, estimates: RowEstimates) -> tuple[list[Rel], Fused] | None:
    """The largest subplans that can be fused with gain."""
    shapes = _Shapes()
    groups: dict[int, list[Rel]] = {}
    for rel in every_relation(plan):
        if _candidate(rel):
            shape = shapes.of(rel)
            if shapes.aggregates(shape):
                groups.setdefault(shape, []).append(rel)
    sized = [(shapes.size(s), s) for s, rels in groups.items() if len(rels) > 1]
    for _, shape in sorted(sized, key=lambda p: -p[0]):
        found = _fuse_most(groups[shape], estimates)
        if found is not None:
            return found
    return None


def _repeats(plan: Rel) -> bool:
    """Whether something is grouped, and read or scanned twice: else nothing can be similar."""
    relations = list(every_relation(plan))
    sources = [r.source for r in relations if isinstance(r, Scan)]
    return any(isinstance(r, Aggregation) for r in relations) and (
        len(set(sources)) < len(sources) or bool(shared(plan))
    )


def _candidate(rel: Rel) -> bool:
    match rel:
        case Aggregation() | Join():
            return True
        case Project(exprs=exprs):
            return has_window(exprs)
        case SetOperation(operation="union", all=True):
            return True
    return False


def _fuse_most(rels: Sequence[Rel], estimates: RowEstimates) -> tuple[list[Rel], Fused] | None:
    """As many of `rels` as can be fused with gain, from the first that can on."""
    fused = _gainful(rels, estimates)
    if fused is not None:
        return list(rels), fused
    for start in range(len(rels) - 1):
        members = [rels[start]]
        best: Fused | None = None
        for rel in rels[start + 1 :]:
            fused = _gainful([*members, rel], estimates)
            if fused is not None:
                members.append(rel)
                best = fused
        if best is not None:
            return members, best
    return None


def _gainful(rels: Sequence[Rel], estimates: RowEstimates) -> Fused | None:
    fused = fuse(rels)
    if fused is None:
        return None
    before, after = _work(rels, estimates), _work([fused.plan], estimates)
    return fused if after <= before * _GAIN else None


def _work(rels: Sequence[Rel], estimates: RowEstimates) -> float:
    """Rows that go into operators. What is grouped counts once, however often it is read; scans
    and joins above it, or without anything grouped below, count for each reader.
    """
    once: set[int] = set()
    streamed: dict[int, float] = {}

    def own(rel: Rel) -> float:
        match rel:
            case Scan():
                return estimates.rows(unfiltered(rel))
            case Aggregation(measures=measures):
                masks = sum(m.filter is not None for m in measures)
                return estimates.rows(rel.input) * (1 + 0.25 * masks)
            case Join():
                return sum(map(estimates.rows, rel.inputs()))
            case Project(exprs=exprs) if has_window(exprs):
                return estimates.rows(rel)
        return 0.0

    def stream(rel: Rel) -> float:
        """The work of `rel` down to what is grouped; that is done once and left out."""
        if id(rel) not in streamed:
            if isinstance(rel, Aggregation | SetOperation):
                group(rel)
                return 0.0
            streamed[id(rel)] = own(rel) + sum(map(stream, (*rel.inputs(), *subqueries_of(rel))))
        return streamed[id(rel)]

    grouped: list[float] = []

    def group(rel: Rel) -> None:
        if id(rel) not in once:
            once.add(id(rel))
            below = sum(map(stream, (*rel.inputs(), *subqueries_of(rel))))
            grouped.append(own(rel) + below)

    return sum(map(stream, rels)) + sum(grouped)


def _replace(plan: Rel, members: Sequence[Rel], fused: Fused) -> Rel:
    done = {id(m): fused.member(i, m.schema) for i, m in enumerate(members)}

    def visit(rel: Rel) -> Rel:
        if id(rel) not in done:
            node = map_subqueries(rel, visit)
            done[id(rel)] = with_inputs(node, [visit(i) for i in node.inputs()])
        return done[id(rel)]

    return visit(plan)


class _Shapes:
    """What a plan is but for filters, columns and constants, as a number for each shape."""

    def __init__(self) -> None:
        self._known: dict[object, int] = {}
        self._sizes: list[tuple[int, bool]] = []
        self._done: dict[int, tuple[Rel, int]] = {}

    def of(self, rel: Rel) -> int:
        """The shape of `rel`; filters and projections without windows are looked through."""
        if id(rel) not in self._done:
            self._done[id(rel)] = (rel, self._shape(rel))
        return self._done[id(rel)][1]

    def size(self, shape: int) -> int:
        """Operators in a shape."""
        return self._sizes[shape][0]

    def aggregates(self, shape: int) -> bool:
        """Whether something is grouped in it."""
        return self._sizes[shape][1]

    def _shape(self, rel: Rel) -> int:
        below = tuple(self.of(i) for i in rel.inputs())
        key: object
        match rel:
            case Filter():
                return below[0]
            case Project(exprs=exprs) if not has_window(exprs):
                return below[0]
            case Project(exprs=exprs):
                key = tuple(sorted(e.function for e in exprs if isinstance(e, Window)))
            case Scan(source=source):
                key = source
            case Join(kind=kind):
                key = kind
            case Aggregation(keys=keys, grouping_sets=sets):
                # Names tell most groupings apart, so that fewer are tried in vain.
                names = tuple(rel.schema[i].name for i, k in enumerate(keys) if type(k) is Column)
                key = (names, len(keys), sets)
            case Sort() | Limit():
                key = id(rel)
            case SetOperation(operation=operation, all=every):
                key = (operation, every)
            case _:
                key = id(rel)
        full = (type(rel).__name__, key, below)
        if full not in self._known:
            self._known[full] = len(self._sizes)
            grouped = isinstance(rel, Aggregation) or any(self.aggregates(b) for b in below)
            self._sizes.append((1 + sum(self.size(b) for b in below), grouped))
        return self._known[full]
