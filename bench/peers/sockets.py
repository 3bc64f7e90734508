"""Plain TCP sockets: the least that a request over TCP costs.

A request is address and size, 8 bytes each; the top bit of the size marks a write, whose bytes
follow and which is answered by one byte.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from bench.work import SPAN, Client, Job, Work, source, space

WRITE = 1 << 63
_REQUEST = struct.Struct("<QQ")


def receive(connection: socket.socket, out: memoryview) -> None:
    """Fill `out`: the ``recv_into`` loop."""
    received, size = 0, len(out)
    while received < size:
        got = connection.recv_into(out[received:])
        if not got:
            raise ConnectionError("the plain socket's server hung up")
        received += got


class Server:
    """Serves one memory of 2 SPAN bytes, a thread for each connection."""

    def __init__(self) -> None:
        self.memory = space(2 * SPAN)
        self.memory[:SPAN] = source(0, SPAN)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = {"port": self.listener.getsockname()[1]}
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        memory = self.memory.data
        with connection:
            while len(request := connection.recv(_REQUEST.size, socket.MSG_WAITALL)) == 16:
                address, size = _REQUEST.unpack(request)
                if size & WRITE:
                    receive(connection, memory[address : address + (size ^ WRITE)])
                    connection.sendall(b"\0")
                else:
                    connection.sendall(memory[address : address + size])

    def close(self) -> None:
        """Stop listening; connections end with their clients."""
        self.listener.close()


class PeerClient(Client):
    """A connection."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.connection = socket.create_connection(("127.0.0.1", address["port"]))
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def prepare(self, job: Job) -> Work:
        """Requests and answers in turn, or with `depth` requests sent ahead."""
        slots = job.slots()
        views = [slot.data for slot in slots]
        addresses = job.addresses()
        depth, count, spots = job.depth, job.count, job.spots
        if job.kind == "read":
            requests = [_REQUEST.pack(address, job.size) for address in addresses]
            ask, finish = self._ask_read, self._finish_read
        else:
            requests = [_REQUEST.pack(address, job.size | WRITE) for address in addresses]
            ask, finish = self._ask_write, self._finish_write
        call: Callable[[], object]
        if count == 1:
            request, view = requests[0], views[0]

            def call() -> None:
                ask(request, view)
                finish(view)
        else:

            def call() -> None:
                for i in range(depth):
                    ask(requests[i], views[i])
                for i in range(count):
                    finish(views[i % spots])
                    if i + depth < count:
                        ask(requests[i + depth], views[(i + depth) % spots])

        def moved() -> list[tuple[Any, Any]]:
            if job.kind == "read":
                return [(source(address, job.size), slots[slot]) for address, slot in job.last()]
            found = []
            for address, slot in job.last():
                back = space(job.size)
                self._ask_read(_REQUEST.pack(address, job.size), back.data)
                self._finish_read(back.data)
                found.append((slots[slot], back))
            return found

        return Work(call, moved, slots if job.kind == "read" else ())

    def _ask_read(self, request: bytes, data: memoryview) -> None:
        self.connection.sendall(request)

    def _finish_read(self, out: memoryview) -> None:
        receive(self.connection, out)

    def _ask_write(self, request: bytes, data: memoryview) -> None:
        sent = self.connection.sendmsg([request, data])
        if sent < len(request) + len(data):
            # The request is 16 bytes: it never is what a full socket cuts.
            self.connection.sendall(data[sent - len(request) :])

    def _finish_write(self, out: memoryview) -> None:
        if self.connection.recv(1) != b"\0":
            raise ConnectionError("the plain socket's server hung up")

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
