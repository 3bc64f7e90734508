"""What is promised on this machine, by whichever server: `ledger.c`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from libd import CapacityError, LibdAction, MemoryServer, MemoryServerProcess, ServerControl, _core
from tests.waiting import until

MB = 1 << 20
SECRET = "the administrator's"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A ledger of the test's own: nobody else on this machine is refused what it promises."""
    monkeypatch.setenv("LIBD_LEDGER", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def share(of: float) -> int:
    return int(_core.available_memory() * of) // 4096 * 4096


def promise(process: MemoryServerProcess, size: int) -> None:
    control = process.control
    control.create_element(control.create_tenant(f"t{size}", size), "m", size)


def test_two_servers_do_not_promise_the_same_memory() -> None:
    size = share(0.6)
    with MemoryServerProcess(size) as first, MemoryServerProcess(size) as second:
        promise(first, size)
        with pytest.raises(CapacityError, match="this machine"):
            promise(second, size)
        promise(second, share(0.1))
        assert first.control.stats().undrawn == size
        stats = second.control.stats()
        assert stats.undrawn_elsewhere == size
        assert stats.ledger


def test_what_a_killed_server_promised_is_free() -> None:
    size = share(0.6)
    with MemoryServerProcess(size) as first, MemoryServerProcess(size) as second:
        promise(first, size)
        with pytest.raises(CapacityError):
            promise(second, size)
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: not first.alive())
        promise(second, size - 4096)
        assert second.control.stats().undrawn_elsewhere == 0


def test_a_server_that_is_stopped_for_a_while_keeps_its_promises_and_nobody_waiting() -> None:
    size = share(0.6)
    with MemoryServerProcess(size) as first, MemoryServerProcess(size) as second:
        promise(first, size)
        os.kill(first.pid, signal.SIGSTOP)
        try:
            with pytest.raises(CapacityError):
                promise(second, size)
        finally:
            os.kill(first.pid, signal.SIGCONT)


def test_what_is_in_use_is_promised_no_more() -> None:
    """The machine's own figures have it by then: it must not count twice."""
    with MemoryServerProcess(64 * MB) as first, MemoryServerProcess(64 * MB) as second:
        control = first.control
        grant = control.create_element(control.create_tenant("t", 64 * MB), "m", 64 * MB)
        assert second.control.stats().undrawn_elsewhere == 64 * MB
        with LibdAction("a", [grant.durl("m", "rdma_tcp")]) as action:
            action.get_transport("m").write_from(0, bytes(48 * MB))
        until(lambda: second.control.stats().undrawn_elsewhere == 16 * MB)
        with LibdAction("a", [grant.durl("m", "rdma_shm")]) as action:
            action.get_transport("m").write_from(48 * MB, bytes(16 * MB))
            until(lambda: second.control.stats().undrawn_elsewhere == 0)
        control.drop_tenant("t")


def test_servers_in_one_process() -> None:
    size = share(0.6)
    with ExitStack() as stack:
        controls = []
        for _ in range(2):
            server = MemoryServer(size, admin_token=SECRET)
            stack.callback(server.stop)
            control = ServerControl(server.tcp_url or "", SECRET)
            stack.callback(control.close)
            controls.append(control)
        controls[0].create_element(controls[0].create_tenant("t", size), "m", size)
        tenant = controls[1].create_tenant("t", size)
        with pytest.raises(CapacityError, match="this machine"):
            controls[1].create_element(tenant, "m", size)
        controls[0].drop_tenant("t")
        controls[1].create_element(tenant, "m", size)


def test_elements_of_this_process_count() -> None:
    size = share(0.6)
    with MemoryServerProcess(size) as process:
        with LibdAction("a", [f"m;rdma_local;size,{size};"]) as action:
            action.get_transport("m")
            with pytest.raises(CapacityError, match="this machine"):
                promise(process, size)
        until(lambda: process.control.stats().undrawn_elsewhere == 0)
        promise(process, size - 4096)
        with (
            pytest.raises(CapacityError),
            LibdAction("a", [f"m;rdma_local;size,{size};"]) as action,
        ):
            action.get_transport("m")


def test_used_elements_of_this_process_do_not_count_twice() -> None:
    with (
        MemoryServerProcess(64 * MB) as process,
        LibdAction("a", [f"m;rdma_local;size,{256 * MB};"]) as action,
    ):
        trans = action.get_transport("m")
        # What else the process took meanwhile counts as drawn.
        elsewhere = process.control.stats().undrawn_elsewhere
        assert 250 * MB < elsewhere <= 256 * MB
        for at in range(0, 256 * MB, 16 * MB):
            trans.write_from(at, b"x" * (16 * MB))
        assert process.control.stats().undrawn_elsewhere <= 16 * MB


def test_a_child_of_fork_does_not_keep_what_its_parent_promised() -> None:
    """Locks of an open file would live on in the child."""
    program = f"""
import os, time
from libd import MemoryServer, ServerControl
server = MemoryServer({64 * MB}, admin_token="x")
control = ServerControl(server.tcp_url, "x")
control.create_element(control.create_tenant("t", {64 * MB}), "m", {64 * MB})
child = os.fork()
if child == 0:
    server.stop()
    print("forked", flush=True)
    os.read(0, 1)
    os._exit(0)
time.sleep(100)
"""
    with (
        MemoryServerProcess(64 * MB) as witness,
        subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as parent,
    ):
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"forked\n"
        assert witness.control.stats().undrawn_elsewhere == 64 * MB
        parent.kill()
        parent.wait()
        assert witness.control.stats().undrawn_elsewhere == 0


@pytest.mark.parametrize("end", ["pass", "sys.exit(1)", "os.fork() or time.sleep(0.1)"])
def test_a_program_that_closes_nothing_leaves_nothing(folder: Path, end: str) -> None:
    program = f"""
import os, sys, time
from libd import LibdAction, MemoryServer
action = LibdAction("a", ["m;rdma_local;size,65536;"])
trans = action.get_transport("m")
server = MemoryServer({MB}, default_region={MB})
assert os.listdir({str(folder)!r})
sys.modules["kept"] = action, trans, server  # never collected
import ctypes
ctypes.pythonapi.Py_IncRef(ctypes.py_object(trans))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(action))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(server))
{end}
"""
    subprocess.run([sys.executable, "-c", program], timeout=60)
    until(lambda: list(folder.iterdir()) == [])


def test_who_comes_next_takes_the_place_of_a_dead_one(folder: Path) -> None:
    with MemoryServerProcess(MB) as first:
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: not first.alive())
        (file,) = folder.iterdir()
        assert file.stat().st_mode & 0o777 == 0o600
        for _ in range(3):  # the last one out removes it, whoever made it
            with MemoryServerProcess(MB) as next_one:
                promise(next_one, MB)
            assert not file.exists()


@pytest.mark.parametrize("obstacle", ["nothing", "folder", "others", "link", "foreign"])
def test_where_no_ledger_can_be(
    folder: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    place = folder / f"libd-ledger-{os.geteuid()}"
    elsewhere = folder.parent / "elsewhere"
    if obstacle == "nothing":
        monkeypatch.setenv("LIBD_LEDGER", str(folder / "nowhere"))
    elif obstacle == "folder":
        place.mkdir()
    elif obstacle == "others":
        place.touch()
        place.chmod(0o666)
    elif obstacle == "link":
        elsewhere.touch()
        place.symlink_to(elsewhere)
    else:
        if os.geteuid() != 0:
            pytest.skip("only root gives files away")
        place.touch(0o600)
        os.chown(place, 65534, 65534)
    with MemoryServerProcess(MB) as process:
        promise(process, MB)
        stats = process.control.stats()
        assert not stats.ledger
        assert (stats.undrawn, stats.undrawn_elsewhere) == (MB, 0)
    if obstacle == "folder":
        place.rmdir()
    elif obstacle != "nothing":
        place.unlink()
    elsewhere.unlink(missing_ok=True)


def test_many_come_and_go_at_once(folder: Path) -> None:
    program = """
from libd import LibdAction
for i in range(200):
    with LibdAction("a", ["m;rdma_local;size,65536;"]) as action:
        action.get_transport("m").write_from(0, b"x")
"""
    crowd = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(6)]
    assert [one.wait(60) for one in crowd] == [0] * 6


def test_promises_at_once_are_never_more_than_there_is() -> None:
    """Each asks for a bit more than a third: two may have it, never three."""
    size = share(0.36)
    with ExitStack() as stack:
        servers = [stack.enter_context(MemoryServerProcess(size)) for _ in range(3)]
        pool = stack.enter_context(ThreadPoolExecutor(len(servers)))
        for _ in range(20):
            tenants = [s.control.create_tenant("t", size) for s in servers]
            asked = [
                pool.submit(s.control.create_element, tenant, "m", size)
                for s, tenant in zip(servers, tenants, strict=True)
            ]
            refused = [str(error) for one in asked if (error := one.exception(60))]
            assert 1 <= len(refused) <= 2
            assert all("this machine" in text for text in refused)
            for server in servers:
                server.control.drop_tenant("t")
