"""Memory that outlives an application."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from libd import LibdAction
from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.control import EmbeddedControlPlane
from openwhisk.errors import ControlPlaneClosedError, MemoryLostError, NotFoundError
from tests.waiting import until

Compute = Callable[..., ComputeElement]
Memory = Callable[..., MemoryElement]
Run = Callable[..., Activation]

WRITE = 'def main(p, a):\n    a.get_transport("m", "rdma").write_from(0, b"kept")\n    return {}\n'
KiB = 1 << 10


@pytest.fixture
def elements(compute: Compute, memory: Memory) -> list[ComputeElement | MemoryElement]:
    return [
        compute("w", WRITE, memory=("m",)),
        memory("m", 64 * KiB, access="exchange", lifetime="session"),
    ]


@pytest.fixture
def fresh() -> Iterator[EmbeddedControlPlane]:
    with EmbeddedControlPlane(cores=4, memory=2 << 30) as plane:
        yield plane


def read(durl: str) -> bytes:
    action = LibdAction("test", transports=[durl])
    try:
        out = bytearray(4)
        action.get_transport("m", "rdma").read_into(0, out)
        return bytes(out)
    finally:
        action.close()


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_session_memory_is_read_after_its_application_and_freed_on_release(
    fresh: EmbeddedControlPlane, elements: list[ComputeElement], run: Run, transport: str
) -> None:
    session = fresh.open_session("mine").id
    one = run(fresh, elements, session=session)
    two = run(fresh, elements, session=session)
    assert one.status == "success", one.error
    assert read(fresh.grant(session, one.activation_id, "m", transport)) == b"kept"
    (info,) = fresh.info().sessions
    assert info.memory == [f"{a.activation_id}/m" for a in (one, two)]
    assert info.memory_bytes == fresh.info().memory_reserved == 128 * KiB
    assert info.memory_gb_s > 0
    fresh.release(session, one.activation_id, "m")
    with pytest.raises(NotFoundError):  # at once, although its bytes may not be back yet
        fresh.grant(session, one.activation_id, "m")
    fresh.release(session, one.activation_id, "m")  # no error
    until(lambda: fresh.info().memory_reserved == 64 * KiB)
    with pytest.raises(NotFoundError):
        fresh.grant(session, one.activation_id, "m")
    fresh.close_session(session)
    assert fresh.info().memory_reserved == 0
    assert fresh.info().sessions == []
    for call in (fresh.close_session, fresh.renew_session):
        with pytest.raises(NotFoundError):
            call(session)


def test_a_lease_that_nobody_renews_runs_out(
    fresh: EmbeddedControlPlane, elements: list[ComputeElement], run: Run
) -> None:
    other = fresh.open_session(lease=3600).id
    session = fresh.open_session(lease=0.2).id
    run(fresh, elements, session=session)
    until(lambda: [s.id for s in fresh.info().sessions] == [other])
    assert fresh.info().memory_reserved == 0


def test_closing_a_session_cancels_its_activations(
    fresh: EmbeddedControlPlane, compute: Compute
) -> None:
    slow = "import time\ndef main(p, a):\n    time.sleep(3600)\n"
    fresh.put_application(Application("slow", [compute("e", slow)]))
    session = fresh.open_session().id
    activation = fresh.invoke("slow", session=session)
    fresh.close_session(session)
    assert fresh.wait(activation, 60).error_kind == "session"


def test_session_memory_needs_a_session(
    fresh: EmbeddedControlPlane, elements: list[ComputeElement], run: Run
) -> None:
    activation = run(fresh, elements)
    assert activation.error_kind == "session"
    assert activation.elements[0].attempts == 0


def test_memory_of_a_failed_application_does_not_stay(
    fresh: EmbeddedControlPlane, compute: Compute, elements: list[ComputeElement], run: Run
) -> None:
    session = fresh.open_session().id
    bad = compute("bad", "def main(p, a):\n    raise ValueError\n", parents=("w",))
    assert run(fresh, [*elements, bad], session=session).status == "failed"
    assert fresh.info().memory_reserved == 0


def test_session_memory_dies_with_the_memory_server(
    fresh: EmbeddedControlPlane, elements: list[ComputeElement], run: Run
) -> None:
    session = fresh.open_session().id
    lost = run(fresh, elements, session=session)
    server = fresh.info().memory_server
    assert server is not None
    os.kill(server, signal.SIGKILL)
    until(lambda: fresh.info().memory_reserved == 0)
    with pytest.raises(MemoryLostError):
        fresh.grant(session, lost.activation_id, "m")
    again = run(fresh, elements, session=session)
    assert read(fresh.grant(session, again.activation_id, "m")) == b"kept"
    fresh.close_session(session)


def test_a_closed_control_plane_says_so(compute: Compute) -> None:
    plane = EmbeddedControlPlane(cores=1, memory=1 << 30)
    slow = "import time\ndef main(p, a):\n    time.sleep(3600)\n"
    plane.put_application(Application("slow", [compute("e", slow)]))
    activation = plane.invoke("slow")
    plane.close()
    plane.close()
    assert plane.wait(activation, 60).status == "cancelled"
    for call in (plane.info, plane.open_session, lambda: plane.invoke("slow")):
        with pytest.raises(ControlPlaneClosedError):
            call()
