"""pyzmq REQ/REP over TCP, both sides without copies: what is read is the frame's own buffer."""

from __future__ import annotations

import struct
import threading
from typing import Any

import zmq

from bench.work import SPAN, Client, Job, Work, source

_READ = struct.Struct("<QQ")


class Server:
    """Answers (address, size) with bytes, and keeps the last write's frame as it is."""

    def __init__(self) -> None:
        self.memory = source(0, SPAN)
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.REP)
        self.address = {"port": self.socket.bind_to_random_port("tcp://127.0.0.1")}
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        memory = self.memory.data
        kept: Any = b""
        while True:
            try:
                request, *data = self.socket.recv_multipart(copy=False)
            except zmq.ContextTerminated:
                self.socket.close()
                return
            if data:
                kept = data[0].buffer
                self.socket.send(b"")
                continue
            address, size = _READ.unpack(request.buffer)
            reply = kept if address == SPAN else memory[address : address + size]
            self.socket.send(reply, copy=False)

    def close(self) -> None:
        """Stop."""
        self.context.term()


class PeerClient(Client):
    """A REQ socket."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.context = zmq.Context()
        self.socket: zmq.Socket[bytes] = self.context.socket(zmq.REQ)
        self.socket.connect(f"tcp://127.0.0.1:{address['port']}")

    def _read(self, request: bytes) -> memoryview:
        self.socket.send(request)
        return memoryview(self.socket.recv(copy=False).buffer)

    def prepare(self, job: Job) -> Work:
        """One request after the other."""
        (slot,) = job.slots()
        address = job.addresses()[0]
        request = _READ.pack(address, job.size)
        if job.kind == "read":
            return Work(
                lambda: self._read(request),
                lambda: [(source(address, job.size), self._read(request))],
            )

        def write() -> None:
            self.socket.send_multipart([b"w", slot.data], copy=False)
            self.socket.recv()

        return Work(write, lambda: [(slot, self._read(_READ.pack(SPAN, job.size)))])

    def close(self) -> None:
        """Close the socket."""
        self.context.destroy(linger=0)
