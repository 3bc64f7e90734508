"""Fragments of a plan on their way to becoming stages, and the workshop that turns one into a
stage when it must.

A fragment is a relation together with its *placement*: how its rows are spread over the copies of
whatever stage it ends up in.

- ``None``: *whole*. Every copy that computes the fragment sees all its rows.
- A set of key tuples: *parted*. Each row is in exactly one copy, and for each tuple, rows that
  agree on these columns (NULL agreeing with NULL) are in the same copy. The empty set: parted
  anyhow.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from engine.optimizer.expressions import (
    has_window,
    map_subqueries,
    subqueries_of,
    with_inputs,
)
from engine.stages.builds import choose_builds
from engine.stages.model import (
    Exchange,
    ExchangeKind,
    ReadMode,
    Stage,
    StageInput,
    StagePlan,
)
from engine.stages.naming import describe
from operators.rel import (
    Aggregation,
    Filter,
    InputSource,
    Join,
    ParquetSource,
    Project,
    Rel,
    Scan,
    Source,
    Values,
    walk,
)
from operators.schema import Schema
from operators.stats import ColumnStats

__all__ = ["CutSettings", "Estimator", "Fragment", "Keys", "Placement", "Workshop", "all_relations"]

Keys = tuple[int, ...]
Placement = frozenset[Keys] | None

# Up to how many input rows a merge of partial aggregates is so cheap that every reader may do it
# for itself.
_TINY_ROWS = 1_000.0


class Estimator(Protocol):
    """What the cutter asks about sizes. Guesses; answers are right whatever they are."""

    def rows(self, rel: Rel) -> float:
        """Rows of `rel`, over all copies."""

    def width(self, schema: Schema) -> float:
        """Bytes of an average row."""

    def column(self, rel: Rel, position: int) -> ColumnStats:
        """What is known of a column of `rel`."""

    def row_group(self, source: Source) -> int:
        """Rows of the largest row group of a table; 0 if that is not known."""

    def same(self, rel: Rel, like: Rel) -> None:
        """Remember that `rel` has the rows and columns of `like`."""

    def note(self, name: str, like: Rel) -> None:
        """Remember that `InputSource(name)` carries the rows of `like`."""


@dataclass(frozen=True, slots=True)
class CutSettings:
    """How finely to cut.

    Attributes
    ----------
    parallelism
        Copies of a stage that works on parts. With 1 nothing is parted, and nothing is cut: the
        whole query is one stage.
    whole_rows
        A table of fewer rows is read whole by every copy that needs it.
    broadcast_bytes
        The most that every copy of a stage may read of another stage's output.
    gather_rows
        Up to how many rows partial results are merged by one element.
    """

    parallelism: int = 2
    whole_rows: float = 150_000.0
    broadcast_bytes: float = 256e6
    gather_rows: float = 10_000.0


@dataclass(frozen=True, slots=True)
class Fragment:
    """A relation and how its rows are spread (see the module's text)."""

    rel: Rel
    placement: Placement

    @property
    def parted(self) -> bool:
        """Whether each copy sees only some of the rows."""
        return self.placement is not None

    @property
    def keys(self) -> frozenset[Keys]:
        """The tuples of a parted fragment."""
        return self.placement or frozenset()

    def within(self, columns: Collection[int]) -> list[Keys]:
        """Key tuples made of `columns` only, the shortest first."""
        found = [t for t in self.keys if t and all(c in columns for c in t)]
        return sorted(found, key=lambda t: (len(t), t))


def all_relations(rel: Rel) -> Iterator[Rel]:
    """`rel` and everything below it, relations inside expressions included."""
    for node in walk(rel):
        yield node
        for sub in subqueries_of(node):
            yield from all_relations(sub)


def remap(keys: Iterable[Keys], mapping: Mapping[int, int]) -> frozenset[Keys]:
    """Key tuples in new positions; those that lose a column are dropped."""
    return frozenset(tuple(mapping[c] for c in t) for t in keys if all(c in mapping for c in t))


@dataclass(slots=True)
class _Draft:
    """A stage whose output's kind is not known until all its readers are."""

    exchange: Exchange
    rel: Rel
    parallelism: int


@dataclass(slots=True)
class Workshop:
    """Makes stages out of fragments; equal fragments with an equal layout become one stage."""

    settings: CutSettings
    estimates: Estimator
    _drafts: dict[str, _Draft] = field(default_factory=dict)
    _by_rel: dict[Rel, list[str]] = field(default_factory=dict)
    _inputs: dict[str, StageInput] = field(default_factory=dict)

    # Moving rows

    def gather(self, fragment: Fragment) -> Fragment:
        """All rows, for one reader."""
        return fragment if not fragment.parted else self._read(self._materialise(fragment), "all")

    def settle(self, fragment: Fragment) -> Fragment:
        """All rows, computed once however many copies read them."""
        if _is_exchange_scan(fragment.rel) and not fragment.parted:
            return fragment
        return self._read(self._materialise(fragment), "all")

    def replicate(self, fragment: Fragment) -> Fragment:
        """All rows for every copy of a stage: computed by each if that is cheap and certain, else
        once.
        """
        if self.settings.parallelism == 1:
            return fragment
        if not fragment.parted and self._repeatable(fragment.rel):
            return fragment
        return self.settle(fragment)

    def hash(self, fragment: Fragment, keys: Keys) -> Fragment:
        """Parted by the columns `keys`."""
        if keys in fragment.keys:
            return fragment
        name = self._materialise(fragment, keys)
        return self._read(name, "part", frozenset({keys}))

    def spread(self, fragment: Fragment) -> Fragment:
        """Parted anyhow: a parted fragment as it is, a whole one with all its rows in the first
        copy.
        """
        if fragment.parted:
            return fragment
        return self._read(self._materialise(fragment), "own", frozenset())

    def share(self, fragment: Fragment, keys: Keys | None) -> Fragment:
        """Computed once for several readers, by the way by `keys` if the rows have to move
        anyhow.
        """
        if not fragment.parted:
            return self.settle(fragment)
        if keys and not fragment.within(keys):
            return self.hash(fragment, keys)
        return self._read(self._materialise(fragment), "own", fragment.keys)

    # Sizes

    def rows(self, fragment: Fragment) -> float:
        """Estimated rows over all copies."""
        return self.estimates.rows(fragment.rel)

    def bytes(self, fragment: Fragment) -> float:
        """Estimated bytes over all copies."""
        return self.rows(fragment) * self.estimates.width(fragment.rel.schema)

    def _repeatable(self, rel: Rel) -> bool:
        """Whether several copies may compute `rel` each for itself: the same rows everywhere, at
        little cost.
        """
        for node in all_relations(rel):
            match node:
                case Project(exprs=exprs) if has_window(exprs):
                    return False
                case Aggregation(keys=(), input=below) if self.estimates.rows(below) <= _TINY_ROWS:
                    if not all(m.function in _ORDERLESS for m in node.measures):
                        return False
                case Join():
                    if (
                        max(self.estimates.rows(i) for i in node.inputs())
                        > self.settings.whole_rows
                    ):
                        return False
                case Scan() | Filter() | Project() | Values():
                    pass
                case _:
                    return False
        return True

    # Making stages

    def _materialise(self, fragment: Fragment, keys: Keys = ()) -> str:
        """The name of an exchange that holds `fragment`, scattered by `keys` if there are any."""
        if keys:
            wanted = [
                n
                for n in self._by_rel.get(fragment.rel, ())
                if self._drafts[n].exchange.keys == keys
            ]
        else:
            wanted = [
                n for n in self._by_rel.get(fragment.rel, ()) if not self._drafts[n].exchange.keys
            ]
        if wanted:
            return wanted[0]
        name = f"x{len(self._drafts) + 1}"
        rows = self.rows(fragment)
        exchange = Exchange(
            name,
            "hash" if keys else "gather",
            _unique_names(fragment.rel.schema),
            keys,
            self.settings.parallelism if keys else 1,
            rows,
            rows * self.estimates.width(fragment.rel.schema),
        )
        self._drafts[name] = _Draft(
            exchange, fragment.rel, self.settings.parallelism if fragment.parted else 1
        )
        self._by_rel.setdefault(fragment.rel, []).append(name)
        return name

    def _read(self, name: str, mode: ReadMode, placement: Placement = None) -> Fragment:
        draft = self._drafts[name]
        natural: ReadMode = "part" if draft.exchange.keys else "all"
        source = name if mode == natural else f"{name}_{mode}"
        if source not in self._inputs:
            self._inputs[source] = StageInput(source, name, mode)
            self.estimates.note(source, draft.rel)
        schema = draft.exchange.schema
        scan = Scan(draft.rel.schema, InputSource(source), schema, tuple(range(len(schema))))
        return Fragment(scan, placement)

    def finish(self, root: Fragment) -> StagePlan:
        """All stages, the one that writes the result last; stages that nobody reads are left
        out.
        """
        schema = root.rel.schema
        rows = self.rows(root)
        result = Exchange(
            "result", "result", _unique_names(schema), rows=rows, bytes=self.bytes(root)
        )
        final = _Draft(result, root.rel, self.settings.parallelism if root.parted else 1)
        order: list[_Draft] = []
        seen: set[str] = set()
        inputs: dict[str, tuple[StageInput, ...]] = {}

        def add(draft: _Draft) -> None:
            inputs[draft.exchange.name] = self._inputs_of(draft.rel)
            for needed in inputs[draft.exchange.name]:
                if needed.exchange not in seen:
                    seen.add(needed.exchange)
                    add(self._drafts[needed.exchange])
            order.append(draft)

        add(final)
        # Exchanges are numbered as their stages are, so that people can follow the data: stage 3
        # writes x3.
        renamed = {d.exchange.name: f"x{i}" for i, d in enumerate(order, 1)} | {"result": "result"}
        readers: dict[str, list[tuple[StageInput, int]]] = {}
        for draft in order:
            for needed in inputs[draft.exchange.name]:
                readers.setdefault(needed.exchange, []).append((needed, draft.parallelism))
        stages = tuple(
            self._stage(
                i,
                draft,
                inputs[draft.exchange.name],
                renamed,
                readers.get(draft.exchange.name, []),
            )
            for i, draft in enumerate(order, 1)
        )
        return StagePlan(stages, schema)

    def _stage(
        self,
        number: int,
        draft: _Draft,
        needed: Sequence[StageInput],
        renamed: Mapping[str, str],
        readers: Sequence[tuple[StageInput, int]],
    ) -> Stage:
        inputs = tuple(
            StageInput(_renamed_input(i, renamed), renamed[i.exchange], i.mode) for i in needed
        )
        sources = {i.name: _renamed_input(i, renamed) for i in needed}
        plan = choose_builds(draft.rel, self.estimates)
        if sources:
            plan = rename_inputs(plan, sources)
        plan = replace(plan, schema=draft.exchange.schema)
        output = replace(
            draft.exchange,
            name=renamed[draft.exchange.name],
            kind=_kind(draft.exchange, readers),
        )
        parts = dict.fromkeys(
            node.source
            for node in all_relations(plan)
            if isinstance(node, Scan)
            and isinstance(node.source, ParquetSource)
            and node.source.part is not None
        )
        return Stage(number, describe(plan), plan, draft.parallelism, inputs, tuple(parts), output)

    def _inputs_of(self, rel: Rel) -> tuple[StageInput, ...]:
        names = dict.fromkeys(
            node.source.name
            for node in all_relations(rel)
            if isinstance(node, Scan) and isinstance(node.source, InputSource)
        )
        return tuple(self._inputs[n] for n in names if n in self._inputs)


_ORDERLESS = frozenset({"sum", "count", "min", "max", "bool_and", "bool_or"})


def _is_exchange_scan(rel: Rel) -> bool:
    return isinstance(rel, Scan) and isinstance(rel.source, InputSource) and rel.predicate is None


def _unique_names(schema: Schema) -> Schema:
    """`schema` with names made unique, as a written frame needs them."""
    seen: set[str] = set()
    names = []
    for position, name in enumerate(schema.names):
        unique = name or f"c{position}"
        while unique.lower() in seen:
            unique = f"{unique}_{position}"
        seen.add(unique.lower())
        names.append(unique)
    return schema.rename(names)


def _renamed_input(needed: StageInput, renamed: Mapping[str, str]) -> str:
    return renamed[needed.exchange] + needed.name.removeprefix(needed.exchange)


def _kind(exchange: Exchange, readers: Sequence[tuple[StageInput, int]]) -> ExchangeKind:
    if exchange.kind in ("hash", "result"):
        return exchange.kind
    if any(i.mode == "own" for i, _ in readers):
        return "forward"
    return "gather" if sum(copies for _, copies in readers) == 1 else "broadcast"


def rename_inputs(rel: Rel, names: Mapping[str, str]) -> Rel:
    """`rel` with the `InputSource`s in `names` called otherwise."""

    def visit(node: Rel) -> Rel:
        node = map_subqueries(node, visit)
        node = with_inputs(node, [visit(i) for i in node.inputs()])
        if isinstance(node, Scan) and isinstance(node.source, InputSource):
            return replace(node, source=InputSource(names.get(node.source.name, node.source.name)))
        return node

    return visit(rel)
