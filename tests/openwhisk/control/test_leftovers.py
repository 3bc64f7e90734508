"""Nothing outlives a control plane, however it ends."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from openwhisk.api import Activation
from openwhisk.app.model import ComputeElement, MemoryElement
from openwhisk.control import EmbeddedControlPlane

ROOT = Path(__file__).parents[3]

# A program that runs something with memory; what it ends with says who its processes are, at a
# point where it may be interrupted, and goes on.
PROGRAM = """
    import sys, time
    import psutil
    from openwhisk.app import Application
    from openwhisk.app.model import ComputeElement, Corunning, Limits, MemoryElement
    from openwhisk.control import EmbeddedControlPlane

    code = '''
    import time
    def main(params, action):
        t = action.get_transport("m", "rdma")
        t.write_from(0, b"x")
        open(params["marker"], "a").close()
        while params["forever"]:
            time.sleep(3600)
        return {}
    '''
    element = ComputeElement("e", code, corunning={"m": Corunning("m")}, limits=Limits(cpu=0.5))
    app = Application("app", [element, MemoryElement("m", limits=Limits(cpu=0.0, mem=4096))])
    plane = EmbeddedControlPlane(cores=2, memory=1 << 30)
    plane.put_application(app)
    marker = sys.argv[1]
    first = plane.invoke("app", {"marker": marker, "forever": False})
    assert plane.wait(first, 60).status == "success"
    plane.open_session("s")
    activation = plane.invoke("app", {"marker": marker, "forever": True})
    while plane.activation(activation).elements[0].start is None:
        time.sleep(0.01)
    children = psutil.Process().children(recursive=True)
    assert len(children) >= 3, children

    def say():
        print(*(c.pid for c in children), flush=True)
"""


def start(ending: str, marker: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Start the program in a process group of its own, as a shell does; return it with its
    descendants.
    """
    program = textwrap.dedent(PROGRAM) + textwrap.dedent(ending)
    process = subprocess.Popen(
        [sys.executable, "-c", program, marker],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    if len(pids) < 3:
        process.kill()
        pytest.fail(process.communicate()[1])
    children = [psutil.Process(pid) for pid in pids]
    process.stdin.write("\n")
    process.stdin.flush()
    return process, children


def all_gone(processes: list[psutil.Process]) -> bool:
    _, alive = psutil.wait_procs(processes, timeout=30)
    return all(is_gone(p) for p in alive)


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE  # whoever has to reap it is not us
    except psutil.NoSuchProcess:
        return True


def abstract_sockets() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {name for line in lines if (name := line.split()[-1]).startswith("@scad-")}


def test_close_leaves_nothing(
    leftovers: Any, compute: Callable[..., ComputeElement], memory: Callable[..., MemoryElement],
    run: Callable[..., Activation],
) -> None:  # fmt: skip
    code = "def main(p, a):\n    a.get_transport('m').write_from(0, b'x')\n    return {}\n"
    before = abstract_sockets()
    for _ in range(2):
        with EmbeddedControlPlane(cores=2, memory=1 << 30) as plane:
            assert run(plane, [compute("e", code, memory=("m",)), memory("m")]).status == "success"
        leftovers.check()
    with EmbeddedControlPlane(cores=2, memory=1 << 30):
        pass
    leftovers.check()
    mine = {s for s in abstract_sockets() - before if f"-{os.getpid()}-" in s}
    assert not mine


def test_a_forgotten_control_plane_ends(leftovers: Any) -> None:
    plane = EmbeddedControlPlane(cores=1, memory=1 << 30)
    assert plane.info().memory == 1 << 30
    del plane
    gc.collect()
    leftovers.check()


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_killed_program(marker: str, signal_: signal.Signals) -> None:
    process, children = start("say(); plane.wait(activation)", marker)
    process.send_signal(signal_)
    process.communicate(timeout=60)
    assert process.returncode == -signal_
    assert all_gone(children)


def test_ctrl_c_cleans_up(marker: str) -> None:
    ending = """
        try:
            with plane:
                say()
                plane.wait(activation)
        except KeyboardInterrupt:
            left = psutil.Process().children(recursive=True)
            print("left", left, plane.activation(activation).status)
    """
    process, children = start(ending, marker)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out.strip() == "left [] cancelled", err
    assert err == ""
    assert process.returncode == 0
    assert all_gone(children)


def test_forgetting_to_close_is_made_up_for_at_exit(marker: str) -> None:
    process, children = start("say(); sys.stdin.readline()", marker)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "", "")
    assert all_gone(children)


def test_a_fork_of_the_owner_does_not_end_it(marker: str) -> None:
    ending = """
        import os
        say()
        sys.stdin.readline()  # until somebody has taken note of its children
        pid = os.fork()
        if pid == 0:
            plane.close()
            os._exit(0)
        os.waitpid(pid, 0)
        assert plane.info().activations == 1
        plane.close()
    """
    process, children = start(ending, marker)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert all_gone(children)
