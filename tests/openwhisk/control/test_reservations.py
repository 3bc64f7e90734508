"""What elements reserve follows what they hold: real processes, real memory."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from openwhisk.api import Activation, ElementRecord
from openwhisk.app import Application
from openwhisk.app.model import ComputeElement
from openwhisk.control import EmbeddedControlPlane
from tests.waiting import until

MiB = 1 << 20
Compute = Callable[..., ComputeElement]
Run = Callable[..., Activation]

# Holds some memory, says so by a file, and keeps it until another file is there; at last it may
# hold more.
HOLD = """
import os, time
def main(params, action):
    held = bytearray(params["before"] << 20)
    name = f"{params['folder']}/{action.name}"
    open(name, "x").close() if not os.path.exists(name) else None
    while not os.path.exists(params["folder"] + "/go"):
        time.sleep(0.005)
    parts = []
    for _ in range(params["more"] // 8):
        parts.append(bytearray(8 << 20))
        time.sleep(0.002)
    kept = sum(len(p) for p in parts) + len(held)
    open(name + ".full", "w").close()
    while not os.path.exists(f"{params['folder']}/end"):
        time.sleep(0.005)
    return {"held": kept >> 20}
"""


@pytest.fixture
def small() -> Iterator[EmbeddedControlPlane]:
    """A control plane with room for one element of 500 MiB and some of another."""
    with EmbeddedControlPlane(cores=4, memory=800 * MiB) as plane:
        yield plane


def begin(plane: EmbeddedControlPlane, name: str, code: str, params: Any, mem: int) -> str:
    from openwhisk.app.model import Limits

    element = ComputeElement(name, code, limits=Limits(cpu=0.5, mem=mem, timeout=60.0))
    plane.put_application(Application(name, [element]), overwrite=True)
    return plane.invoke(name, params)


def element(plane: EmbeddedControlPlane, activation: str) -> ElementRecord:
    return plane.activation(activation).elements[0]


def reserved(plane: EmbeddedControlPlane, activation: str) -> int:
    found = element(plane, activation).reserved
    return found[-1][1] if found else 0


def paused(plane: EmbeddedControlPlane) -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [p for p in children if p.is_running() and p.status() == psutil.STATUS_STOPPED]


def held(activation: Activation) -> int:
    """What `HOLD` says."""
    assert activation.status == "success", activation.error
    return int(activation.result[activation.name]["held"])


def params(folder: Path, before: int, more: int = 0) -> dict[str, Any]:
    return {"folder": str(folder), "before": before, "more": more}


def test_an_element_reserves_what_it_holds_and_gives_it_back(
    small: EmbeddedControlPlane, tmp_path: Path
) -> None:
    code = """
import os, time
def wait(name):
    while not os.path.exists(name):
        time.sleep(0.005)
def main(params, action):
    folder = params["folder"]
    wait(folder + "/grow")
    held = bytearray(b"x") * (300 << 20)
    wait(folder + "/shrink")
    del held
    wait(folder + "/end")
    return {}
"""
    a = begin(small, "a", code, {"folder": str(tmp_path)}, 600 * MiB)
    until(lambda: reserved(small, a))
    assert reserved(small, a) < 300 * MiB
    (tmp_path / "grow").touch()
    until(lambda: 300 * MiB < reserved(small, a) < 500 * MiB)
    # What is reserved ahead still follows what was measured, so that two readings can differ.
    until(lambda: small.info().memory_reserved == reserved(small, a) > 300 * MiB)
    (tmp_path / "shrink").touch()
    until(lambda: reserved(small, a) < 250 * MiB)
    (tmp_path / "end").touch()
    final = small.wait(a, 30)
    assert final.status == "success"
    record = final.elements[0]
    assert record.end is not None
    assert record.start is not None
    assert final.usage.compute_gb_s < 600 * MiB * (record.end - record.start) / 1e9
    assert 300 * MiB < final.usage.peak_compute_bytes < 600 * MiB
    assert small.info().memory_reserved == 0


def test_what_workers_share_with_their_zygote_counts_once() -> None:
    with EmbeddedControlPlane(cores=4, memory=800 * MiB, prewarm=4, preimport=["pyarrow"]) as plane:
        until(lambda: plane.info().idle_workers == 4)
        (zygote,) = (p for p in psutil.Process().children() if len(p.children()) == 4)
        each = [_smaps(p.pid) for p in (zygote, *zygote.children())]
        proportional = sum(e["Pss_Anon"] for e in each)
        assert proportional <= plane.info().warm_bytes < sum(e["Anonymous"] for e in each) / 2


def _smaps(pid: int) -> dict[str, int]:
    """Bytes that a process has, by kind."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) << 10 for line in lines}


def test_others_have_what_an_element_does_not_hold(
    small: EmbeddedControlPlane, tmp_path: Path
) -> None:
    (tmp_path / "end").touch()
    a = begin(small, "a", HOLD, params(tmp_path, 250), 600 * MiB)
    until((tmp_path / "a").exists)
    until(lambda: reserved(small, a) > 250 * MiB)
    b = begin(small, "b", HOLD, params(tmp_path, 150), 400 * MiB)
    until((tmp_path / "b").exists)  # beside it, although there is no room for both limits
    (tmp_path / "go").touch()
    assert [held(small.wait(x, 30)) for x in (a, b)] == [250, 150]


def both_want_more(small: EmbeddedControlPlane, tmp_path: Path) -> tuple[str, str]:
    """Two elements that together want more than there is: the elder has all that it wants, the
    younger is stopped.
    """
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    a = begin(small, "a", HOLD, params(first, 8, 240), 320 * MiB)
    until((first / "a").exists)
    b = begin(small, "b", HOLD, params(second, 100, 400), 620 * MiB)
    until((second / "b").exists)
    (first / "go").touch()
    until((first / "a.full").exists)
    # 248 and two thirds of what is reserved ahead: then it asks for no more.
    until(lambda: reserved(small, a) > (248 + 21) * MiB)
    (second / "go").touch()
    until(lambda: paused(small))
    return a, b


def end(tmp_path: Path) -> None:
    """Let both come to their end."""
    for name in ("first", "second"):
        (tmp_path / name / "end").touch()


def test_one_is_stopped_while_the_other_goes_on(
    small: EmbeddedControlPlane, tmp_path: Path
) -> None:
    a, b = both_want_more(small, tmp_path)
    assert small.info().memory_reserved <= 800 * MiB
    assert not (tmp_path / "second" / "b.full").exists()
    end(tmp_path)
    first, second = small.wait(a, 30), small.wait(b, 30)
    assert (held(first), held(second)) == (248, 500)
    assert second.elements[0].paused_seconds > 0.0
    assert not second.usage.recomputed
    assert not paused(small)


@pytest.mark.parametrize("how", ["cancel", "kill", "close"])
def test_a_stopped_element_can_be_ended(tmp_path: Path, leftovers: Any, how: str) -> None:
    with EmbeddedControlPlane(cores=4, memory=800 * MiB) as small:
        a, b = both_want_more(small, tmp_path)
        (victim,) = paused(small)
        if how == "cancel":
            small.cancel(b)
            assert small.wait(b, 30).status == "cancelled"
            end(tmp_path)
        elif how == "kill":
            os.kill(victim.pid, signal.SIGKILL)
            end(tmp_path)
            ended = small.wait(b, 30)
            assert ended.status == "success"
            assert ended.usage.recomputed == ["b[0]"]
        if how != "close":
            assert small.wait(a, 30).status == "success"
            assert small.info().memory_reserved == 0
    # Init may take its time to collect one that it inherited.
    assert not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE
    leftovers.check()


def test_where_both_are_stopped_the_younger_yields_and_is_repeated(
    small: EmbeddedControlPlane, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    a = begin(small, "a", HOLD, params(first, 150, 400), 640 * MiB)
    until((first / "a").exists)
    until(lambda: reserved(small, a) > 150 * MiB)
    b = begin(small, "b", HOLD, params(second, 200, 230), 500 * MiB)
    until((second / "b").exists)
    until(lambda: reserved(small, b) > 200 * MiB)
    (first / "go").touch()
    until(lambda: paused(small))
    (second / "go").touch()
    until((first / "a.full").exists)
    (first / "end").touch()
    (second / "end").touch()
    ended = [small.wait(x, 30) for x in (a, b)]
    assert [held(x) for x in ended] == [550, 424]
    assert [x.usage.recomputed for x in ended] == [[], ["b[0]"]], "the oldest never yields"
    assert ended[1].elements[0].attempts == 2
    assert ended[1].elements[0].reserved == [(0.0, 500 * MiB)], "all of it at once"
    assert small.info().memory_reserved == 0


def test_many_that_grow_at_once_all_end(small: EmbeddedControlPlane, tmp_path: Path) -> None:
    ids = [begin(small, f"e{i}", HOLD, params(tmp_path, 8, 40 * i), 450 * MiB) for i in range(8)]
    over = threading.Event()
    highest = [0]

    def watch() -> None:
        while not over.wait(0.001):
            highest[0] = max(highest[0], small.info().memory_reserved)

    watcher = threading.Thread(target=watch)
    watcher.start()
    (tmp_path / "go").touch()
    (tmp_path / "end").touch()
    ended = [small.wait(x, 60) for x in ids]
    over.set()
    watcher.join()
    assert [x.status for x in ended] == ["success"] * 8
    assert highest[0] <= 800 * MiB
    assert small.info().memory_reserved == 0
