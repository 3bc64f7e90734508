"""Attaching a tenant's arena: in one round trip, once, and from servers that pass others."""

from __future__ import annotations

import fcntl
import gc
import mmap
import os
import secrets
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from libd import (
    ArenaCache,
    LibdAction,
    LibdError,
    MemoryServerProcess,
    ProtocolError,
    Transport,
    TransportClosedError,
)
from tests.libd.test_hostile import HELLO_SIZE, REPLY, REQUEST, welcome
from tests.libd.test_requests import greeting

Stand = Any  # conftest.py's

ATTACH = 11
F_SEAL_FUTURE_WRITE = 0x10
ARENA = 1 << 16
TABLE = 4096 + 32 * (1 << 18)
Answer = Callable[[socket.socket, bytes], None]


def memfd(size: int, *, sealed: bool = True) -> int:
    fd = os.memfd_create("scad-test", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size)
    if sealed:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return fd


@contextmanager
def false_server(answer: Answer) -> Iterator[str]:
    """Reads greeting and ATTACH before it answers either."""
    name = f"scad-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0" + name)
        listener.listen()

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                asked = sock.recv(HELLO_SIZE + REQUEST.size, socket.MSG_WAITALL)
                op, _, _, number, *_ = REQUEST.unpack(asked[HELLO_SIZE:])
                assert op == ATTACH
                answer(sock, REPLY.pack(0x5343, ATTACH, 0, number, ARENA, 0, 0))
                sock.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"m;rdma_shm;url,unix://@{name};timeout,5;"
        thread.join(30)
        assert not thread.is_alive()


def passing(*sizes: int, sealed: bool = True, split: bool = False) -> Answer:
    """Answers with descriptors of memory of these sizes."""

    def answer(sock: socket.socket, attached: bytes) -> None:
        fds = [memfd(size, sealed=sealed) for size in sizes]
        sock.sendall(welcome())
        if split:  # half of the reply with all of them, and half with all of them once more
            socket.send_fds(sock, [attached[:20]], fds)
            attached = attached[20:]
        socket.send_fds(sock, [attached], fds)
        for fd in fds:
            os.close(fd)

    return answer


def open_one(durl: str) -> Transport:
    action = LibdAction("0", [durl])
    return action.get_transport("m")


def test_greeting_and_attach_are_one_round_trip() -> None:
    with false_server(passing(ARENA, TABLE)) as durl:
        with open_one(durl) as trans:
            assert trans.mappable
            assert trans.size == 64


def test_an_answer_that_comes_byte_by_byte() -> None:
    def answer(sock: socket.socket, attached: bytes) -> None:
        fds = [memfd(ARENA), memfd(TABLE)]
        for byte in welcome(b"name"):
            sock.sendall(bytes([byte]))
        socket.send_fds(sock, [attached[:1]], fds)
        for byte in attached[1:]:
            sock.sendall(bytes([byte]))
        for fd in fds:
            os.close(fd)

    with false_server(answer) as durl, open_one(durl) as trans:
        assert trans.element == "name"


@pytest.mark.parametrize(
    "answer",
    [
        passing(),
        passing(ARENA),
        passing(ARENA, TABLE, 4096),
        passing(ARENA, TABLE - 4096),
        passing(ARENA + 4096, TABLE),
        passing(ARENA, TABLE, sealed=False),
        passing(ARENA + 1, TABLE, split=True),
    ],
    ids=["none", "one", "three", "short table", "long arena", "unsealed", "twice"],
)
def test_what_is_no_arena_is_refused_and_let_go(answer: Answer) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with false_server(answer) as durl:
        with pytest.raises(ProtocolError):
            open_one(durl)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("code", [1, 5, 8, 13])
def test_an_attach_that_is_refused(code: int) -> None:
    def answer(sock: socket.socket, attached: bytes) -> None:
        magic, op, _, number, *_ = struct.unpack("<HHiQ", attached[:16])
        sock.sendall(welcome() + REPLY.pack(magic, op, code, number, 0, 0, 0))

    before = len(os.listdir("/proc/self/fd"))
    with false_server(answer) as durl:
        with pytest.raises(LibdError):
            open_one(durl)
    assert len(os.listdir("/proc/self/fd")) == before


def test_more_than_was_asked_for() -> None:
    def answer(sock: socket.socket, attached: bytes) -> None:
        passing(ARENA, TABLE)(sock, attached + b"x")

    with false_server(answer) as durl:
        with pytest.raises(ProtocolError):
            open_one(durl)


def test_an_arena_that_is_here_is_not_passed_again(stand: Stand) -> None:
    tenant, other = stand.tenant(), stand.tenant()
    first, second = (stand.control.create_element(t, "m", 4096) for t in (tenant, other))
    cache = ArenaCache()
    for grant, passed in ((first, 1), (first, 1), (second, 2), (first, 2)):
        with LibdAction("0", [grant.durl("m", "rdma_shm")], cache=cache) as action:
            action.get_transport("m").write_from(0, b"x")
        assert stand.control.stats().operations["attach"] == passed


def test_an_arena_of_a_server_that_was_killed_is_let_go() -> None:
    def mapped() -> bool:
        return "scad-arena" in Path("/proc/self/maps").read_text()

    gc.collect()
    for by_use in (True, False):
        cache = ArenaCache()
        with MemoryServerProcess("16 MB") as process:
            tenant = process.control.create_tenant("t", "8 MB")
            durl = process.control.create_element(tenant, "m", 4096).durl("m", "rdma_shm")
            action = LibdAction("0", [durl], cache=cache)
            action.get_transport("m").write_from(0, b"x")
            os.kill(process.pid, signal.SIGKILL)
        assert len(cache) == 1
        if by_use:
            with pytest.raises(TransportClosedError):
                action.get_transport("m").write_from(0, b"x")
            assert len(cache) == 0
        action.close()
        assert len(cache) == 0
        assert not mapped()


def test_what_a_server_passes_is_sealed(stand: Stand) -> None:
    """A client can neither resize the arena or the table, nor write to the table, nor seal more."""
    grant = stand.control.create_element(stand.tenant(), "m", 4096)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(20)
        sock.connect("\0" + stand.server.unix_url.removeprefix("unix://@"))
        sock.sendall(greeting(grant) + REQUEST.pack(ATTACH, 0, 0, 1, 0, 0, 0, 0))
        fds: list[int] = []
        while len(fds) < 2:
            data, passed, _, _ = socket.recv_fds(sock, 4096, 2)
            assert data
            fds += passed
    arena, table = fds
    try:
        size_and_seals = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        assert fcntl.fcntl(arena, fcntl.F_GET_SEALS) == size_and_seals
        assert fcntl.fcntl(table, fcntl.F_GET_SEALS) == size_and_seals | F_SEAL_FUTURE_WRITE
        for fd in fds:
            for size in (0, os.fstat(fd).st_size + 4096):
                with pytest.raises(PermissionError):
                    os.ftruncate(fd, size)
            with pytest.raises(PermissionError):
                fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        with pytest.raises(PermissionError):
            os.pwrite(table, b"x", 4096)
        with pytest.raises(PermissionError):
            mmap.mmap(table, 4096)
        with mmap.mmap(table, 4096, prot=mmap.PROT_READ), mmap.mmap(arena, 4096):
            pass
    finally:
        for fd in fds:
            os.close(fd)
