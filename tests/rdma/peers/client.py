"""A client of a libd memory server: greeting over TCP, data by one-sided operations.

``python -m tests.rdma.peers.client DEVICE PORT`` is a process of it, which opens a queue pair with
the default region of a server here, says so, and stays until its input ends.
"""

from __future__ import annotations

import dataclasses
import itertools
import socket
import struct
import sys
from types import TracebackType
from typing import NamedTuple, Self

from tests.rdma.peers.protocol import (
    KIND_DEFAULT,
    KIND_ELEMENT,
    MAGIC,
    VERSION,
    Code,
    Hello,
    Op,
    Peer,
    Region,
    Reply,
    Request,
    Welcome,
    receive,
)
from tests.rdma.peers.queue import Device, Memory, QueuePair

__all__ = ["Client", "Grant", "RefusedError"]

_LONGEST = 30.0  # seconds without an answer
_STAGE = (4 << 20) + 4096


class RefusedError(Exception):
    """The server refused a request: ``code``, and what the reply's ``a`` and ``b`` say."""

    def __init__(self, op: int, code: int, a: int = 0, b: int = 0) -> None:
        super().__init__(f"operation {op}: code {code}, a {a}, b {b}")
        self.code, self.a, self.b = code, a, b


class Grant(NamedTuple):
    """What a durl says: where the server is and what opens it."""

    host: str
    port: int
    token: str = ""
    tenant: int = 0
    element: int = 0
    key: bytes = b""

    @classmethod
    def from_durl(cls, durl: str) -> Self:
        """Read ``name;type;url,tcp://HOST:PORT;token,…;tenant,…;eid,…;key,…;``."""
        settings = dict(part.split(",", 1) for part in durl.split(";")[2:] if part)
        host, _, port = settings["url"].removeprefix("tcp://").rpartition(":")
        return cls(
            host,
            int(port),
            settings.get("token", ""),
            int(settings.get("tenant", 0)),
            int(settings.get("eid", 0)),
            bytes.fromhex(settings.get("key", "")),
        )


class Client:
    """A connection, and after `open` a queue pair at its other end.

    Raises
    ------
    RefusedError
        if the server does not take the greeting.
    """

    def __init__(self, grant: Grant, device: Device, *, version: int = VERSION) -> None:
        self.device = device
        self.queue: QueuePair | None = None
        self._numbers = itertools.count(1)
        self._memory = Memory(device, _STAGE)
        try:
            self.stream = socket.create_connection((grant.host, grant.port), _LONGEST)
        except BaseException:
            self._memory.close()
            raise
        try:
            self.welcome, self.name = self._greet(grant, version)
        except BaseException:
            self.close()
            raise

    def _greet(self, grant: Grant, version: int) -> tuple[Welcome, str]:
        token = grant.token.encode()
        kind = KIND_ELEMENT if grant.element else KIND_DEFAULT
        key = grant.key.ljust(16, b"\0")
        hello = Hello(MAGIC, version, kind, len(token), 0, grant.tenant, grant.element, key)
        self.stream.sendall(hello.pack() + token)
        reply = Reply.receive(self.stream)
        if reply.code != Code.OK:
            raise RefusedError(reply.op, reply.code, reply.a, reply.b)
        welcome = Welcome.unpack(reply.payload[: Welcome.LAYOUT.size])
        name = reply.payload[Welcome.LAYOUT.size :]
        if len(name) != welcome.name_length:
            raise ConnectionError(f"a name of {len(name)} bytes, not {welcome.name_length}")
        return welcome, name.decode()

    def request(self, request: Request, payload: bytes = b"") -> Reply:
        """Send a request, with number and length filled in, and return the reply to it."""
        number = next(self._numbers)
        request = dataclasses.replace(request, number=number, length=len(payload))
        self.stream.sendall(request.pack() + payload)
        reply = Reply.receive(self.stream)
        if (reply.op, reply.number) != (request.op, number):
            raise ConnectionError(f"{reply} does not answer {request}")
        if reply.code != Code.OK:
            raise RefusedError(reply.op, reply.code, reply.a, reply.b)
        return reply

    def open(self) -> Peer:
        """Connect a queue pair with one at the server; returns what the server said of its own."""
        queue = QueuePair(self.device)
        try:
            reply = self.request(Request(Op.VERBS_OPEN), queue.me.pack())
            peer = Peer.unpack(reply.payload)
            queue.connect(peer)
        except BaseException:
            queue.close()
            raise
        if self.queue is not None:
            self.queue.close()
        self.queue = queue
        return peer

    def shut(self) -> None:
        """Have the server destroy its queue pair, and destroy ours; `open` works again."""
        self.request(Request(Op.VERBS_CLOSE))
        if self.queue is not None:
            self.queue.close()
            self.queue = None

    def region(self, address: int = 0, epoch: int = 0) -> Region:
        """Ask how one-sided operations reach a region."""
        reply = self.request(Request(Op.VERBS_REGION, address=address, epoch=epoch))
        return Region.unpack(reply.payload)

    def alloc(self, size: int, *, flags: int = 0) -> tuple[int, int]:
        """Allocate a region; returns its number and epoch."""
        reply = self.request(Request(Op.ALLOC, flags=flags, address=64, size=size))
        return reply.a, reply.b

    def read(self, region: Region, offset: int, size: int) -> bytes:
        """Read ``size`` bytes, at most 4 MiB, with one READ."""
        self._opened.read(self._memory, size, region, offset)
        return self._memory.bytes[:size]

    def write(self, region: Region, offset: int, data: bytes) -> None:
        """Write up to 4 MiB with one WRITE, and read a byte: then everybody sees the data."""
        self._memory.bytes[: len(data)] = data
        self._opened.write(self._memory, len(data), region, offset)
        self._opened.read(self._memory, 1, region, offset)

    def fetch_add(self, region: Region, offset: int, delta: int) -> int:
        """Add to a word in the device; returns what it was."""
        self._opened.fetch_add(self._memory, region, offset, delta)
        return self._word()

    def compare_swap(self, region: Region, offset: int, expected: int, desired: int) -> int:
        """Replace a word in the device if it is as expected; returns what it was."""
        self._opened.compare_swap(self._memory, region, offset, expected, desired)
        return self._word()

    @property
    def _opened(self) -> QueuePair:
        if self.queue is None:
            raise ConnectionError("no queue pair is open")
        return self.queue

    def _word(self) -> int:
        (word,) = struct.unpack("<Q", self._memory.bytes[:8])
        return int(word)

    def ended(self) -> bool:
        """Whether the server closes the connection, without another byte, before long."""
        try:
            receive(self.stream, 1)
        except ConnectionError:
            return True
        return False

    def close(self) -> None:
        """Close the connection; the server then destroys its queue pair."""
        self.stream.close()
        if self.queue is not None:
            self.queue.close()
            self.queue = None
        self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _main() -> None:
    name, port = sys.argv[1:]
    with Device(name) as device, Client(Grant("127.0.0.1", int(port)), device) as client:
        client.open()
        client.write(client.region(), 0, b"here")
        print("open", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _main()
