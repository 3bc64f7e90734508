"""A memory server that dies is a loss whatever the element makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.control import EmbeddedControlPlane

# As a kernel does that reads a stream: what went wrong below it comes out as its own error.
HIDE = """
import os, signal
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.reg(1)
    if not params["server"]:
        t.read(1, addr=0, offset=0)
        return {"attempt": 0}
    try:
        os.close(os.open(params["marker"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        t.read(1, addr=0, offset=0)
        return {"attempt": 2}
    os.kill(params["server"], signal.SIGKILL)
    try:
        while True:
            t.read(1, addr=0, offset=0)
    except Exception as error:
        raise ValueError("a kernel failed: " + str(error)) from None
"""


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_loss_in_the_clothes_of_another_error(
    compute: Callable[..., ComputeElement],
    memory: Callable[..., MemoryElement],
    marker: str,
    transport: str,
) -> None:
    app = Application("app", [compute("e", HIDE, memory=("m",)), memory("m", access="exchange")])
    with EmbeddedControlPlane(cores=2, memory=1 << 30) as plane:
        plane.put_application(app)

        def run(server: int) -> Activation:
            params = {"server": server, "marker": marker}
            return plane.wait(plane.invoke("app", params, transport=transport), 60)

        assert run(0).result == {"e": {"attempt": 0}}
        server = plane.info().memory_server
        assert server is not None
        activation = run(server)
        assert activation.status == "success", activation.error
        assert activation.result == {"e": {"attempt": 2}}
        assert activation.usage.recomputed == ["e[0]"]


def test_other_failures_stay_failures(
    compute: Callable[..., ComputeElement], memory: Callable[..., MemoryElement]
) -> None:
    code = """
def main(params, action):
    action.get_transport("m", "rdma").reg(1)
    raise ValueError("no loss at all")
"""
    app = Application("app", [compute("e", code, memory=("m",)), memory("m", access="exchange")])
    with EmbeddedControlPlane(cores=2, memory=1 << 30) as plane:
        plane.put_application(app)
        activation = plane.wait(plane.invoke("app"), 60)
    assert activation.error_kind == "element"
    assert "no loss at all" in (activation.error or "")
    assert activation.usage.recomputed == []
