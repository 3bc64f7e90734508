"""`WorkerLink`: the socket between the invoker and all of its workers."""

from __future__ import annotations

import contextlib
import secrets

import msgspec
import zmq

from openwhisk.worker.messages import (
    FromWorker,
    Hello,
    ToWorker,
    decode_from_worker,
    encode,
)

__all__ = ["WorkerLink"]

_ENOUGH = 64  # messages taken at a time, before others get a turn


class WorkerLink:
    """Messages to and from workers, by the names that they were given.

    Attributes
    ----------
    endpoint, token
        What a worker is told, so that it finds the invoker and is believed.
    socket
        For a poller.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self.endpoint = f"ipc://@scad-{secrets.token_hex(8)}"
        self._context = zmq.Context(io_threads=1)
        self.socket = self._context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self.socket.setsockopt(zmq.SNDHWM, 0)
        self.socket.setsockopt(zmq.RCVHWM, 0)
        self.socket.bind(self.endpoint)

    def send(self, worker: str, message: ToWorker) -> bool:
        """Send; False if that worker cannot be reached: it is dead, or has closed its socket."""
        try:
            self.socket.send_multipart((worker.encode(), encode(message)), zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        return True

    def receive(self) -> list[tuple[str, FromWorker | None]]:
        """Who has sent what; None for what cannot be read. Anybody may have: see `believes`."""
        messages: list[tuple[str, FromWorker | None]] = []
        for _ in range(_ENOUGH):
            try:
                identity, data = self.socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                break
            except ValueError:
                continue  # a stranger that does not even speak in two frames
            message: FromWorker | None = None
            with contextlib.suppress(msgspec.MsgspecError):
                message = decode_from_worker(data)
            messages.append((identity.decode(errors="replace"), message))
        return messages

    def believes(self, hello: Hello) -> bool:
        """Whether who says hello is one of ours."""
        return secrets.compare_digest(hello.token, self.token)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
        self._context.term()
