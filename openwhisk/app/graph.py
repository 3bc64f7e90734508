"""Questions about the dependence graph of an application.

All functions take a completed application without unknown names (see `openwhisk.app.validate`) and
look at compute elements unless they say otherwise. They are linear in elements and relationships,
but for `ancestors`, which is quadratic at worst.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush

from openwhisk.app.model import Application, Problem
from openwhisk.errors import ApplicationError


def find_cycle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Return one cycle of a graph as ``[a, b, a]``, or ``None`` if it has none. Iterative: any
    depth.
    """
    done: set[str] = set()
    for root in edges:
        if root in done:
            continue
        path: list[str] = [root]
        on_path = {root}
        pending = [iter(edges.get(root, ()))]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                last = path.pop()
                on_path.discard(last)
                done.add(last)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                pending.append(iter(edges.get(following, ())))
    return None


def topological_order(app: Application) -> list[str]:
    """Return the compute elements, parents before dependents; otherwise in declaration order.

    Raises
    ------
    ApplicationError
        If the elements depend on one another in a cycle.
    """
    compute = app.compute
    position = {name: i for i, name in enumerate(compute)}
    names = list(compute)
    missing = {n: sum(p in compute for p in set(e.parents)) for n, e in compute.items()}
    ready = [position[n] for n, count in missing.items() if count == 0]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heappop(ready)]
        order.append(name)
        for dependent in set(compute[name].dependents):
            if dependent in missing:
                missing[dependent] -= 1
                if missing[dependent] == 0:
                    heappush(ready, position[dependent])
    if len(order) < len(compute):
        cycle = find_cycle({n: e.dependents for n, e in compute.items()}) or ["?"]
        raise ApplicationError([Problem(f"elements depend on one another: {' -> '.join(cycle)}")])
    return order


def ancestors(app: Application) -> dict[str, frozenset[str]]:
    """Return, for every compute element, all that it depends on, directly or not."""
    compute = app.compute
    found: dict[str, frozenset[str]] = {}
    for name in topological_order(app):
        parents = [p for p in compute[name].parents if p in compute]
        found[name] = frozenset(parents).union(*(found[p] for p in parents))
    return found


def depends_on(app: Application, element: str, other: str) -> bool:
    """Whether compute element `element` depends on `other`, directly or not."""
    compute = app.compute
    seen: set[str] = set()
    pending = [element]
    while pending:
        for parent in compute[pending.pop()].parents:
            if parent == other:
                return True
            if parent not in seen and parent in compute:
                seen.add(parent)
                pending.append(parent)
    return False


def sources(app: Application) -> list[str]:
    """Return the compute elements without parents, in declaration order: they start first and get
    the invocation's parameters.
    """
    return [name for name, element in app.compute.items() if not element.parents]


def sinks(app: Application) -> list[str]:
    """Return the compute elements that no compute element depends on, in declaration order: their
    results are the application's.
    """
    compute = app.compute
    return [n for n, e in compute.items() if not any(d in compute for d in e.dependents)]
