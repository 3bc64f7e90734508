"""Gangs: which elements must start together.

Two compute elements belong to one gang if they can communicate while both run: they corun directly,
or they name the same memory element with ``access: shared``, and neither depends on the other.
Belonging together is transitive. The parallel copies of an element are always members of the same
gang entry; whether they are bound to one another is `Gang.bound`. Elements that share only an
``exchange`` are not bound: what is in it is immutable once its handle exists.

A gang starts all or none, after everything that any member waits for. `conflicts` finds the
applications for which that is impossible; `openwhisk.app.validate` reports them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from openwhisk.app.graph import ancestors, find_cycle
from openwhisk.app.model import Application, MemoryElement, Problem
from openwhisk.errors import ApplicationError


@dataclass(frozen=True, slots=True)
class Gang:
    """Elements that are admitted together.

    Attributes
    ----------
    compute
        Names of its compute elements, in declaration order.
    memory
        Names of the memory elements that its members corun with, in declaration order. All must be
        up when the gang starts; those that are not up yet are brought up by it.
    parents
        Compute elements outside the gang that must be done before it may start: the parents of its
        compute elements, and of its memory elements (a memory element that is itself a dependent
        starts when its parents are done).
    bound
        Whether members, or parallel copies of one member, share writable state: if one of them is
        lost, all start again, on fresh memory. A gang that is not bound has one compute element,
        whose copies may be started and recomputed one by one.
    """

    compute: tuple[str, ...]
    memory: tuple[str, ...]
    parents: frozenset[str]
    bound: bool


def gangs(app: Application) -> list[Gang]:
    """Return the gangs of a completed application; every compute element is in exactly one.

    The list is in topological order: a gang comes after all that it waits for.

    Raises
    ------
    ApplicationError
        If there is no such order (see `conflicts`), or elements depend on one another in a cycle.
    """
    if problems := conflicts(app):
        raise ApplicationError([Problem(p) for p in problems])
    found = _gangs(app)
    member_of = {name: i for i, gang in enumerate(found) for name in gang.compute}
    waits = [{member_of[p] for p in gang.parents} for gang in found]
    order: list[int] = []
    placed: set[int] = set()
    while len(order) < len(found):
        ready = [i for i in range(len(found)) if i not in placed and waits[i] <= placed]
        placed.update(ready)
        order += ready
    return [found[i] for i in order]


def conflicts(app: Application) -> list[str]:
    """Return why gangs of `app` could never start, one message each; empty if all can.

    `app` must be completed, without unknown names and without cycles among its compute elements.
    """
    problems: list[str] = []
    above = ancestors(app)
    found = _gangs(app)
    inner = False
    for gang in found:
        for name in gang.compute:
            if inside := sorted(above[name] & set(gang.compute)):
                inner = True
                problems.append(
                    f"{_listed(gang.compute)} must start together (they corun), "
                    f"but {name} depends on {_listed(inside)}"
                )
                break
        for memory in gang.memory:
            parents = set(app[memory].parents)
            if inside := sorted(parents & set(gang.compute)):
                inner = True
                problems.append(
                    f"{_listed(gang.compute)} coruns with {memory}, "
                    f"which starts only after {_listed(inside)}"
                )
    if inner:
        return problems
    member_of = {name: i for i, gang in enumerate(found) for name in gang.compute}
    edges = {str(i): sorted({str(member_of[p]) for p in g.parents}) for i, g in enumerate(found)}
    if cycle := find_cycle(edges):
        together = [_listed(found[int(i)].compute) for i in cycle]
        problems.append(
            "elements that must start together wait for one another: "
            + ", which wait for ".join(f"({t})" for t in together)
        )
    return problems


def _gangs(app: Application) -> list[Gang]:
    """Return the gangs in declaration order of their first members."""
    compute, memory = app.compute, app.memory
    above = ancestors(app)
    leader = {name: name for name in compute}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    def bind(names: Iterable[str]) -> None:
        members = list(names)
        for i, one in enumerate(members):
            for other in members[:i]:
                if one not in above[other] and other not in above[one]:
                    leader[find(one)] = find(other)

    for name, element in compute.items():
        for other in element.corunning:
            if other in compute:
                bind((name, other))
    for shared in memory.values():
        if shared.access == "shared":
            bind(dict.fromkeys(n for n in shared.corunning if n in compute))

    members: dict[str, list[str]] = {}
    for name in compute:
        members.setdefault(find(name), []).append(name)
    found = []
    for group in members.values():
        named = {m for n in group for m in compute[n].corunning if m in memory}
        inside = frozenset(group)
        parents = {p for n in group for p in compute[n].parents if p in compute}
        parents |= {p for m in named for p in memory[m].parents if p in compute}
        copies = any(compute[n].parallelism > 1 and _writes_shared(app, n) for n in group)
        found.append(
            Gang(
                compute=tuple(group),
                memory=tuple(m for m in memory if m in named),
                parents=frozenset(parents) - inside,
                bound=len(group) > 1 or copies,
            )
        )
    return found


def _writes_shared(app: Application, name: str) -> bool:
    element = app.compute[name]
    partners = (app[n] for n in element.corunning if n in app)
    return any(isinstance(p, MemoryElement) and p.access == "shared" for p in partners)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
