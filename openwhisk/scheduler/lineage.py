"""What has to run again after a loss.

A result is data plus references into memory elements. Its *provenance* is every incarnation that it
may refer to. A result is good for a task that needs it as long as every incarnation in its
provenance that the task can reach (because it, or something further down that still has to run,
coruns with that memory element) is alive. From this one rule follows how far back recomputation
goes: to the newest results that are still whole, and no further.

Two rules add to it. A bound gang starts again as a whole. Who leaves a ``shared`` memory element
half-way leaves it in an unknown state: everything that touched this incarnation starts again, on a
fresh one.
"""

from __future__ import annotations

from collections.abc import Iterable

from openwhisk.scheduler.state import ActivationState, Gang, Incarnation, Phase, Task


def restart_closure(
    act: ActivationState, lost: Iterable[Task]
) -> tuple[set[Gang], set[Incarnation]]:
    """Return the gangs that have to start again and the incarnations that are to be given up.

    Parameters
    ----------
    act
        The activation; incarnations that died are already marked so.
    lost
        Tasks whose runs ended without a result.
    """
    rerun: set[Gang] = set()
    doomed: set[Incarnation] = set()
    fresh = {task.gang for task in lost}
    fresh |= _stale(act, fresh, doomed)
    while fresh:
        _spread(act, fresh, rerun, doomed)
        fresh = _stale(act, rerun, doomed) - rerun
    return rerun, doomed


def _spread(
    act: ActivationState, fresh: set[Gang], rerun: set[Gang], doomed: set[Incarnation]
) -> None:
    """Move `fresh` into `rerun`, with everything that touched the same writable memory."""
    pending = list(fresh)
    while pending:
        gang = pending.pop()
        if gang in rerun:
            continue
        rerun.add(gang)
        for name in gang.plan.memories:
            incarnation = act.memory.get(name)
            if (
                incarnation is None
                or incarnation in doomed
                or not incarnation.alive
                or not incarnation.plan.shared
                or incarnation.touched.isdisjoint(gang.tasks)
            ):
                continue
            doomed.add(incarnation)
            pending += {task.gang for task in incarnation.touched}


def _stale(act: ActivationState, rerun: set[Gang], doomed: set[Incarnation]) -> set[Gang]:
    """Gangs outside `rerun` whose results, or inputs, refer to bytes that somebody still needs and
    that are no more.
    """
    found: set[Gang] = set()
    kept = {name for name, plan in act.plan.memories.items() if plan.session}
    must_run: dict[str, bool] = {}
    needed: dict[str, set[str]] = {}
    for name in reversed(list(act.plan.elements)):
        element = act.plan.elements[name]
        reach: set[str] = set() if element.children else set(kept)
        for child in element.children:
            if must_run[child]:
                reach |= needed[child]
                reach.update(act.plan.elements[child].memories)
        needed[name] = reach
        own = reach.union(element.memories)
        for task in act.tasks[name]:
            if task.gang in rerun:
                continue
            if task.phase is Phase.DONE:
                stale = _refers_to_dead(task.provenance, reach, doomed)
            elif task.run is not None:
                stale = _refers_to_dead(task.run.sources, own, doomed)
            else:
                stale = False
            if stale:
                found.add(task.gang)
        must_run[name] = any(
            t.phase is not Phase.DONE or t.gang in rerun or t.gang in found for t in act.tasks[name]
        )
    return found


def _refers_to_dead(
    provenance: frozenset[Incarnation], reach: set[str], doomed: set[Incarnation]
) -> bool:
    return any(i.plan.name in reach and (i in doomed or not i.alive) for i in provenance)
