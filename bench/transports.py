"""libd's transports beside what bounds them: `np.copyto` for shared memory, a plain socket for
TCP.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

import numpy as np

from bench.harness import Case, Side
from libd import LibdAction, MemoryServerProcess, Transport

__all__ = ["NAMES", "transports"]

KIB, MIB = 1 << 10, 1 << 20
READS = {"4 KiB": 4 * KIB, "64 KiB": 64 * KIB, "1 MiB": MIB, "64 MiB": 64 * MIB}
REPEAT = {4 * KIB: 200, 64 * KIB: 100, MIB: 20, 64 * MIB: 1}
NAMES = [
    *(f"shm read {label}" for label in READS),
    *(f"tcp read {label}" for label in READS),
    "shm map 64 MiB",
]


@contextmanager
def plain_socket_server(size: int) -> Iterator[tuple[str, int]]:
    """A server that answers an 8-byte length with that many bytes: what any request over TCP costs
    at least.
    """
    payload = memoryview(bytearray(size))

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client:
                while len(request := client.recv(8, socket.MSG_WAITALL)) == 8:
                    client.sendall(payload[: struct.unpack("<Q", request)[0]])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def socket_read(connection: socket.socket, out: memoryview) -> Side:
    """A read over a plain socket: a request, then a `recv_into` loop."""
    request = struct.pack("<Q", len(out))

    def read() -> None:
        connection.sendall(request)
        received = 0
        while received < len(out):
            received += connection.recv_into(out[received:])

    return read


def reader(transport: Transport, out: bytearray) -> Side:
    """A read of ours into a reused buffer."""
    return lambda: transport.read_into(0, out)


def copier(source: bytes, out: bytearray) -> Side:
    """A copy within this process into a reused buffer."""
    target = np.frombuffer(out, np.uint8)
    origin = np.frombuffer(source, np.uint8, count=len(out))
    return lambda: np.copyto(target, origin)


@contextmanager
def transports() -> Iterator[list[Case]]:
    """Reads by size over shm and tcp, and `map` at two sizes."""
    biggest = max(READS.values())
    with ExitStack() as stack:
        server = stack.enter_context(MemoryServerProcess(size=4 * biggest))
        tenant = server.control.create_tenant("bench", 2 * biggest)
        grant = server.control.create_element(tenant.name, "memory", biggest)
        action = stack.enter_context(closing(LibdAction("bench")))
        opened = {}
        for kind in ("rdma_shm", "rdma_tcp"):
            action.add_transport(grant.durl(kind, kind))
            opened[kind] = action.get_transport(kind, "rdma")
        shm, tcp = opened["rdma_shm"], opened["rdma_tcp"]
        source = np.random.default_rng(0).bytes(biggest)
        shm.write_from(0, source)

        address = stack.enter_context(plain_socket_server(biggest))
        connection = stack.enter_context(socket.create_connection(address))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        cases = []
        for label, size in READS.items():
            out, theirs = bytearray(size), bytearray(size)
            cases.append(
                Case(
                    f"shm read {label}", "GB/s", reader(shm, out), "np.copyto",
                    copier(source, theirs),
                    size=size, target=1 / 0.95 if size >= MIB else None, repeat=REPEAT[size],
                )
            )  # fmt: skip
        for label, size in READS.items():
            out, theirs = bytearray(size), bytearray(size)
            cases.append(
                Case(
                    f"tcp read {label}", "us" if size < MIB else "GB/s", reader(tcp, out),
                    "socket recv_into", socket_read(connection, memoryview(theirs)),
                    size=size, target=1.0 if size >= MIB else None, repeat=REPEAT[size],
                )
            )  # fmt: skip
        cases.append(
            Case(
                "shm map 64 MiB", "us", lambda: shm.map(0, 64 * MIB), "shm map 4 KiB",
                lambda: shm.map(0, 4 * KIB), target=1.5, limit=3.0, repeat=1000,
            )
        )  # fmt: skip
        yield cases
