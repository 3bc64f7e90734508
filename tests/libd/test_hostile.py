"""False servers that choose every field of an answer; arguments that C would truncate; secrets."""

from __future__ import annotations

import os
import pickle
import secrets
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from libd import (
    AuthError,
    Durl,
    DurlError,
    LibdAction,
    LibdError,
    MemoryServer,
    ProtocolError,
    TransportClosedError,
    TransportTimeoutError,
    _core,
)

Stand = Any  # conftest.py's

REPLY = struct.Struct("<HHiQQQQ")
REQUEST = struct.Struct("<HHIQQQQQ")
WELCOME = struct.Struct("<16sQQQQIIII")
HELLO_SIZE = 48
MOST = (1 << 64) - 1


def welcome(name: bytes = b"") -> bytes:
    head = REPLY.pack(0x5343, 0, 0, 0, 0, 0, WELCOME.size + len(name))
    return head + WELCOME.pack(b"", 1, 1, 64, 5, 1, 0, len(name), 0) + name


@contextmanager
def false_server(greeting: bytes, code: int | None = None, a: int = 0, b: int = 0) -> Iterator[str]:
    """Sends `greeting`, and answers every request with `code`, `a`, `b`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(HELLO_SIZE, socket.MSG_WAITALL)
                sock.sendall(greeting)
                while request := sock.recv(REQUEST.size, socket.MSG_WAITALL):
                    op, _, _, number, *_ = REQUEST.unpack(request)
                    sock.sendall(REPLY.pack(0x5343, op, code, number, a, b, 0))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};"
        thread.join(30)


@pytest.mark.parametrize("code", [-(1 << 31), -1, 1, 2, 13, 15, 16, 17, (1 << 31) - 1])
@pytest.mark.parametrize(("a", "b"), [(0, 0), (MOST, MOST), (1 << 63, 1), (3, 1 << 31)])
def test_any_code_of_an_answer_is_one_of_our_errors(code: int, a: int, b: int) -> None:
    greeting = REPLY.pack(0x5343, 0, code, 0, a, b, 0)
    with false_server(greeting) as durl, LibdAction("0", [durl]) as action:
        with pytest.raises(LibdError):
            action.get_transport("m")
    with false_server(welcome(), code, a, b) as durl, LibdAction("0", [durl]) as action:
        trans = action.get_transport("m")
        with pytest.raises(LibdError):
            trans.flush()
        trans.close()


def test_an_element_name_that_is_no_text() -> None:
    with false_server(welcome(b"\xff\xfe"), 0) as durl, LibdAction("0", [durl]) as action:
        with pytest.raises(ProtocolError):
            action.get_transport("m")


@pytest.mark.parametrize("port", [-1, 65536, 70_000])
def test_ports_are_not_truncated(port: int) -> None:
    with pytest.raises(LibdError, match="port"):
        MemoryServer(4096, port=port)


@pytest.mark.parametrize("token", ["\0", "a\0b", "x" * 256])
@pytest.mark.parametrize("which", ["token", "admin_token"])
def test_tokens_that_a_server_cannot_compare(token: str, which: str) -> None:
    with pytest.raises(AuthError, match="255"):
        MemoryServer(4096, **{which: token})


@pytest.mark.parametrize("where", [{"bind": "127.0.0.1\0x"}, {"unix": "@a\0b"}])
def test_addresses_are_not_truncated(where: dict[str, Any]) -> None:
    with pytest.raises(LibdError, match="NUL"):
        MemoryServer(4096, **where)


@pytest.mark.parametrize("elastic", ["true", "false"])
@pytest.mark.parametrize("size", [MOST, MOST - 62, 1 << 63])
def test_sizes_do_not_wrap(size: int, elastic: str) -> None:
    with LibdAction("0", [f"m;rdma_local;size,{size};elastic,{elastic};"]) as action:
        with pytest.raises(LibdError):
            action.get_transport("m")


def test_an_administrators_connection_does_not_survive_fork(stand: Stand) -> None:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with pytest.raises(TransportClosedError, match="fork"):
                stand.control.stats()
            stand.control.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stand.control.stats().uptime > 0


def test_a_stopped_server_hangs_up_although_a_child_of_fork_holds_its_sockets() -> None:
    server = MemoryServer(4096)
    with LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]) as action:
        trans = action.get_transport("m")
        child = os.fork()
        if child == 0:
            signal.pause()
        try:
            server.stop()
            with pytest.raises(TransportClosedError):
                trans.flush()
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


@contextmanager
def full_socket() -> Iterator[tuple[socket.socket, str]]:
    """An abstract Unix socket whose queue of connections is full."""
    name = f"scad-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind("\0" + name)
        listener.listen(0)
        first.connect("\0" + name)
        yield listener, f"m;rdma_shm;url,unix://@{name};"


def test_a_server_whose_queue_is_full_is_waited_for() -> None:
    with full_socket() as (_, durl):
        with LibdAction("0", [durl + "timeout,0.2;"]) as action:
            with pytest.raises(TransportTimeoutError):
                action.get_transport("m")


def test_a_queue_that_empties_in_time() -> None:
    with full_socket() as (listener, durl), LibdAction("0", [durl + "timeout,30;"]) as action:
        caught: list[BaseException] = []

        def connect() -> None:
            try:
                action.get_transport("m")
            except LibdError as error:
                caught.append(error)

        thread = threading.Thread(target=connect)
        thread.start()
        listener.accept()[0].close()
        sock, _ = listener.accept()
        assert sock.recv(8) == b"SCADMEM1"
        sock.close()
        thread.join(30)
        assert [type(e) for e in caught] == [TransportClosedError]


def test_signals_do_not_fail_a_connection_attempt() -> None:
    """A connection in its making, and signals that Python handles without raising."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        with socket.create_connection(address):  # the queue is full: SYNs are dropped from now on
            before = signal.signal(signal.SIGALRM, lambda *_: None)
            signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
            try:
                durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{address[1]};timeout,0.3;"
                with LibdAction("0", [durl]) as action, pytest.raises(TransportTimeoutError):
                    action.get_transport("m")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
                signal.signal(signal.SIGALRM, before)


def test_a_tiny_timeout_is_no_infinite_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};timeout,1e-9;"
        with LibdAction("0", [durl]) as action, pytest.raises(TransportTimeoutError):
            action.get_transport("m")


@pytest.mark.parametrize(
    "text",
    [
        "m,rdma_tcp,url,tcp://h:1,token,hush",
        "m;rdma_tcp;url,tcp://h:1;token:hush;",
        "m;rdma_tcp;tokenhush;",
        "m;rdma_tcp token,hush;",
        "m token,hush;rdma_tcp;",
    ],
)
def test_malformed_durls_keep_their_secrets(text: str) -> None:
    with pytest.raises(DurlError) as caught:
        Durl.parse(text)
    assert "hush" not in str(caught.value)


def test_an_endpoint_is_not_written_anywhere() -> None:
    endpoint = _core.Endpoint(host="h", port="1", token="hush", key=b"k" * 16)
    assert "hush" not in repr(endpoint)
    with pytest.raises(TypeError):
        pickle.dumps(endpoint)


def test_internals_cannot_be_made_empty() -> None:
    for kind in (_core.Memory, _core.View):
        with pytest.raises(TypeError):
            kind()


def test_reg_while_the_arguments_are_evaluated() -> None:
    """`__index__` may run anything, also replace the buffer that is about to be written to."""
    with LibdAction("0", ["m;rdma_local;size,1 MB;"]) as action:
        trans = action.get_transport("m")

        class Sly:
            def __index__(self) -> int:
                trans.reg(4)
                return 1 << 19

        trans.reg(1 << 20)
        for sly in ((Sly(), 0, 0), (8, 0, Sly())):
            trans.reg(1 << 20)
            # Checked against the buffer that is used, whichever that is.
            try:
                trans.read(*sly)
            except LibdError:
                assert len(trans.buf) == 4
