"""libd's wire protocol, as much as these peers speak of it (docs/libd-protocol.md)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, Self

__all__ = [
    "KIND_DEFAULT",
    "KIND_ELEMENT",
    "MAGIC",
    "NIC",
    "OFFSET_BITS",
    "VERBS",
    "VERSION",
    "WITH_PAYLOAD",
    "Code",
    "Hello",
    "Op",
    "Peer",
    "Region",
    "Reply",
    "Request",
    "Stats",
    "Welcome",
    "receive",
]

MAGIC = b"SCADMEM1"
VERSION = 3
KIND_DEFAULT, KIND_ELEMENT = 1, 2
OFFSET_BITS = 40
VERBS = 1
"""Feature of the welcome: the server has an RDMA device."""
NIC = 1
"""Flag of ALLOC: the region's words are changed atomically by the RDMA device only."""
_REPLY_MAGIC = 0x5343
_REPLY = struct.Struct("<HHiQQQQ")


class Op(IntEnum):
    """Operations of elements; the administrator's are left out."""

    READ = 1
    WRITE = 2
    READV = 3
    WRITEV = 4
    ALLOC = 5
    FREE = 6
    EXTEND = 7
    REGION = 8
    FLUSH = 9
    STAT = 10
    ATTACH = 11
    RENEW = 12
    FETCH_ADD = 16
    COMPARE_SWAP = 17
    VERBS_OPEN = 20
    VERBS_REGION = 21
    VERBS_CLOSE = 22


WITH_PAYLOAD = {Op.WRITE, Op.READV, Op.WRITEV, Op.COMPARE_SWAP, Op.VERBS_OPEN}


class Code(IntEnum):
    """Codes of replies."""

    OK = 0
    AUTH = 3
    BOUNDS = 4
    CAPABILITY = 5
    STALE = 6
    CAPACITY = 7
    UNSUPPORTED = 8
    PROTOCOL = 9
    EXISTS = 10
    NO_ENTRY = 11
    INVALID = 12
    NO_MEMORY = 13
    VERSION = 14
    SYSTEM = 16


@dataclass(frozen=True)
class _Packed:
    """A struct of the wire: its fields in their order."""

    LAYOUT: ClassVar[struct.Struct]

    def pack(self) -> bytes:
        return self.LAYOUT.pack(*(getattr(self, field.name) for field in fields(self)))

    @classmethod
    def unpack(cls, data: bytes) -> Self:
        return cls(*cls.LAYOUT.unpack(data))


@dataclass(frozen=True)
class Hello(_Packed):
    """The greeting; the token follows it."""

    LAYOUT = struct.Struct("<8sHHHHQQ16s")

    magic: bytes
    version: int
    kind: int
    token_length: int
    zero: int
    tenant: int
    element: int
    key: bytes


@dataclass(frozen=True)
class Request(_Packed):
    """A request; ``length`` bytes of payload follow it."""

    LAYOUT = struct.Struct("<HHIQQQQQ")

    op: int
    flags: int = 0
    count: int = 0
    number: int = 0
    address: int = 0
    epoch: int = 0
    size: int = 0
    length: int = 0


@dataclass(frozen=True)
class Reply:
    """A reply, and its payload."""

    op: int
    code: int
    number: int
    a: int = 0
    b: int = 0
    payload: bytes = b""

    def pack(self) -> bytes:
        head = (_REPLY_MAGIC, self.op, self.code, self.number, self.a, self.b)
        return _REPLY.pack(*head, len(self.payload)) + self.payload

    @classmethod
    def receive(cls, stream: socket.socket) -> Self:
        magic, op, code, number, a, b, length = _REPLY.unpack(receive(stream, _REPLY.size))
        if magic != _REPLY_MAGIC:
            raise ConnectionError(f"a reply begins with {magic:#x}")
        return cls(op, code, number, a, b, receive(stream, length))


@dataclass(frozen=True)
class Welcome(_Packed):
    """The answer to the greeting; the element's name follows it."""

    LAYOUT = struct.Struct("<16sQQQQIIII")

    incarnation: bytes
    tenant: int
    element: int
    size: int
    epoch: int
    root: int
    elastic: int
    name_length: int
    features: int


@dataclass(frozen=True)
class Peer(_Packed):
    """One end of a reliable connection.

    ``psn`` numbers the first packet that this end sends, ``mtu`` is an ``enum ibv_mtu``, and
    ``atomic`` is how many READs and atomics this end answers at a time.
    """

    LAYOUT = struct.Struct("<16sIIHBBI")

    gid: bytes
    qpn: int
    psn: int
    lid: int
    mtu: int
    atomic: int
    zero: int = 0


@dataclass(frozen=True)
class Region(_Packed):
    """A region as one-sided operations reach it."""

    LAYOUT = struct.Struct("<QQQII")

    addr: int
    size: int
    epoch: int
    rkey: int
    nic: int


@dataclass(frozen=True)
class Stats(_Packed):
    """What STAT answers."""

    LAYOUT = struct.Struct("<QQQQdQQdQQQ")

    reserved: int
    peak: int
    limit: int
    regions: int
    byte_seconds: float
    bytes_read: int
    bytes_written: int
    age: float
    free: int
    free_blocks: int
    largest_free: int


def receive(stream: socket.socket, size: int) -> bytes:
    """Read exactly ``size`` bytes; raises ``ConnectionError`` where the stream ends before."""
    data = bytearray()
    while len(data) < size:
        piece = stream.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise ConnectionError(f"the stream ended after {len(data)} of {size} bytes")
        data += piece
    return bytes(data)
