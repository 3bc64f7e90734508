"""A scheduler that is driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from openwhisk.app import Application, complete
from openwhisk.app.model import ComputeElement, Corunning, Element, Limits, MemoryElement
from openwhisk.scheduler import Scheduler, compile_plan
from openwhisk.scheduler.messages import (
    Command,
    CreateMemory,
    DropMemory,
    Event,
    Finish,
    Invoke,
    MemoryCreated,
    MemoryDropped,
    RunId,
    StartTask,
    TaskDone,
    TaskStarted,
)
from openwhisk.scheduler.reservations import ReservationPolicy


class Driver:
    """Sends events, one second apart, and remembers commands."""

    def __init__(
        self,
        cores: float = 8.0,
        memory: int = 1000,
        max_attempts: int = 3,
        reservations: ReservationPolicy | None = None,
    ) -> None:
        self.scheduler = Scheduler(
            cores, memory, max_attempts=max_attempts, reservations=reservations
        )
        self.now = 0.0
        self.log: list[Command] = []

    def send(self, kind: type[Event], *args: Any, **kwargs: Any) -> list[Command]:
        self.now += 1.0
        commands = self.scheduler.handle(kind(self.now, *args, **kwargs))
        self.log += commands
        return commands

    def invoke(self, name: str, elements: list[Element], **kwargs: Any) -> list[Command]:
        plan = compile_plan(complete(Application(name, elements)))
        return self.send(Invoke, name, plan, {"p": name}, **kwargs)

    def of(self, kind: type[Command]) -> list[Any]:
        return [c for c in self.log if type(c) is kind]

    def started(self) -> list[str]:
        return [f"{c.run.activation}.{c.run.element}{c.run.index}" for c in self.of(StartTask)]

    def run(self, name: str) -> RunId:
        """The newest run of ``activation.elementindex``."""
        labels = self.started()
        found: RunId = self.of(StartTask)[len(labels) - 1 - labels[::-1].index(name)].run
        return found

    def done(self, name: str, result: Any = None) -> list[Command]:
        return self.send(TaskDone, self.run(name), result)

    def begun(self, name: str) -> list[Command]:
        return self.send(TaskStarted, self.run(name))

    def create(self, server: int = 1) -> None:
        """Answer all requests for memory elements that are open."""
        made = {c.memory for c in self.log if type(c) is CreateMemory}
        for memory in sorted(made - getattr(self, "_made", set())):
            self.send(MemoryCreated, memory, server)
        self._made = made

    def drop(self) -> None:
        gone = {c.memory for c in self.log if type(c) is DropMemory}
        for memory in sorted(gone - getattr(self, "_gone", set())):
            self.send(MemoryDropped, memory)
        self._gone = gone

    def finish(self, activation: str) -> Finish | None:
        found = [c for c in self.of(Finish) if c.activation == activation]
        assert len(found) <= 1
        return found[0] if found else None


@pytest.fixture
def driver() -> Callable[..., Driver]:
    return Driver


@pytest.fixture
def compute() -> Callable[..., ComputeElement]:
    def make(
        name: str, *parents: str, memory: tuple[str, ...] = (), mem: int = 1, cpu: float = 1.0,
        timeout: float = 100.0, **kwargs: Any,
    ) -> ComputeElement:  # fmt: skip
        return ComputeElement(
            name, "", parents=parents, corunning={m: Corunning(m) for m in memory},
            limits=Limits(cpu=cpu, mem=mem, timeout=timeout), **kwargs,
        )  # fmt: skip

    return make


@pytest.fixture
def memory() -> Callable[..., MemoryElement]:
    def make(name: str, size: int = 1, **kwargs: Any) -> MemoryElement:
        return MemoryElement(name, limits=Limits(cpu=0.0, mem=size), **kwargs)

    return make
