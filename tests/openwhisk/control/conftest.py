"""Control planes with real processes, and a check that they leave nothing behind."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement, Corunning, Element, Limits, MemoryElement
from openwhisk.control import EmbeddedControlPlane

MiB = 1 << 20


def descriptors() -> set[str]:
    """What this process's descriptors point to."""
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            continue
    return found


class Leftovers:
    """Compares what this process has with what it had."""

    def __init__(self) -> None:
        self._children = {p.pid for p in psutil.Process().children(recursive=True)}
        self._descriptors = descriptors()
        self._threads = set(threading.enumerate())

    def check(self) -> None:
        children = [
            p for p in psutil.Process().children(recursive=True) if p.pid not in self._children
        ]
        assert not children
        assert not descriptors() - self._descriptors
        assert set(threading.enumerate()) <= self._threads


@pytest.fixture
def leftovers() -> Leftovers:
    return Leftovers()


@pytest.fixture(scope="session")
def plane() -> Iterator[EmbeddedControlPlane]:
    """One control plane for the tests that do it no harm."""
    with EmbeddedControlPlane(cores=4, memory=4 << 30) as plane:
        yield plane


@pytest.fixture
def compute() -> Callable[..., ComputeElement]:
    """Make a compute element: ``compute(name, code, parents=…, memory=[…], mem=…, …)``."""

    def make(
        name: str,
        code: str,
        *,
        memory: tuple[str, ...] = (),
        mem: int = 256 * MiB,
        cpu: float = 0.1,
        timeout: float = 60.0,
        **kwargs: Any,
    ) -> ComputeElement:
        return ComputeElement(
            name,
            code,
            limits=Limits(cpu=cpu, mem=mem, timeout=timeout),
            corunning={m: Corunning(m) for m in memory},
            **kwargs,
        )

    return make


@pytest.fixture
def memory() -> Callable[..., MemoryElement]:
    """Make a memory element: ``memory(name, size, access=…, lifetime=…, elastic=…)``."""

    def make(name: str, size: int = MiB, **kwargs: Any) -> MemoryElement:
        return MemoryElement(name, limits=Limits(cpu=0.0, mem=size), **kwargs)

    return make


@pytest.fixture
def run() -> Callable[..., Activation]:
    """Put an application of these elements, invoke it, wait for it."""

    def go(
        plane: EmbeddedControlPlane, elements: list[Element], params: Any = None, **kwargs: Any
    ) -> Activation:
        plane.put_application(Application("app", elements), overwrite=True)
        return plane.wait(plane.invoke("app", params, **kwargs), timeout=60)

    return go


@pytest.fixture
def marker(tmp_path: Path) -> str:
    """Path of a file that an element makes to remember that it has been here."""
    return str(tmp_path / "marker")
