"""`Plan`: what the scheduler has to know of an application, worked out once when the application is
put.

Code, transports and durls do not occur here; an element is a name with needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from openwhisk.app.gangs import Gang, gangs
from openwhisk.app.graph import topological_order
from openwhisk.app.model import Application


class ElementPlan(msgspec.Struct, frozen=True):
    """One compute element: copies, needs of each copy, neighbours."""

    name: str
    count: int
    cores: float
    mem: int
    timeout: float
    parents: tuple[str, ...]
    children: tuple[str, ...]
    memories: tuple[str, ...]


class MemoryPlan(msgspec.Struct, frozen=True):
    """One memory element. `size` is what it reserves; 0 where it is elastic and holds only what was
    allocated.
    """

    name: str
    size: int
    limit: int
    elastic: bool
    shared: bool
    session: bool
    corunning: tuple[str, ...]


class GangPlan(msgspec.Struct, frozen=True):
    """Copies that start together or not at all, and the memory elements that they need."""

    number: int
    members: tuple[tuple[str, int], ...]
    memories: tuple[str, ...]
    after: tuple[str, ...]
    cores: float
    mem: int


class Plan(msgspec.Struct, frozen=True):
    """An application as the scheduler sees it.

    Attributes
    ----------
    elements
        Compute elements in topological order.
    gangs
        In an order in which they could run one after the other.
    all_memory, largest_gang
        Bytes of all memory elements at once, and of the largest gang: with both the application can
        always go on.
    serial_peak
        Bytes that it needs when its gangs run one by one, and the element that stands at the peak.
    """

    name: str
    elements: Mapping[str, ElementPlan]
    memories: Mapping[str, MemoryPlan]
    gangs: tuple[GangPlan, ...]
    sinks: tuple[str, ...]
    all_memory: int
    largest_gang: int
    serial_peak: int
    peak_element: str


def compile_plan(app: Application) -> Plan:
    """Work out the plan of a valid, completed application.

    Raises
    ------
    ApplicationError
        If elements, or gangs, wait for one another in a circle.
    """
    compute, memory = app.compute, app.memory
    order = topological_order(app)
    memories = {
        m.name: MemoryPlan(
            name=m.name,
            size=0 if m.elastic else m.limits.mem,
            limit=m.limits.mem,
            elastic=m.elastic,
            shared=m.access == "shared",
            session=m.lifetime == "session",
            corunning=tuple(n for n in order if m.name in compute[n].corunning),
        )
        for m in memory.values()
    }
    elements = {
        name: ElementPlan(
            name=name,
            count=compute[name].parallelism,
            cores=compute[name].limits.cpu,
            # Memory elements merged into the process live in its anonymous memory.
            mem=compute[name].limits.mem + sum(m.limits.mem for m in compute[name].with_merged),
            timeout=compute[name].limits.timeout,
            parents=tuple(p for p in compute[name].parents if p in compute),
            children=tuple(d for d in compute[name].dependents if d in compute),
            memories=tuple(m for m in compute[name].corunning if m in memory),
        )
        for name in order
    }
    units = tuple(_units(app, elements))
    serial_peak, peak_element = _serial_peak(units, elements, memories)
    return Plan(
        name=app.name,
        elements=elements,
        memories=memories,
        gangs=units,
        sinks=tuple(n for n in order if not elements[n].children),
        all_memory=sum(m.size for m in memories.values()),
        largest_gang=max((g.mem for g in units), default=0),
        serial_peak=serial_peak,
        peak_element=peak_element,
    )


def _units(app: Application, elements: Mapping[str, ElementPlan]) -> Iterator[GangPlan]:
    """Yield what starts all or none: a bound gang as a whole, otherwise every copy by itself."""
    number = 0
    for gang in _depth_first(gangs(app)):
        copies = [(name, i) for name in gang.compute for i in range(elements[name].count)]
        for members in [copies] if gang.bound else [[copy] for copy in copies]:
            yield GangPlan(
                number=number,
                members=tuple(members),
                memories=gang.memory,
                after=tuple(sorted(gang.parents)),
                cores=sum(elements[name].cores for name, _ in members),
                mem=sum(elements[name].mem for name, _ in members),
            )
            number += 1


def _depth_first(found: list[Gang]) -> list[Gang]:
    """Order gangs so that one follows soon after what it waits for.

    Run one by one in this order, a branch is done, and its memory freed, before the next begins.
    """
    gang_of = {name: i for i, gang in enumerate(found) for name in gang.compute}
    missing = [{gang_of[p] for p in gang.parents} for gang in found]
    waiting: dict[int, list[int]] = {}
    for i, parents in enumerate(missing):
        for parent in parents:
            waiting.setdefault(parent, []).append(i)
    ready = [i for i in reversed(range(len(found))) if not missing[i]]
    order = []
    while ready:
        done = ready.pop()
        order.append(found[done])
        for i in reversed(waiting.get(done, [])):
            missing[i].discard(done)
            if not missing[i]:
                ready.append(i)
    return order


def _serial_peak(
    units: Iterable[GangPlan],
    elements: Mapping[str, ElementPlan],
    memories: Mapping[str, MemoryPlan],
) -> tuple[int, str]:
    open_copies = {name: e.count for name, e in elements.items()}
    live: dict[str, int] = {}
    peak, at = 0, ""
    for gang in units:
        for m in gang.memories:
            live.setdefault(m, memories[m].size)
        need = sum(live.values()) + gang.mem
        if need > peak:
            peak, at = need, gang.members[0][0]
        for name, _ in gang.members:
            open_copies[name] -= 1
        for m in gang.memories:
            plan = memories[m]
            if not plan.session and all(open_copies[n] == 0 for n in plan.corunning):
                del live[m]
    return peak, at
