"""The client's side of a stream: replies in any order and any pieces, lanes, connecting again."""

from __future__ import annotations

import gc
import os
import random
import secrets
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libd import (
    BoundsError,
    DurlError,
    LibdAction,
    MemoryServer,
    MemoryServerProcess,
    ProtocolError,
    StaleRefError,
    TransportClosedError,
    TransportTimeoutError,
)
from tests.libd.relay import relay

Stand = Any  # conftest.py's

HELLO_SIZE = 48
REQUEST = struct.Struct("<HHIQQQQQ")
REPLY = struct.Struct("<HHiQQQQ")
SEGMENT = struct.Struct("<QQQ")
WELCOME = REPLY.pack(0x5343, 0, 0, 0, 0, 0, 64) + struct.pack(
    "<16sQQQQIIII", b"", 1, 1, 1 << 20, 5, 1, 0, 0, 0
)
CONTENT = random.Random(7).randbytes(1 << 20)


def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = sock.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def reply(
    op: int, number: int, payload: bytes = b"", code: int = 0, a: int = 0, b: int = 0
) -> bytes:
    return REPLY.pack(0x5343, op, code, number, a, b, len(payload)) + payload


def take(sock: socket.socket) -> tuple[int, int, list[tuple[int, int]], bytes]:
    """Receive a request: operation, number, ``(addr, size)`` of its segments, data."""
    op, _, count, number, addr, _, size, length = REQUEST.unpack(receive(sock, REQUEST.size))
    payload = receive(sock, length)
    if op in (3, 4):
        segments = [SEGMENT.unpack_from(payload, 24 * i) for i in range(count)]
        return op, number, [(a, n) for a, _, n in segments], payload[24 * count :]
    return op, number, [(addr, size)], payload


@contextmanager
def scripted(serve: Callable[[socket.socket], None], connections: int = 1) -> Iterator[str]:
    """A server that greets and then does what `serve` says; gives a durl."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caught: list[BaseException] = []

        def run() -> None:
            for _ in range(connections):
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with sock:
                    try:
                        receive(sock, HELLO_SIZE)
                        sock.sendall(WELCOME)
                        serve(sock)
                    except (EOFError, ConnectionError):
                        pass
                    except BaseException as error:
                        caught.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"m;rdma_tcp;url,tcp://127.0.0.1:{listener.getsockname()[1]};timeout,10;"
        thread.join(30)
        assert not thread.is_alive()
        assert caught == []


def content(segments: list[tuple[int, int]]) -> bytes:
    return b"".join(CONTENT[a : a + n] for a, n in segments)


def in_pieces(sock: socket.socket, data: bytes, rng: random.Random) -> None:
    while data:
        n = rng.choice([1, 2, 39, 40, 41, 500, 5000, 100_000])
        sock.sendall(data[:n])
        data = data[n:]


@settings(deadline=None, max_examples=60)
@given(
    sizes=st.lists(st.integers(1, 4000), min_size=1, max_size=20),
    bad=st.sets(st.integers(0, 19)),
    shuffled=st.booleans(),
    seed=st.integers(0, 1 << 30),
)
def test_replies_in_any_order_and_any_pieces(
    sizes: list[int], bad: set[int], shuffled: bool, seed: int
) -> None:
    rng = random.Random(seed)
    addresses = [rng.randrange(0, (1 << 20) - n) for n in sizes]

    def serve(sock: socket.socket) -> None:
        op, number, _, _ = take(sock)  # the epoch of region 0
        sock.sendall(reply(op, number, a=5, b=1 << 20))
        answers = []
        for i in range(len(sizes)):
            op, number, segments, _ = take(sock)
            if i in bad:
                answers.append(reply(op, number, code=4, a=77))
            else:
                answers.append(reply(op, number, content(segments)))
        if shuffled:
            rng.shuffle(answers)
        in_pieces(sock, b"".join(answers), rng)
        receive(sock, 1)

    with scripted(serve) as durl, LibdAction("0", [durl]) as action:
        trans = action.get_transport("m")
        outs = [bytearray(n) for n in sizes]
        batches = [trans.submit(reads=[(at, out)]) for at, out in zip(addresses, outs, strict=True)]
        for i in rng.sample(range(len(sizes)), len(sizes)):
            if i in bad:
                with pytest.raises(BoundsError, match="77"):
                    batches[i].wait(timeout=30)
            else:
                assert batches[i].wait(timeout=30) == sizes[i]
                assert outs[i] == CONTENT[addresses[i] : addresses[i] + sizes[i]]


def epoch(sock: socket.socket) -> None:
    op, number, _, _ = take(sock)
    sock.sendall(reply(op, number, a=5, b=1 << 20))


LIES: dict[str, Callable[[int, int, int], bytes]] = {
    "a number that was not asked": lambda op, n, size: reply(op, n + 99, bytes(size)),
    "another operation": lambda op, n, size: reply(op + 1, n, bytes(size)),
    "too short": lambda op, n, size: reply(op, n, bytes(size - 1)),
    "too long": lambda op, n, size: reply(op, n, bytes(size + 1)),
    "nothing": lambda op, n, size: reply(op, n),
    "an error with data": lambda op, n, size: reply(op, n, bytes(size), code=4),
    "no reply": lambda op, n, size: b"x" * 40,
    "the same twice": lambda op, n, size: reply(op, n, bytes(size)) * 2,
    "one more": lambda op, n, size: reply(op, n, bytes(size)) + b"x" * 100,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_server_that_lies(lie: str) -> None:
    def serve(sock: socket.socket) -> None:
        epoch(sock)
        op, number, segments, _ = take(sock)
        sock.sendall(LIES[lie](op, number, segments[0][1]))
        take(sock)
        receive(sock, 1)

    with scripted(serve) as durl, LibdAction("0", [durl]) as action:
        trans = action.get_transport("m")
        first = trans.submit(reads=[(0, bytearray(1000))])
        second = trans.submit(reads=[(0, bytearray(1000))])
        with suppress(ProtocolError, TransportClosedError):
            first.wait(timeout=30)  # a lie may be in what comes after its reply
        with pytest.raises((ProtocolError, TransportClosedError)):
            second.wait(timeout=30)
        action.close()


def test_wait_with_a_timeout_lets_the_batch_go_on() -> None:
    go = threading.Event()

    def serve(sock: socket.socket) -> None:
        epoch(sock)
        op, number, segments, _ = take(sock)
        go.wait(30)
        sock.sendall(reply(op, number, content(segments)))
        receive(sock, 1)

    with scripted(serve) as durl, LibdAction("0", [durl]) as action:
        out = bytearray(100)
        done = action.get_transport("m").submit(reads=[(5, out)])
        for timeout in (0, 0.05):
            with pytest.raises(TransportTimeoutError):
                done.wait(timeout=timeout)
        assert not done.poll()
        with pytest.raises(BufferError):
            out.clear()
        go.set()
        assert done.wait(timeout=30) == 100
        assert out == CONTENT[5:105]


def test_a_server_that_stalls_is_given_up() -> None:
    def serve(sock: socket.socket) -> None:
        epoch(sock)
        take(sock)
        receive(sock, 1)

    with scripted(serve) as durl, LibdAction("0", [durl + "stall,0.5;"]) as action:
        with pytest.raises(TransportTimeoutError):
            action.get_transport("m").read_into(0, bytearray(10))


def test_a_server_that_stops_reading_is_given_up() -> None:
    end = threading.Event()

    def serve(sock: socket.socket) -> None:
        epoch(sock)
        end.wait(60)

    with scripted(serve) as durl, LibdAction("0", [durl + "stall,0.5;"]) as action:
        with pytest.raises(TransportTimeoutError):
            action.get_transport("m").write_from(0, bytes(1 << 20) * 1)
        end.set()


def test_a_slow_server_is_not_given_up() -> None:
    def serve(sock: socket.socket) -> None:
        epoch(sock)
        op, number, segments, _ = take(sock)
        answer = reply(op, number, content(segments))
        for i in range(0, len(answer), 20):
            sock.sendall(answer[i : i + 20])
            time.sleep(0.1)
        receive(sock, 1)

    with scripted(serve) as durl, LibdAction("0", [durl + "stall,0.8;"]) as action:
        out = bytearray(300)
        action.get_transport("m").read_into(0, out)
        assert out == CONTENT[:300]


@pytest.mark.parametrize("where", [0, 1, 39, 40, 41, 500])
def test_a_connection_that_is_cut_in_a_frame(where: int) -> None:
    cuts = iter([where, None])

    def serve(sock: socket.socket) -> None:
        if next(cuts) is None:  # connected again
            op, number, segments, _ = take(sock)
            sock.sendall(reply(op, number, content(segments)))
            return
        epoch(sock)
        op, number, segments, _ = take(sock)
        sock.sendall(reply(op, number, content(segments))[:where])

    with scripted(serve, connections=2) as durl, LibdAction("0", [durl]) as action:
        trans = action.get_transport("m")
        out = bytearray(1000)
        with pytest.raises(TransportClosedError):
            trans.read_into(0, out)
        trans.read_into(10, out)  # the same server is there still
        assert out == CONTENT[10:1010]


# ---- against the real server ---------------------------------------------------------------------


def test_after_a_cut_the_same_server_goes_on(stand: Stand) -> None:
    with relay(stand.server.port) as (port, cut):
        durl = f"m;rdma_tcp;url,tcp://127.0.0.1:{port};"
        with LibdAction("0", [durl]) as action:
            trans = action.get_transport("m")
            addr = trans.alloc(100)
            trans.write_from(addr, b"still there")
            ref = trans.ref([(addr, 11)])
            for _ in range(5):
                cut()
                out = bytearray(11)
                try:
                    trans.read_into(addr, out)
                except TransportClosedError:
                    trans.read_into(addr, out)
                assert out == b"still there"
            assert trans.resolve(ref) == [(addr, 11)]


def test_a_cut_fails_what_is_under_way_and_nothing_after(stand: Stand) -> None:
    with relay(stand.server.port) as (port, cut):
        with LibdAction("0", [f"m;rdma_tcp;url,tcp://127.0.0.1:{port};"]) as action:
            trans = action.get_transport("m")
            data = np.arange(8192, dtype=np.uint64)
            trans.write_from(0, data)
            for _ in range(10):
                outs = [np.zeros_like(data) for _ in range(16)]
                batches = [trans.submit(reads=[(0, o)]) for o in outs]
                batches[0].poll()
                cut()
                for batch, out in zip(batches, outs, strict=True):
                    try:
                        batch.wait(timeout=30)
                    except TransportClosedError:
                        continue
                    np.testing.assert_array_equal(out, data)
                with suppress(TransportClosedError):  # the cut may not have been noticed yet
                    trans.flush()
                trans.read_into(0, outs[0])
                np.testing.assert_array_equal(outs[0], data)


@pytest.mark.parametrize("kind", ["tcp", "shm"])
def test_killed_with_16_in_flight_then_restarted(kind: str) -> None:
    """Every request raises within 2 s; after a restart the next use says that refs are stale."""
    name = f"@scad-test-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "libd.memory_server", str(port), "--size", "64MB"]
    command += ["--unix", name, "--json"]

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline()
        return process

    process = start()
    url = f"unix://{name}" if kind == "shm" else f"tcp://127.0.0.1:{port}"
    try:
        with LibdAction("0", [f"m;rdma_{kind};url,{url};"]) as action:
            trans = action.get_transport("m")
            trans.write_from(0, b"\1" * (4 << 20))
            ref = trans.ref([(0, 8)])
            os.kill(process.pid, signal.SIGSTOP)  # answers none of them
            batches = [trans.submit(reads=[(0, np.empty(4 << 20, np.uint8))]) for _ in range(16)]
            assert kind == "shm" or not any(batch.poll() for batch in batches)
            os.kill(process.pid, signal.SIGKILL)
            killed = time.monotonic()
            for batch in batches:
                if kind == "shm":  # done without the server
                    batch.wait(timeout=30)
                    continue
                with pytest.raises(TransportClosedError):
                    batch.wait(timeout=30)
            assert time.monotonic() - killed < 2
            process.wait()
            out = bytearray(b"\xff" * 8)
            with pytest.raises(TransportClosedError):
                trans.read_into(0, out)
            process.stdout.close()  # type: ignore[union-attr]
            process = start()
            time.sleep(0.06)  # a server that was not there is not asked again for a moment
            operations: list[Callable[[], object]] = [
                lambda: trans.read_into(0, out),
                lambda: trans.submit(reads=[(0, out)]).wait(),
                lambda: trans.write_from(0, b"x"),
                lambda: trans.resolve(ref),
                lambda: trans.fetch_add(0),
                lambda: trans.alloc(10),
                trans.flush,
            ]
            for operation in operations:
                with pytest.raises(StaleRefError, match="restarted"):
                    operation()
            assert out == b"\xff" * 8  # and not the new server's zeros
        with LibdAction("1", [f"m;rdma_{kind};url,{url};"]) as action:
            with pytest.raises(StaleRefError):
                action.get_transport("m").resolve(ref)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


def test_a_granted_element_of_a_server_that_was_restarted() -> None:
    name = f"scad-test-{secrets.token_hex(8)}"
    with LibdAction("0") as action:
        with MemoryServerProcess("16 MB") as process:
            url = process.control  # the connection of the administrator, too
            tenant = process.control.create_tenant("t", "8 MB")
            grant = process.control.create_element(tenant, "m", "4 MB")
            action.add_transport(grant.durl("m", "rdma_tcp"))
            trans = action.get_transport("m")
            trans.write_from(0, b"x")
            port = int((grant.tcp_url or "").rpartition(":")[2])
        with pytest.raises(TransportClosedError):
            trans.read_into(0, bytearray(1))
        with MemoryServer(1 << 20, port=port, unix=name, admin_token="t"):
            time.sleep(0.06)
            with pytest.raises(StaleRefError, match="restarted"):
                trans.read_into(0, bytearray(1))
        del url


@pytest.mark.parametrize("way", ["reads", "writes"])
def test_a_poll_moves_some_mib_and_ends(stand: Stand, way: str) -> None:
    size, count = 4 << 20, 64
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", size), "tcp")
    data = bytearray(b"\x5a" * size)
    trans.write_from(0, data)
    batch = trans.submit(**{way: [(0, data)] * count})
    polls = 1
    while not batch.poll():
        polls += 1
    assert batch.wait() == size * count
    # 4 MiB, and what the kernel has room for besides.
    assert polls > count * size / (16 << 20)


MAPPED_FROM_WHO_IS_GONE = """
import os, secrets, signal, socket, sys, threading, time
from libd import LibdAction, LibdError, MemoryServerProcess
server = MemoryServerProcess("16 MB")
grant = server.control.create_element(server.control.create_tenant("t", "8 MB"), "m", 4096)
action = LibdAction("0", [grant.durl("m", "rdma_shm") + "timeout,1;"])
trans = action.get_transport("m")
trans.read_into(0, bytearray(8))
os.kill(server.pid, signal.SIGKILL)
server.stop()
silent = socket.socket(socket.AF_UNIX)
silent.bind("\\0" + grant.unix_url.removeprefix("unix://@"))
silent.listen(16)
gap = 0.0
def tick():
    global gap
    last = time.monotonic()
    while True:
        time.sleep(0.01)
        gap, last = max(gap, time.monotonic() - last), time.monotonic()
def read():
    try:
        trans.read_into(0, bytearray(8))
    except LibdError:
        pass
threading.Thread(target=tick, daemon=True).start()
if sys.argv[1] == "beside a read":
    threading.Thread(target=read).start()
    time.sleep(0.1)
try:
    trans.map(0, 8)
except LibdError as error:
    print(type(error).__name__, "too long" if gap > 0.9 else "in time")
"""


@pytest.mark.parametrize("how", ["alone", "beside a read"])
def test_map_lets_others_go_on_while_it_connects_again(how: str) -> None:
    """A server that accepts and says nothing has taken the place of the one that was killed."""
    ran = subprocess.run(
        [sys.executable, "-c", MAPPED_FROM_WHO_IS_GONE, how],
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert ran.stdout == "TransportClosedError in time\n"


def test_an_address_that_does_not_answer_leaves_time_for_the_next(stand: Stand) -> None:
    port = stand.server.port
    found = socket.getaddrinfo(None, port, type=socket.SOCK_STREAM)
    if [address[0] for *_, address in found] != ["::1", "127.0.0.1"]:
        pytest.skip("this machine's own addresses are not first ::1, then 127.0.0.1")
    with ExitStack() as stack:
        # A queue of connections that is full: the kernel drops those that come.
        silent = stack.enter_context(socket.socket(socket.AF_INET6))
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        silent.bind(("::1", port))
        silent.listen(0)
        for _ in range(4):
            filling = stack.enter_context(socket.socket(socket.AF_INET6))
            filling.setblocking(False)
            filling.connect_ex(("::1", port))
        before = time.monotonic()
        action = stack.enter_context(LibdAction("0", [f"m;rdma_tcp;url,tcp://:{port};timeout,2;"]))
        action.get_transport("m").write_from(0, b"x")
        assert time.monotonic() - before > 0.5


@pytest.mark.parametrize("stripes", [2, 3, 16])
def test_stripes(stand: Stand, stripes: int) -> None:
    size = (24 << 20) + 12345
    grant = stand.control.create_element(stand.tenant(size), "m", size)
    with LibdAction("0", [f"{grant.durl('m', 'rdma_tcp')}stripes,{stripes};"]) as action:
        trans = action.get_transport("m")
        before = stand.control.stats().connections
        data = np.random.default_rng(stripes).integers(0, 256, size, dtype=np.uint8)
        trans.write_from(0, data[:1000])
        assert stand.control.stats().connections == before
        trans.write_from(0, data)
        assert stand.control.stats().connections == before + stripes - 1
        out = np.empty_like(data)
        trans.read_into(0, out)
        np.testing.assert_array_equal(out, data)
        out[:] = 0
        pieces = [(i, out[i : i + 777_777]) for i in range(0, size, 777_777)]
        small = bytearray(10)
        big = trans.submit(reads=pieces)
        assert trans.submit(reads=[(5, small)]).wait() == 10
        assert big.wait() == size
        np.testing.assert_array_equal(out, data)
        with pytest.raises(BoundsError):
            trans.write_from(1, data)


def test_stripes_of_a_server_that_dies() -> None:
    with MemoryServerProcess("64 MB") as process:
        tenant = process.control.create_tenant("t", "48 MB")
        grant = process.control.create_element(tenant, "m", "32 MB")
        with LibdAction("0", [grant.durl("m", "rdma_tcp") + "stripes,4;"]) as action:
            trans = action.get_transport("m")
            out = np.empty(32 << 20, np.uint8)
            trans.read_into(0, out)
            batches = [trans.submit(reads=[(0, out)]) for _ in range(4)]
            os.kill(process.pid, signal.SIGKILL)
            outcomes = []
            for batch in batches:
                try:
                    outcomes.append(batch.wait(timeout=30))
                except TransportClosedError:
                    outcomes.append(None)
            assert None in outcomes
        process.stop()


@pytest.mark.parametrize("value", ["0", "17", "x", "-1", "1.5"])
def test_stripes_that_cannot_be(value: str) -> None:
    with LibdAction("0", [f"m;rdma_tcp;url,tcp://127.0.0.1:1;stripes,{value};"]) as action:
        with pytest.raises(DurlError, match="stripes"):
            action.get_transport("m")


@pytest.mark.parametrize("kind", ["tcp", "shm"])
def test_a_transport_that_is_dropped_with_batches_under_way(stand: Stand, kind: str) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 23), "m", 1 << 23)
    for _ in range(10):
        trans = LibdAction("0", [grant.durl("m", f"rdma_{kind}")]).get_transport("m")
        array = np.empty(1 << 23, np.uint8)
        gone, closed = weakref.ref(array), weakref.ref(trans)
        for _ in range(4):
            trans.submit(reads=[(0, array)])
        last = trans.submit(writes=[(0, array)])
        del trans
        gc.collect()
        assert closed() is not None  # a completion that somebody has keeps its transport
        del array, last
        gc.collect()
        assert closed() is None
        assert gone() is None


INTERRUPTED = """
import os, signal, sys, threading, time
import numpy as np
from libd import LibdAction, MemoryServer
server = MemoryServer(1 << 28)
trans = LibdAction("0", [f"m;rdma_tcp;url,{server.tcp_url};"]).get_transport("m")
data = np.full(1 << 27, 3, np.uint8)
trans.write_from(0, data)
out = np.empty_like(data)
hits = 0
threading.Thread(
    target=lambda: [time.sleep(0.02) or os.kill(os.getpid(), signal.SIGINT) for _ in iter(int, 1)],
    daemon=True,
).start()
while hits < 10:
    try:
        while True:
            trans.read_into(0, out)
            trans.submit(reads=[(0, out)]).wait()
    except KeyboardInterrupt:
        hits += 1
        signal.signal(signal.SIGINT, signal.SIG_IGN if hits == 10 else signal.default_int_handler)
out[:] = 0
trans.read_into(0, out)
print((out == 3).all(), flush=True)
os._exit(0)
"""


def test_ctrl_c_at_any_moment_leaves_a_transport_that_works() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["True"], done.stderr


def test_errors_of_a_closing_server_are_plain(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 20), "m", 1 << 20)
    trans = stand.open(grant, "tcp")
    batches = [trans.submit(reads=[(0, bytearray(1 << 20))]) for _ in range(20)]
    stand.server.stop()
    for batch in batches:
        try:
            assert batch.wait(timeout=30) == 1 << 20
        except TransportClosedError:
            continue
