"""The applications that make and fill a session's resident memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from engine.resident.layout import ELEMENT, FillJob, to_plain
from openwhisk.app import Application, ComputeElement, Corunning, Limits, MemoryElement

__all__ = ["filling", "opening"]

_OPEN = '''"""Reaches the session's resident memory, so that it exists."""


def main(params, action):
    action.get_transport("resident", "rdma")
    return {}
'''

_FILL = '''"""Decodes columns of base tables into the session's resident memory."""

from engine.resident import load


def main(params, action):
    return load.fill(params, action)
'''


def opening(budget: int, memory: int) -> Application:
    """Makes a memory element of at most `budget` bytes; its compute element may take `memory`."""
    name = f"resident-{uuid4().hex[:12]}"
    return Application(
        name,
        [
            ComputeElement(
                "open",
                code=_OPEN,
                corunning={ELEMENT: Corunning(ELEMENT)},
                limits=Limits(cpu=0.1, mem=memory),
            ),
            MemoryElement(
                ELEMENT,
                corunning=("open",),
                limits=Limits(cpu=0.0, mem=budget),
                lifetime="session",
                elastic=True,
            ),
        ],
    )


def filling(job: FillJob, copies: int, memory: int) -> Application:
    """Does a job with so many copies of one element, each with `memory` bytes."""
    parameters: Mapping[str, Any] = {"fill": to_plain(job)}
    return Application(
        f"fill-{uuid4().hex[:12]}",
        [
            ComputeElement(
                "fill",
                code=_FILL,
                parallelism=copies,
                limits=Limits(cpu=1.0, mem=memory, timeout=600.0),
                parameters=parameters,
            )
        ],
    )
