"""What goes wrong below the scheduler must not become a wait without end, or an orphan."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from openwhisk.api import Activation
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement
from openwhisk.control import EmbeddedControlPlane
from tests.waiting import until


def test_workers_that_never_say_hello_fail_the_run(
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A module that is imported first of all in the zygote and spoils its workers.
    (tmp_path / "spoils_workers.py").write_text(
        "import os\nimport openwhisk.worker.process as p\np.work = lambda *_: os._exit(7)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    with EmbeddedControlPlane(
        cores=1, memory=1 << 30, preimport=["spoils_workers"], prewarm=0
    ) as plane:
        for _ in range(2):  # and the next is tried anew
            activation = run(plane, [compute("e", "def main(p, a):\n    return {}\n")])
            assert activation.status == "failed"
            assert activation.error_kind == "internal"
            assert "exited with status 7" in (activation.error or "")


def test_workers_prepare_themselves_while_they_wait(
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prepares_workers.py").write_text(
        "import pathlib\n"
        "def prepare_worker(resources):\n"
        "    resources.get('made', lambda: 'early')\n"
        f"    pathlib.Path({str(tmp_path / 'done')!r}).touch()\n"
    )
    (tmp_path / "fails_workers.py").write_text("def prepare_worker(resources):\n    1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code = "def main(p, a):\n    return {'made': a.resource('made', lambda: 'late')}\n"
    modules = ["fails_workers", "prepares_workers", "math"]
    with EmbeddedControlPlane(cores=1, memory=1 << 30, preimport=modules, prewarm=1) as plane:
        until((tmp_path / "done").exists)
        assert run(plane, [compute("e", code)]).result == {"e": {"made": "early"}}


def test_an_element_that_closes_its_sockets_does_not_hang(
    plane: EmbeddedControlPlane,
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
) -> None:
    code = "import os\ndef main(p, a):\n    os.closerange(3, 1000)\n    return {}\n"
    activation = run(plane, [compute("e", code, timeout=5)])
    assert activation.status == "failed"
    assert activation.error_kind in ("lost", "timeout", "aborted")
    assert run(plane, [compute("e", "def main(p, a):\n    return {}\n")]).status == "success"


def test_a_huge_message_is_cut(
    plane: EmbeddedControlPlane,
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
) -> None:
    code = "def main(p, a):\n    raise ValueError('x' * 5_000_000 + chr(0xd800))\n"
    activation = run(plane, [compute("e", code)])
    assert activation.status == "failed"
    assert activation.error is not None
    assert "characters left out" in activation.error
    assert len(activation.error) < 100_000


def test_the_callers_key_is_not_in_an_elements_environment(
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCAD_AUTH", "uuid:key")
    code = "import os\ndef main(p, a):\n    return {'key': os.environ.get('SCAD_AUTH')}\n"
    with EmbeddedControlPlane(cores=1, memory=1 << 30) as plane:
        assert run(plane, [compute("e", code)]).result == {"e": {"key": None}}


def test_an_element_that_hears_first_of_a_dead_memory_server_is_repeated(
    plane: EmbeddedControlPlane,
    compute: Callable[..., ComputeElement],
    run: Callable[..., Activation],
    marker: str,
) -> None:
    code = f"""
import os
from libd.errors import TransportClosedError
def main(p, a):
    if os.path.exists({marker!r}):
        return {{}}
    open({marker!r}, "w").close()
    raise TransportClosedError("the memory server closed the connection")
"""
    activation = run(plane, [compute("e", code)])
    assert activation.status == "success", activation.error
    assert activation.elements[0].attempts == 2
    assert activation.usage.recomputed == ["e[0]"]
    always = code.replace("os.path.exists", "not len")
    activation = run(plane, [compute("e", always)])
    assert (activation.status, activation.error_kind) == ("failed", "lost")
    assert "closed the connection" in (activation.error or "")


CHILD = """
import subprocess, time
def main(p, a):
    child = subprocess.Popen(["sleep", "1000"])
    with open(p["marker"], "w") as file:
        file.write(str(child.pid))
    time.sleep(1000)
"""


def begin(plane: EmbeddedControlPlane, element: ComputeElement, marker: str) -> psutil.Process:
    """Run an element that starts a process; return that process."""
    plane.put_application(Application("parent", [element]), overwrite=True)
    plane.invoke("parent", {"marker": marker})
    path = Path(marker)
    while not path.exists() or not path.read_text():
        time.sleep(0.01)
    return psutil.Process(int(path.read_text()))


def test_what_an_element_started_dies_with_the_control_plane(
    compute: Callable[..., ComputeElement], marker: str
) -> None:
    with EmbeddedControlPlane(cores=1, memory=1 << 30) as plane:
        child = begin(plane, compute("e", CHILD), marker)
    assert gone(child)


def test_what_an_element_started_dies_with_a_killed_zygote(
    compute: Callable[..., ComputeElement], marker: str
) -> None:
    with EmbeddedControlPlane(cores=1, memory=1 << 30, max_attempts=1) as plane:
        child = begin(plane, compute("e", CHILD), marker)
        zygote = child.parents()[1]
        assert "openwhisk.worker.zygote" in zygote.cmdline()
        zygote.kill()
        assert gone(child)


def test_what_an_element_started_dies_with_a_killed_program(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    program = f"""
        import sys
        from openwhisk.app import Application
        from openwhisk.app.model import ComputeElement
        from openwhisk.control import EmbeddedControlPlane
        plane = EmbeddedControlPlane(cores=1, memory=1 << 30)
        plane.put_application(Application("a", [ComputeElement("e", {CHILD!r})]))
        plane.wait(plane.invoke("a", {{"marker": {str(marker)!r}}}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    while (not marker.exists() or not marker.read_text()) and process.poll() is None:
        time.sleep(0.01)
    child = psutil.Process(int(marker.read_text()))
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert gone(child)


def gone(process: psutil.Process) -> bool:
    psutil.wait_procs([process], timeout=10)
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        process.kill()  # not left behind by a failing test
    except psutil.NoSuchProcess:
        return True
    return False
