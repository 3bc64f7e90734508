"""A libd memory server of one default region, on pyverbs.

It moves no bytes itself: READ, WRITE and whatever else is not needed for one-sided operations is
refused, so that a client which works with it has used the device.

``python -m tests.rdma.peers.server DEVICE SIZE`` is a process of it; it prints its port.
"""

from __future__ import annotations

import contextlib
import errno
import hmac
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

from tests.rdma.peers.protocol import (
    KIND_DEFAULT,
    MAGIC,
    OFFSET_BITS,
    VERBS,
    VERSION,
    WITH_PAYLOAD,
    Code,
    Hello,
    Op,
    Peer,
    Region,
    Reply,
    Request,
    Stats,
    Welcome,
    receive,
)
from tests.rdma.peers.queue import Device, Memory, QueuePair

__all__ = ["Server"]

_GREETING = 10.0  # seconds
_IDLE = 300.0  # seconds; nothing here may hang
_ROOT = 1  # slot of the region, which is also region 0
_DOMAIN = 1  # of code 8: the word is in another atomicity domain
_LARGEST = 1 << 30  # bytes of a payload that is thrown away


class _Hangup(Exception):
    """The connection is to be closed, after a last reply if there is one."""

    def __init__(self, reply: Reply | None = None) -> None:
        self.reply = reply


def _refuse(request: Request, code: int, a: int = 0, b: int = 0) -> Reply:
    return Reply(request.op, code, request.number, a, b)


class Server:
    """Serves ``memory`` on a loopback port until `stop`.

    Parameters
    ----------
    size
        Bytes of the region.
    token
        Opens it; empty: nobody needs one.
    nic
        Whether words are changed by the device; otherwise atomics are refused altogether.

    Attributes
    ----------
    requests
        How many of each operation came.
    """

    def __init__(self, device: Device, size: int, *, token: str = "", nic: bool = True) -> None:
        self.device = device
        self.nic = nic
        self.requests: Counter[int] = Counter()
        self.errors: list[BaseException] = []
        self._token = token.encode()
        self._incarnation = os.urandom(16)
        self._epoch = time.time_ns() // 1000
        self._started = time.monotonic()
        self._streams: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stopping = False
        self.memory = Memory(device, size, remote=True, atomic=nic)
        try:
            self._listener = socket.create_server(("127.0.0.1", 0))
        except BaseException:
            self.memory.close()
            raise
        self.port = int(self._listener.getsockname()[1])
        self._accepting = threading.Thread(target=self._accept, name="accept")
        self._accepting.start()

    @property
    def url(self) -> str:
        """The address for durls."""
        return f"tcp://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                stream, _ = self._listener.accept()
            except OSError:  # `stop` has shut it down
                return
            with self._lock:
                if self._stopping:
                    stream.close()
                    return
                self._streams.add(stream)
                thread = threading.Thread(target=self._serve, args=(stream,), name="connection")
                self._threads.append(thread)
                thread.start()

    def _serve(self, stream: socket.socket) -> None:
        try:
            with contextlib.ExitStack() as queues:
                self._converse(stream, queues)
        except _Hangup as last:
            if last.reply:
                with contextlib.suppress(OSError):
                    stream.sendall(last.reply.pack())
        except (ConnectionError, TimeoutError):
            pass
        except BaseException as error:
            self.errors.append(error)  # `stop` raises it
        finally:
            with self._lock:
                self._streams.discard(stream)
                stream.close()

    def _converse(self, stream: socket.socket, queues: contextlib.ExitStack) -> None:
        stream.settimeout(_GREETING)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._greet(stream)
        stream.settimeout(_IDLE)
        while True:
            request = Request.unpack(receive(stream, Request.LAYOUT.size))
            self.requests[request.op] += 1
            payload = self._payload(stream, request)
            stream.sendall(self._answer(request, payload, queues).pack())

    def _greet(self, stream: socket.socket) -> None:
        hello = Hello.unpack(receive(stream, Hello.LAYOUT.size))
        if hello.magic != MAGIC:
            raise _Hangup
        if hello.version != VERSION:
            raise _Hangup(Reply(0, Code.VERSION, 0, VERSION))
        if hello.token_length > 255:
            raise _Hangup(Reply(0, Code.PROTOCOL, 0))
        token = receive(stream, hello.token_length)
        opens = not self._token or hmac.compare_digest(token, self._token)
        if hello.kind != KIND_DEFAULT or not opens:
            raise _Hangup(Reply(0, Code.AUTH, 0))
        welcome = Welcome(
            self._incarnation, 1, 1, self.memory.size, self._epoch, _ROOT, 0, 0, VERBS
        )
        stream.sendall(Reply(0, Code.OK, 0, payload=welcome.pack()).pack())

    def _payload(self, stream: socket.socket, request: Request) -> bytes:
        """Read what follows; the connection ends if it is not what the operation takes."""
        wrong = request.length and request.op not in WITH_PAYLOAD
        opening = request.op == Op.VERBS_OPEN and request.length != Peer.LAYOUT.size
        if wrong or opening or request.length > _LARGEST:
            raise _Hangup(_refuse(request, Code.PROTOCOL))
        if request.op == Op.VERBS_OPEN:
            return receive(stream, Peer.LAYOUT.size)
        left = request.length
        while left:
            left -= len(receive(stream, min(left, 1 << 20)))
        return b""

    def _answer(self, request: Request, payload: bytes, queues: contextlib.ExitStack) -> Reply:
        match request.op:
            case Op.REGION | Op.VERBS_REGION:
                return self._region(request)
            case Op.FLUSH:  # nothing is ever under way
                return Reply(request.op, Code.OK, request.number)
            case Op.STAT:
                age, size = time.monotonic() - self._started, self.memory.size
                stats = Stats(size, size, size, 1, size * age, 0, 0, age, 0, 0, 0)
                return Reply(request.op, Code.OK, request.number, payload=stats.pack())
            case Op.VERBS_OPEN:
                queues.close()  # one at a time
                return self._open(request, payload, queues)
            case Op.VERBS_CLOSE:
                queues.close()
                return Reply(request.op, Code.OK, request.number)
            case Op.FETCH_ADD | Op.COMPARE_SWAP if self.nic:
                return _refuse(request, Code.UNSUPPORTED, _DOMAIN)
            case op if op in list(Op):
                return _refuse(request, Code.UNSUPPORTED)
            case _:
                raise _Hangup(_refuse(request, Code.PROTOCOL))

    def _region(self, request: Request) -> Reply:
        if request.address >> OFFSET_BITS not in (0, _ROOT):
            return _refuse(request, Code.BOUNDS)
        if request.epoch not in (0, self._epoch):
            return _refuse(request, Code.STALE, self._epoch)
        size = self.memory.size
        if request.op == Op.REGION:
            return Reply(request.op, Code.OK, request.number, self._epoch, size)
        region = Region(self.memory.address, size, self._epoch, self.memory.rkey, int(self.nic))
        return Reply(request.op, Code.OK, request.number, payload=region.pack())

    def _open(self, request: Request, payload: bytes, queues: contextlib.ExitStack) -> Reply:
        peer = Peer.unpack(payload)
        if not 1 <= peer.mtu <= 5:
            return _refuse(request, Code.INVALID)
        if not (peer.lid or any(peer.gid)):
            return _refuse(request, Code.SYSTEM, errno.EINVAL)
        queue = QueuePair(self.device)
        try:
            queue.connect(peer)
        except Exception as error:  # pyverbs' own
            queue.close()
            return _refuse(request, Code.SYSTEM, getattr(error, "error_code", errno.EIO))
        queues.callback(queue.close)
        return Reply(request.op, Code.OK, request.number, payload=queue.me.pack())

    def stop(self) -> None:
        """Close all connections, wait for their threads, and give the memory back.

        Raises what went wrong in a connection. May be called twice.
        """
        with self._lock:
            stopped, self._stopping = self._stopping, True
            if stopped:
                return
            for stream in self._streams:
                with contextlib.suppress(OSError):
                    stream.shutdown(socket.SHUT_RDWR)
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in (self._accepting, *self._threads):
            thread.join(_GREETING)
            if thread.is_alive():
                self.errors.append(TimeoutError(f"thread {thread.name} does not end"))
        self._listener.close()
        self.memory.close()
        if self.errors:
            raise self.errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def _main() -> None:
    name, size = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])  # before there are threads
    with Device(name) as device, Server(device, int(size)) as server:
        print(server.port, flush=True)
        signal.sigtimedwait([signal.SIGTERM], _IDLE)


if __name__ == "__main__":
    _main()
