"""Local memory that the device may reach: what is registered, for how long, and what is copied."""

from __future__ import annotations

import ctypes
import gc
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libd import CapacityError, LibdAction, MemoryServer, Transport, TransportClosedError

Stand = Any  # conftest.py's
MIB = 1 << 20
DATA = np.random.default_rng(3).integers(0, 256, 32 * MIB, dtype=np.uint8)


@pytest.fixture
def trans(stand: Stand) -> Transport:
    made: Transport = stand.open(
        stand.control.create_element(stand.tenant(64 * MIB), "m", 32 * MIB), "uverbs"
    )
    made.write_from(0, DATA)
    gc.collect()
    return made


def counts(trans: Transport) -> tuple[int, int, int, int]:
    """made, used, passing, staged"""
    r = trans.registrations
    assert r is not None
    return r.made, r.used, r.passing, r.staged


def since(before: tuple[int, ...], trans: Transport) -> tuple[int, ...]:
    return tuple(now - then for now, then in zip(counts(trans), before, strict=True))


def expected(size: int, addr: int = 0) -> np.ndarray:
    return DATA[addr : addr + size]


def live(trans: Transport) -> int:
    r = trans.registrations
    assert r is not None
    return r.live


def test_other_transports_have_none(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 4096)
    assert stand.open(grant, "tcp").registrations is None


def test_a_registered_buffer_is_registered_once_and_for_its_life(trans: Transport) -> None:
    alive, before = live(trans), counts(trans)
    trans.reg(MIB)
    for _ in range(3):
        trans.read(8)
        trans.read(MIB)
        trans.read_into(0, trans.buf[100:200])
        trans.submit(reads=[(0, trans.buf[0:64]), (64, trans.buf[64:128])]).wait()
    assert since(before, trans) == (1, 15, 0, 0)
    np.testing.assert_array_equal(np.frombuffer(trans.buf, np.uint8)[200:], expected(MIB)[200:])
    assert live(trans) == alive + 1
    trans.reg(8)
    gc.collect()
    assert live(trans) == alive


def test_an_array_is_registered_until_it_is_collected(trans: Transport) -> None:
    alive, before = live(trans), counts(trans)
    array = np.zeros(MIB, np.uint8)
    for _ in range(3):
        trans.read_into(0, array)
        trans.read_into(0, array[MIB // 2 :])
        trans.read_into(0, memoryview(array.view(np.uint64).reshape(2, -1))[1:])
    assert since(before, trans) == (1, 9, 0, 0)
    assert live(trans) == alive + 1
    view = array[10:]
    del array
    gc.collect()
    assert live(trans) == alive + 1  # the view keeps its memory
    del view
    assert live(trans) == alive


def test_transports_share_registrations(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", MIB)
    one, two = stand.open(grant, "uverbs"), stand.open(grant, "uverbs")
    array = np.ones(MIB, np.uint8)
    one.write_from(0, array)
    before = counts(two)
    two.read_into(0, array)
    assert since(before, two) == (0, 1, 0, 0)
    one.close()
    two.read_into(0, array)
    assert since(before, two) == (0, 2, 0, 0)


def test_memory_that_is_used_again_is_registered_again(trans: Transport) -> None:
    """The addresses of arrays that are gone come back with other pages behind them."""
    before = counts(trans)
    seen: set[int] = set()
    made = 0
    # A sanitizer's allocator keeps hundreds of MB before it gives an address again.
    while made < 12 or (len(seen) == made and made < 200):
        i = made % 12
        array = np.zeros(4 * MIB, np.uint8)
        seen.add(array.ctypes.data)
        trans.read_into(i, array)
        np.testing.assert_array_equal(array, expected(4 * MIB, i))
        del array
        made += 1
    assert since(before, trans)[0] == made
    assert len(seen) < made, "no address came back: the test shows nothing"


def test_an_array_that_is_registered_cannot_be_moved(trans: Transport) -> None:
    array = np.zeros(MIB, np.uint8)
    array.resize(2 * MIB, refcheck=False)
    trans.read_into(5, array)
    with pytest.raises(ValueError, match="resize"):
        array.resize(4 * MIB, refcheck=False)
    np.testing.assert_array_equal(array, expected(2 * MIB, 5))


def test_what_may_change_under_its_address_is_registered_for_one_transfer(
    trans: Transport,
) -> None:
    alive, before = live(trans), counts(trans)
    for i in range(4):
        with mmap.mmap(-1, MIB) as mapping:
            trans.read_into(i, mapping)
            assert mapping[:] == expected(MIB, i).tobytes()
    growing = bytearray(MIB)
    for i in range(4):
        trans.read_into(i, growing)
        assert growing == expected(len(growing), i).tobytes()
        growing.extend(bytes(MIB))
    foreign = (ctypes.c_char * MIB)()
    trans.read_into(0, foreign)
    array = np.frombuffer(foreign, np.uint8)
    trans.read_into(0, array.reshape(-1).view())
    trans.write_from(0, bytes(MIB))
    assert since(before, trans) == (0, 0, 11, 0)
    assert live(trans) == alive


def test_short_transfers_are_copied(trans: Transport) -> None:
    before = counts(trans)
    out = bytearray(65536)
    trans.read_into(1, out)
    assert out == expected(65536, 1).tobytes()
    array = np.zeros(8192, np.uint8)
    trans.read_into(0, array)
    np.testing.assert_array_equal(array, expected(8192))
    trans.writev([(i * 10, bytes([i])) for i in range(100)])
    assert since(before, trans) == (0, 0, 0, 102)


def test_more_copies_than_there_is_room_for(trans: Transport) -> None:
    outs = [bytearray(60000 + i) for i in range(64)]
    trans.submit(reads=[(i * 100, out) for i, out in enumerate(outs)]).wait()
    for i, out in enumerate(outs):
        assert out == expected(len(out), i * 100).tobytes()


def test_a_little_of_a_large_array_does_not_pin_all_of_it(trans: Transport) -> None:
    before = counts(trans)
    large = np.empty(64 * MIB, np.uint8)
    trans.read_into(0, large[:MIB])
    assert since(before, trans) == (0, 0, 1, 0)
    trans.read_into(0, large[: 16 * MIB])
    assert since(before, trans) == (1, 1, 1, 0)
    trans.read_into(3, large[32 * MIB : 33 * MIB])
    np.testing.assert_array_equal(large[32 * MIB : 33 * MIB], expected(MIB, 3))


def test_arrow_buffers(trans: Transport) -> None:
    arrow = pytest.importorskip("pyarrow")
    alive, before = live(trans), counts(trans)
    buffer = arrow.allocate_buffer(MIB)
    trans.read_into(0, buffer)
    trans.read_into(0, np.frombuffer(buffer, np.uint8)[: MIB // 2])
    made, used, passing, _ = since(before, trans)
    assert (made + passing, used + passing) == (made + passing, 2)
    assert bytes(buffer) == expected(MIB).tobytes()
    del buffer
    gc.collect()
    assert live(trans) == alive


def test_read_only_memory_can_be_written_from(trans: Transport, tmp_path: Path) -> None:
    array = np.arange(MIB // 8)
    array.flags.writeable = False
    trans.write_from(0, array)
    out = np.empty_like(array)
    trans.read_into(0, out)
    np.testing.assert_array_equal(out, array)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(MIB))
    with path.open("rb") as file:
        with mmap.mmap(file.fileno(), MIB, prot=mmap.PROT_READ) as mapping:
            trans.write_from(0, mapping)
            back = bytearray(MIB)
            trans.read_into(0, back)
            assert back == mapping[:]


def test_a_child_of_fork_leaves_its_parents_device_alone(trans: Transport) -> None:
    array = np.zeros(MIB, np.uint8)
    trans.read_into(0, array)
    trans.reg(MIB)
    trans.read(MIB)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            trans.read(8)
        except TransportClosedError as error:
            status = 0 if "parent" in str(error) else 2
        del array
        trans.reg(8)
        trans.close()
        del trans
        gc.collect()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    array[:] = 0
    trans.read_into(0, array)
    np.testing.assert_array_equal(array, expected(MIB))
    trans.read(MIB)
    assert bytes(trans.buf) == expected(MIB).tobytes()


def test_a_child_of_fork_counts_what_was(trans: Transport) -> None:
    """Also while a thread of the parent, which the child does not have, is in a transfer."""
    array = np.zeros(MIB, np.uint8)
    trans.read_into(0, array)
    before = counts(trans)
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            trans.read_into(0, bytearray(8))

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(20):
            pid = os.fork()
            if pid == 0:
                os._exit(counts(trans)[:3] != before[:3])
            deadline = time.monotonic() + 30
            while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
                time.sleep(0.01)
            if ended == (0, 0):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            assert ended == (pid, 0)
    finally:
        stop.set()
        thread.join()


def test_a_server_that_may_lock_too_little(pair: Any) -> None:
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "16 MB", "--json"]
    limited = ["setpriv", "--bounding-set=-ipc_lock", "prlimit", "--memlock=1048576"]
    process = subprocess.Popen(
        [*limited, *command, "--rdma", pair[0].device], stdout=subprocess.PIPE, text=True
    )
    with process, LibdAction() as action:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["tcp_url"]
        action.add_transport(f"m;rdma_uverbs;url,{url};device,{pair[1].device};")
        trans = action.get_transport("m")
        for _ in range(2):
            with pytest.raises(CapacityError, match="register no more"):
                trans.read_into(0, bytearray(8))
        small = trans.alloc(4096)
        trans.write_from(small, b"fits")
        out = bytearray(4)
        trans.read_into(small, out)
        assert out == b"fits"
        process.terminate()


def test_many_short_lived_arrays_leave_nothing(stand: Stand) -> None:
    with MemoryServer(4 * MIB, rdma=stand.server.rdma_device) as server, LibdAction() as action:
        action.add_transport(f"m;rdma_uverbs;url,{server.tcp_url};device,{stand.device};")
        trans = action.get_transport("m")
        alive = live(trans)
        for i in range(200):
            trans.write_from(0, np.full(MIB // 8, i, np.uint8))
        assert live(trans) == alive
