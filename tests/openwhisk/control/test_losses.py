"""Killed workers, memory servers and zygotes: the answer is right all the same."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.control import EmbeddedControlPlane

Compute = Callable[..., ComputeElement]
Memory = Callable[..., MemoryElement]
Run = Callable[..., Activation]

DIE_ONCE = """
import os, signal
def die_once(marker):
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)
"""
# Writers append to what they find, so that memory that is not fresh would show.
WRITE = (
    DIE_ONCE
    + """
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.reg(1)
    t.read(1, addr=action.index, offset=0)
    t.buf[0:1] = bytes([t.buf[0:1][0] + action.index + 1])
    t.write(1, addr=action.index, offset=0)
    if action.index == params["victim"]:
        die_once(params["marker"])
    return {"params": params}
"""
)
READ = (
    DIE_ONCE
    + """
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.reg(3)
    t.read(3, addr=0, offset=0)
    given = params["w"][0]["params"]
    if given["victim"] == "reader":
        die_once(given["marker"])
    return {"sum": sum(bytes(t.buf[0:3]))}
"""
)


@pytest.fixture
def fresh() -> Iterator[EmbeddedControlPlane]:
    """A control plane of the test's own."""
    with EmbeddedControlPlane(cores=4, memory=2 << 30) as plane:
        yield plane


def attempts(activation: Activation) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for element in activation.elements:
        found.setdefault(element.name, []).append(element.attempts)
    return found


@pytest.mark.parametrize(
    ("access", "victim", "expected"),
    [
        ("exchange", 1, {"w": [1, 2, 1], "r": [1]}),
        ("exchange", "reader", {"w": [1, 1, 1], "r": [2]}),
        ("shared", 1, {"w": [2, 2, 2], "r": [1]}),
        ("shared", "reader", {"w": [2, 2, 2], "r": [2]}),
    ],
)
def test_a_killed_worker(
    plane: EmbeddedControlPlane,
    compute: Compute,
    memory: Memory,
    run: Run,
    marker: str,
    access: str,
    victim: int | str,
    expected: dict[str, list[int]],
) -> None:
    write = WRITE if access == "shared" else WRITE.replace("t.buf[0:1][0] + ", "")
    activation = run(
        plane,
        [
            compute("w", write, memory=("m",), parallelism=3),
            compute("r", READ, parents=("w",), memory=("m",)),
            memory("m", access=access),
        ],
        {"victim": victim, "marker": marker},
    )
    assert activation.status == "success", activation.error
    assert activation.result == {"r": {"sum": 6}}
    assert attempts(activation) == expected
    assert len(activation.usage.recomputed) == sum(n - 1 for ns in expected.values() for n in ns)
    assert {e.error for e in activation.elements} == {None}
    assert plane.info().memory_reserved == 0


def test_an_element_that_always_dies_fails_the_application(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    code = "import os\ndef main(p, a):\n    os._exit(7)\n"
    activation = run(plane, [compute("e", code)])
    assert activation.status == "failed"
    assert activation.error_kind == "lost"
    assert activation.elements[0].attempts == 3
    assert "exited with status 7" in (activation.error or "")


def test_an_element_that_aborts_is_not_tried_again(
    plane: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    code = "import os\ndef main(p, a):\n    os.abort()\n"
    activation = run(plane, [compute("e", code)])
    assert activation.status == "failed"
    assert activation.error_kind == "aborted"
    assert activation.elements[0].attempts == 1
    assert "limits.mem" in (activation.error or "")
    assert plane.info().memory_reserved == 0


def test_a_killed_memory_server_between_steps(
    fresh: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run, marker: str
) -> None:
    first = "def main(params, action):\n    return params\n"
    write = """
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.write_from(0, b"answer")
    return {**params["first"][0]}
"""
    kill = """
import os, signal
def main(params, action):
    given = params["w"][0]
    try:
        os.close(os.open(given["marker"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return {}
    os.kill(given["server"], signal.SIGKILL)
    return {}
"""
    read = """
def main(params, action):
    t = action.get_transport("m", "rdma")
    out = bytearray(6)
    t.read_into(0, out)
    return {"got": out.decode()}
"""
    elements = [
        compute("first", first),
        compute("w", write, parents=("first",), memory=("m",)),
        compute("k", kill, parents=("w",)),
        compute("r", read, parents=("k", "w"), memory=("m",)),
        memory("m", access="exchange"),
    ]
    warm = run(fresh, elements, {"server": 0, "marker": os.devnull})
    assert warm.result == {"r": {"got": "answer"}}
    server = fresh.info().memory_server
    assert server is not None
    activation = run(fresh, elements, {"server": server, "marker": marker})
    assert activation.status == "success", activation.error
    assert activation.result == {"r": {"got": "answer"}}
    counts = attempts(activation)
    assert counts["first"] == [1], "what did not touch the memory is not recomputed"
    assert counts["w"] == [2]
    assert fresh.info().memory_server not in (None, server)
    assert fresh.info().memory_reserved == 0


def test_a_memory_server_killed_under_a_running_gang(
    fresh: EmbeddedControlPlane, compute: Compute, memory: Memory, run: Run, marker: str
) -> None:
    code = """
import os, signal, time
def main(params, action):
    t = action.get_transport("m", "rdma")
    t.reg(2)
    t.buf[0:1] = b"x"
    t.write(1, addr=action.index, offset=0)
    if action.index == 0 and params["server"]:
        try:
            os.close(os.open(params["marker"], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            pass
        else:
            os.kill(params["server"], signal.SIGKILL)
            time.sleep(3600)
    while bytes(t.buf[0:2]) != b"xx":
        t.read(2, addr=0, offset=0)
        time.sleep(0.001)
    return {}
"""
    elements = [compute("e", code, memory=("m",), parallelism=2), memory("m")]
    assert run(fresh, elements, {"server": 0}).status == "success"
    activation = run(fresh, elements, {"server": fresh.info().memory_server, "marker": marker})
    assert activation.status == "success", activation.error
    assert attempts(activation) == {"e": [2, 2]}


def test_a_killed_zygote(
    fresh: EmbeddedControlPlane, compute: Compute, run: Run, marker: str
) -> None:
    code = """
import os, signal, time
def main(params, action):
    try:
        os.close(os.open(params["marker"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return {"parent": os.getppid()}
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(3600)
"""
    activation = run(fresh, [compute("e", code)], {"marker": marker})
    assert activation.status == "success", activation.error
    assert attempts(activation) == {"e": [2]}
    zygote = psutil.Process(activation.result["e"]["parent"])
    assert zygote.ppid() == os.getpid()


def test_a_zygote_that_cannot_start_fails_what_waits_for_it(
    compute: Compute, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> None:
    # A module that ends the process instead of being imported.
    folder = tmp_path_factory.mktemp("poison")
    (folder / "poison_module.py").write_text("import os\nos._exit(3)\n")
    import sys

    sys.path.insert(0, str(folder))
    try:
        with EmbeddedControlPlane(cores=1, memory=1 << 30, preimport=("poison_module",)) as plane:
            activation = run(plane, [compute("e", "def main(p, a):\n    return {}\n")])
    finally:
        sys.path.remove(str(folder))
    assert activation.error_kind == "internal"
    assert "exited with status 3" in (activation.error or "")


def test_what_an_element_started_goes_with_its_worker(
    plane: EmbeddedControlPlane, compute: Compute, marker: str
) -> None:
    code = """
import subprocess
def main(params, action):
    child = subprocess.Popen(["sleep", "3600"])
    with open(params["marker"], "w") as file:
        file.write(str(child.pid))
    child.wait()
"""
    plane.put_application(Application("app", [compute("e", code, timeout=3.0)]), overwrite=True)
    activation = plane.wait(plane.invoke("app", {"marker": marker}), 60)
    assert activation.error_kind == "timeout"
    with open(marker) as file:
        child = int(file.read())
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(child)
        psutil.wait_procs([process], timeout=10)
        assert process.status() == psutil.STATUS_ZOMBIE


def test_an_idle_worker_that_is_killed_is_not_missed(
    fresh: EmbeddedControlPlane, compute: Compute, run: Run
) -> None:
    who = "import os\ndef main(p, a):\n    return {'pid': os.getpid()}\n"
    for _ in range(3):
        pid = run(fresh, [compute("e", who)]).result["e"]["pid"]
        os.kill(pid, signal.SIGKILL)
        activation = run(fresh, [compute("e", who)])
        assert activation.status == "success", activation.error
        assert activation.result["e"]["pid"] != pid


def test_workers_that_nobody_needs_end(compute: Compute, run: Run) -> None:
    nap = "import time\ndef main(p, a):\n    time.sleep(0.3)\n    return {}\n"
    with EmbeddedControlPlane(cores=4, memory=4 << 30, prewarm=1, patience=0.5) as plane:
        assert run(plane, [compute("e", nap, parallelism=3)]).status == "success"
        assert plane.info().workers >= 2, "copies ran side by side"
        until = time.monotonic() + 30
        while plane.info().workers > 1 and time.monotonic() < until:
            time.sleep(0.05)
        info = plane.info()
        assert (info.workers, info.idle_workers) == (1, 1)
        assert run(plane, [compute("e", nap)]).status == "success"
