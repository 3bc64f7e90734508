"""`Scheduler`: events in, commands out.

The life of an application: *pending* until there is room for it, then its gangs go ``waiting`` (for
parents) → ``queued`` (for cores and bytes) → ``starting`` (memory elements are being made) →
``running`` → ``done``. A memory element is made with the first gang that needs it and dropped when
all that corun with it are done. After a loss, gangs go back to ``waiting`` (`lineage`). What a run
holds is given back only when its worker is known to have ended, and memory only when nobody can
touch it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from openwhisk.scheduler.growth import Growth
from openwhisk.scheduler.incarnations import Incarnations
from openwhisk.scheduler.ledger import Ledger
from openwhisk.scheduler.lineage import restart_closure
from openwhisk.scheduler.messages import (
    Cancel,
    CloseSession,
    Command,
    Event,
    Failure,
    Finish,
    Invoke,
    KeepMemory,
    MemoryCreated,
    MemoryDropped,
    MemoryFailed,
    MemoryServerLost,
    OpenSession,
    ReleaseMemory,
    RenewSession,
    RunId,
    StartTask,
    StopTask,
    TaskDone,
    TaskFailed,
    TaskHolds,
    TaskRestarted,
    TaskStarted,
    Tick,
    WorkerLost,
)
from openwhisk.scheduler.queue import Queue, set_phase
from openwhisk.scheduler.reservations import ReservationPolicy
from openwhisk.scheduler.sessions import Sessions
from openwhisk.scheduler.state import ActivationState, Gang, Incarnation, Life, Phase, Run, Task


class Scheduler:
    """The state machine for one pool of cores and bytes.

    Parameters
    ----------
    cores, memory
        What there is to give: cores, and bytes for compute and memory elements together.
    max_attempts
        How often one copy of an element may be started in all.
    reservations
        How much of its limit an element reserves.
    """

    def __init__(
        self,
        cores: float,
        memory: int,
        *,
        max_attempts: int = 3,
        reservations: ReservationPolicy | None = None,
    ) -> None:
        self.ledger = Ledger(cores, memory)
        self._growth = Growth(self.ledger, reservations or ReservationPolicy())
        self._max_attempts = max_attempts
        self._activations: dict[str, ActivationState] = {}
        self._queue = Queue()
        self._starts = 0
        self._now = 0.0
        self._runs: dict[RunId, Run] = {}
        self._memories = Incarnations(self.ledger, lambda command: self._out.append(command))
        self._out: list[Command] = []
        self._sessions = Sessions()
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            Invoke: self._on_invoke,
            Cancel: self._on_cancel,
            MemoryCreated: self._on_memory_created,
            MemoryFailed: self._on_memory_failed,
            MemoryDropped: self._on_memory_dropped,
            MemoryServerLost: self._on_memory_server_lost,
            TaskStarted: self._on_task_started,
            TaskHolds: self._on_task_holds,
            TaskDone: self._on_task_done,
            TaskFailed: self._on_task_failed,
            WorkerLost: self._on_worker_lost,
            Tick: self._on_tick,
            OpenSession: self._on_open_session,
            RenewSession: self._on_renew_session,
            CloseSession: self._on_close_session,
            ReleaseMemory: self._on_release_memory,
        }

    def handle(self, event: Event) -> list[Command]:
        """Take one event; return what has to be done, in this order."""
        self._out = []
        self._now = event.now
        self._handlers[type(event)](event)
        self._admit()
        return self._out

    def next_deadline(self) -> float | None:
        """When a `Tick` is due at the latest, or ``None`` if nothing depends on time."""
        due = [
            run.started + run.task.plan.timeout
            for run in self._runs.values()
            if run.started is not None and run.paused is None and not run.stopping
        ]
        if (expiry := self._sessions.next_expiry()) is not None:
            due.append(expiry)
        return min(due, default=None)

    # -- applications ----------------------------------------------------------------------------

    def _on_invoke(self, event: Invoke) -> None:
        act = ActivationState.create(event.activation, event.plan, event.params, event.session)
        self._activations[act.id] = act
        failure = self._sessions.join(event.session, act.id, event.now)
        if failure is None and event.session is None:
            kept = [m.name for m in event.plan.memories.values() if m.session]
            if kept:
                failure = Failure(
                    "session",
                    f"memory element {kept[0]} of application {event.plan.name} belongs to a "
                    "session; invoke it with one",
                )
        failure = failure or self.ledger.objection(event.plan)
        if failure is not None:
            self._fail(act, failure)
        else:
            self._queue.applications.append(act)

    def _on_cancel(self, event: Cancel) -> None:
        if (act := self._activations.get(event.activation)) is not None:
            self._fail(act, Failure("cancelled", event.reason))

    def _fail(self, act: ActivationState, failure: Failure) -> None:
        """End an activation: stop its runs, give up its memory, finish when nothing is left."""
        if act.ending:
            return
        act.failure = failure
        self._end(act)
        for gang in act.gangs:
            if gang.phase is not Phase.DONE:
                self._queue.leave(gang, Phase.ENDED)
        for run in list(act.runs.values()):
            self._stop(run, failure.message)
        for incarnation in list(act.incarnations.values()):
            self._memories.doom(incarnation)
        self._finish_if_over(act)

    def _succeed(self, act: ActivationState) -> None:
        act.results = {name: [t.result for t in act.tasks[name]] for name in act.plan.sinks}
        self._end(act)
        for incarnation in list(act.incarnations.values()):
            if incarnation.plan.session and incarnation.alive and act.session is not None:
                self._keep(act, incarnation, act.session)
            else:
                self._memories.doom(incarnation)
        self._finish_if_over(act)

    def _end(self, act: ActivationState) -> None:
        act.ending = True
        if not act.admitted:
            self._queue.withdraw(act)

    def _finish_if_over(self, act: ActivationState) -> None:
        if not act.ending or act.runs or act.incarnations or act.id not in self._activations:
            return
        del self._activations[act.id]
        if act.admitted:
            self.ledger.leave(act.plan)
        self._out.append(Finish(act.id, act.results if act.failure is None else None, act.failure))
        if act.session is not None:
            self._out += self._sessions.leave(act.session, act.id, self._now)

    # -- admission -------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Let in applications, then gangs, each strictly in order: who waits for much is not
        overtaken for ever. Those that run come first.
        """
        self._grow()
        while self._queue.applications:
            act = self._queue.applications[0]
            if self.ledger.admits(act.plan):
                self._queue.applications.popleft()
                act.admitted = True
                act.tight = self.ledger.is_tight(act.plan)
                self.ledger.enter(act.plan)
                self._queue.advance(act)
            elif self.ledger.applications == 0:
                self._fail(act, self._crowded_out(act))
            else:
                break
        while not self._growth.waiting and (gang := self._queue.first()) is not None:
            size = gang.plan.mem + self._memories.need(gang)
            if self.ledger.fits(gang.plan.cores, size):
                self._start(gang)
            elif self._is_stuck():
                self._fail(gang.activation, self._crowded_out(gang.activation))
            else:
                break

    def _grow(self) -> None:
        """Let runs have more of their limits."""
        self._out += self._growth.serve(self._now)
        while (gang := self._growth.stalled(self._runs)) is not None:
            if self._memories.any_in(Life.DROPPING):
                break  # bytes come back soon
            act = gang.activation
            if all(run.task.gang is gang for run in self._runs.values()):
                self._fail(act, self._crowded_out(act))
            else:
                gang.whole = True
                self._restart(act, gang.tasks, "others needed its memory first", excused=True)
            self._out += self._growth.serve(self._now)

    def _is_stuck(self) -> bool:
        """Whether nothing is under way that could give anything back."""
        between = (Life.CREATING, Life.DOOMED, Life.DROPPING)
        return not self._runs and not self._memories.any_in(*between)

    def _crowded_out(self, act: ActivationState) -> Failure:
        return Failure(
            "capacity",
            f"application {act.plan.name} needs {act.plan.serial_peak} bytes at element "
            f"{act.plan.peak_element}; of the control plane's "
            f"{self.ledger.memory} bytes, sessions hold {self.ledger.kept}",
            element=act.plan.peak_element or None,
        )

    def _start(self, gang: Gang) -> None:
        act = gang.activation
        memories = tuple(self._memories.of(act, name) for name in gang.plan.memories)
        by_name = {i.plan.name: i for i in memories}
        self._queue.leave(gang, Phase.STARTING)
        self._starts += 1
        gang.started = self._starts
        for task in gang.tasks:
            task.attempts += 1
            own = tuple(by_name[name] for name in task.plan.memories)
            inherited = (t.provenance for p in task.plan.parents for t in act.tasks[p])
            run = Run(
                RunId(act.id, task.plan.name, task.index, task.attempts),
                task,
                own,
                frozenset(own).union(*inherited),
            )
            task.run = self._runs[run.id] = act.runs[run.id] = run
            self._growth.begin(run)
            for incarnation in own:
                incarnation.users.add(run.id)
                incarnation.touched.add(task)
        self._dispatch_if_ready(gang)

    def _dispatch_if_ready(self, gang: Gang) -> None:
        act = gang.activation
        if any(act.memory[name].life is not Life.READY for name in gang.plan.memories):
            return
        set_phase(gang, Phase.RUNNING)
        for task in gang.tasks:
            run = task.run
            assert run is not None
            run.dispatched = True
            parents = task.plan.parents
            self._out.append(
                StartTask(
                    run=run.id,
                    inputs={p: [t.result for t in act.tasks[p]] for p in parents} or None,
                    params=None if parents else act.params,
                    memories={i.plan.name: i.id for i in run.memories},
                    cores=task.plan.cores,
                    mem=task.plan.mem,
                    reserved=run.reserved,
                )
            )

    # -- runs ------------------------------------------------------------------------------------

    def _on_task_started(self, event: TaskStarted) -> None:
        if (run := self._runs.get(event.run)) is not None:
            run.started = event.now

    def _on_task_holds(self, event: TaskHolds) -> None:
        run = self._runs.get(event.run)
        if run is not None and not run.stopping:
            self._out += self._growth.holds(run, event.size)

    def _on_task_done(self, event: TaskDone) -> None:
        run = self._end_run(event.run)
        if run is None or run.stopping:
            return
        task, act = run.task, run.task.gang.activation
        task.phase = Phase.DONE
        task.result = event.result
        task.provenance = run.sources
        act.open_copies[task.plan.name] -= 1
        if all(t.phase is Phase.DONE for t in task.gang.tasks):
            task.gang.phase = Phase.DONE
        for incarnation in run.memories:
            plan = incarnation.plan
            if not plan.session and all(act.finished(n) for n in plan.corunning):
                self._memories.doom(incarnation)
        if act.finished(task.plan.name):
            if all(act.finished(name) for name in act.plan.sinks):
                self._succeed(act)
            else:
                self._queue.advance(act)

    def _on_task_failed(self, event: TaskFailed) -> None:
        run = self._end_run(event.run)
        if run is not None and not run.stopping:
            self._fail(run.task.gang.activation, event.failure)

    def _on_worker_lost(self, event: WorkerLost) -> None:
        run = self._end_run(event.run)
        if run is not None and not run.stopping:
            self._restart(run.task.gang.activation, [run.task], event.reason)

    def _end_run(self, run_id: RunId) -> Run | None:
        """Give back what a run holds. ``None`` if it has ended before."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return None
        task, act = run.task, run.task.gang.activation
        del act.runs[run_id]
        if task.run is run:
            task.run = None
        self._growth.end(run)
        for incarnation in run.memories:
            self._memories.left(incarnation, run_id)
        self._finish_if_over(act)
        return run

    def _stop(self, run: Run, reason: str) -> None:
        if run.stopping:
            return
        run.stopping = True
        self._growth.forget(run)
        if run.task.run is run:
            run.task.run = None
        if run.dispatched:
            self._out.append(StopTask(run.id, reason))
        else:
            self._end_run(run.id)

    def _restart(
        self, act: ActivationState, lost: Iterable[Task], reason: str, *, excused: bool = False
    ) -> None:
        """Start again whatever has to be after `lost` were lost, or memory was.

        Attempts that are `excused` do not count.
        """
        if act.ending:
            return
        rerun, doomed = restart_closure(act, lost)
        ordered = [gang for gang in act.gangs if gang in rerun]
        begun = [t for gang in ordered for t in gang.tasks if t.attempts]
        if excused:
            for task in begun:
                task.excused += 1
        most = self._max_attempts
        if spent := next((t for t in begun if t.attempts - t.excused >= most), None):
            self._fail(
                act,
                Failure(
                    "lost",
                    f"element {spent.plan.name} (copy {spent.index}) was lost after "
                    f"{spent.attempts - spent.excused} attempts: {reason}",
                    element=spent.plan.name,
                    index=spent.index,
                ),
            )
            return
        for task in begun:
            run_id = RunId(act.id, task.plan.name, task.index, task.attempts)
            self._out.append(TaskRestarted(run_id, reason))
        for gang in ordered:
            for task in gang.tasks:
                if task.phase is Phase.DONE:
                    act.open_copies[task.plan.name] += 1
                    task.result, task.provenance = None, frozenset()
                if task.run is not None:
                    self._stop(task.run, reason)
            self._queue.leave(gang, Phase.WAITING)
        for incarnation in list(act.incarnations.values()):
            if incarnation in doomed:
                self._memories.doom(incarnation)
        self._queue.recall(act)
        self._queue.advance(act)

    # -- memory ----------------------------------------------------------------------------------

    def _on_memory_created(self, event: MemoryCreated) -> None:
        incarnation = self._memories.creating(event.memory)
        if incarnation is None or not self._memories.created(incarnation, event.server):
            return
        act = self._activations[event.memory.activation]
        for gang in act.gangs:
            if gang.phase is Phase.STARTING:
                self._dispatch_if_ready(gang)

    def _on_memory_failed(self, event: MemoryFailed) -> None:
        if self._memories.creating(event.memory) is None:
            return
        name = event.memory.name
        self._fail(
            self._activations[event.memory.activation],
            Failure("memory", f"memory element {name}: {event.message}", element=name),
        )

    def _on_memory_server_lost(self, event: MemoryServerLost) -> None:
        hit: dict[str, list[Incarnation]] = {}
        for incarnation in self._memories.server_lost(event.server):
            hit.setdefault(incarnation.id.activation, []).append(incarnation)
        for activation, incarnations in hit.items():
            act = self._activations.get(activation)
            if act is None or act.ending:
                continue
            running = {
                task
                for incarnation in incarnations
                for task in incarnation.touched
                if task.run is not None
            }
            self._restart(act, running, "the memory server was lost")

    def _on_memory_dropped(self, event: MemoryDropped) -> None:
        incarnation = self._memories.dropped(event.memory)
        if incarnation is None:
            return
        if incarnation.session is not None:
            self.ledger.kept -= incarnation.plan.size
            self._out += self._sessions.forget(incarnation)
        act = self._activations.get(event.memory.activation)
        if act is not None:
            act.incarnations.pop(incarnation.id, None)
            self._finish_if_over(act)

    def _keep(self, act: ActivationState, incarnation: Incarnation, session: str) -> None:
        act.incarnations.pop(incarnation.id, None)
        self._sessions.keep(session, incarnation)
        self.ledger.kept += incarnation.plan.size
        self._out.append(KeepMemory(incarnation.id, session))

    # -- time and sessions -----------------------------------------------------------------------

    def _on_tick(self, event: Tick) -> None:
        for run in list(self._runs.values()):
            if run.stopping or run.started is None or run.paused is not None:
                continue
            timeout = run.task.plan.timeout
            if event.now >= run.started + timeout:
                name, index = run.id.element, run.id.index
                self._fail(
                    run.task.gang.activation,
                    Failure(
                        "timeout",
                        f"element {name} ran longer than its limit of {timeout:g} s",
                        element=name,
                        index=index,
                    ),
                )
        for session in self._sessions.expired(event.now):
            self._close_session(session, "its lease expired")

    def _on_open_session(self, event: OpenSession) -> None:
        self._sessions.open(event.session, event.lease, event.now)

    def _on_renew_session(self, event: RenewSession) -> None:
        self._sessions.renew(event.session, event.now)

    def _on_close_session(self, event: CloseSession) -> None:
        self._close_session(event.session, "closed")

    def _close_session(self, session: str, reason: str) -> None:
        activations, memories = self._sessions.begin_closing(session, reason)
        for activation in activations:
            if (act := self._activations.get(activation)) is not None:
                self._fail(act, Failure("session", f"session {session} ended: {reason}"))
        for incarnation in memories:
            self._memories.doom(incarnation)
        self._out += self._sessions.close_if_empty(session)

    def _on_release_memory(self, event: ReleaseMemory) -> None:
        self._sessions.renew(event.session, event.now)
        found = self._sessions.memory(event.session, event.activation, event.element)
        if found is not None:
            self._memories.doom(found)
