"""SQL over frames: a statement that names plans as if they were tables."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping

from engine.catalog import Catalog, Table
from engine.errors import SqlError, TableNotFoundError
from engine.frontend import FrontEnd
from operators.expr import Column
from operators.rel import Filter, InputSource, Project, Rel, Scan
from operators.rewrite import map_rel

__all__ = ["plan_over_frames"]


def plan_over_frames(text: str, frames: Mapping[str, Rel], catalog: Catalog) -> Rel:
    """Plan a query over frames and registered tables; a frame hides a table of its name.

    Raises
    ------
    SqlError
        As `engine.frontend.plan_sql`; also if a frame has several columns of one name.
    """
    planner: _FramePlanner = catalog.resource("frames", lambda: _FramePlanner(catalog))
    return planner.plan(text, frames)


class _FramePlanner:
    """A front end whose tables change from statement to statement."""

    def __init__(self, catalog: Catalog) -> None:
        self._tables = _Tables(catalog)
        self._front_end = FrontEnd(self._tables, kept=0)
        self._lock = threading.Lock()

    def plan(self, text: str, frames: Mapping[str, Rel]) -> Rel:
        sources = {InputSource(f"frame {name.lower()}"): plan for name, plan in frames.items()}
        if len(sources) < len(frames):
            raise SqlError("two frames have the same name but for case")
        with self._lock:
            self._tables.show(
                [
                    _table(name, plan, source)
                    for (name, plan), source in zip(frames.items(), sources, strict=True)
                ]
            )
            planned = self._front_end.plan(text)
        return map_rel(planned, lambda rel: _inlined(rel, sources))

    def close(self) -> None:
        """Close the front end's connection."""
        self._front_end.close()


def _table(name: str, plan: Rel, source: InputSource) -> Table:
    names = [n.lower() for n in plan.schema.names]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise SqlError(f"frame {name!r} has several columns named {twice[0]!r} but for case")
    return Table(name, plan.schema, source, 0, 0)


def _inlined(rel: Rel, frames: Mapping[InputSource, Rel]) -> Rel:
    """A scan of a frame as the frame's plan."""
    if not isinstance(rel, Scan) or not isinstance(rel.source, InputSource):
        return rel
    plan = frames.get(rel.source)
    if plan is None:
        return rel
    if rel.predicate is not None:
        plan = Filter(plan.schema, plan, rel.predicate)
    if rel.columns == tuple(range(len(plan.schema))) and rel.schema == plan.schema:
        return plan
    exprs = tuple(Column(plan.schema[i].type, i) for i in rel.columns)
    return Project(rel.schema, plan, exprs)


class _Tables(Catalog):
    """Frames, and behind them the tables of a catalog."""

    def __init__(self, behind: Catalog) -> None:
        super().__init__()
        self._behind = behind

    def show(self, frames: list[Table]) -> None:
        """The frames that can be named from now on."""
        self._tables = {t.name.lower(): t for t in frames}

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        for name in self._behind:
            if name.lower() not in self._tables:
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._behind

    def missing(self, name: str) -> TableNotFoundError:
        """The error for a table that is not there, with names that look like it."""
        mine = super().missing(name).near
        return TableNotFoundError(name, mine or self._behind.missing(name).near)

    def _find(self, name: str) -> Table:
        if super().__contains__(name):
            return super()._find(name)
        if name in self._behind:
            return self._behind[name]
        raise self.missing(name)
