"""ucxx, UCX's Python binding, at its synchronous core: a tagged request, a tagged answer.

Either side polls for a while before it sleeps, as UCX users do for latency; asyncio would add its
own time to each message. What ucxx gives to Python has no one-sided operations.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import ucxx._lib.libucxx as ucx
from ucxx._lib.arr import Array

from bench.work import SPAN, Client, Job, Work, source, space

REQUEST, ANSWER, DATA = 1, 2, 3
WRITE = 1 << 63
POLL_SECONDS = 200e-6


class Side:
    """A worker and, once connected, an endpoint."""

    def __init__(self) -> None:
        context = ucx.UCXContext(feature_flags=(ucx.Feature.TAG, ucx.Feature.WAKEUP))
        self.worker = ucx.UCXWorker(context)
        self.worker.init_blocking_progress_mode()
        self.endpoint: Any = None
        self.closing = False

    def wait(self, *requests: Any) -> None:
        """Until all are done."""
        until = time.perf_counter() + POLL_SECONDS
        while not all(request.completed for request in requests):
            if time.perf_counter() < until:
                self.worker.progress()
            elif self.closing:
                raise ConnectionError("closing")
            else:
                self.worker.progress_worker_event(100)
        for request in requests:
            request.check_error()

    def send(self, data: Any, tag: int) -> Any:
        """Begin to send."""
        return self.endpoint.tag_send(Array(data), tag=ucx.UCXXTag(tag))

    def receive(self, data: Any, tag: int) -> Any:
        """Begin to receive."""
        return self.endpoint.tag_recv(Array(data), tag=ucx.UCXXTag(tag))


class Server(Side):
    """Answers requests of one client: address and size, as two 64-bit words."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = space(2 * SPAN)
        self.memory[:SPAN] = source(0, SPAN)
        self.listener = ucx.UCXListener.create(self.worker, 0, self._connected)
        self.address = {"port": self.listener.port}
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _connected(self, request: Any) -> None:
        self.endpoint = self.listener.create_endpoint_from_conn_request(request, True)

    def _serve(self) -> None:
        while self.endpoint is None:
            if self.closing:
                return
            self.worker.progress_worker_event(100)
        request, done = np.zeros(2, np.uint64), np.zeros(1, np.uint8)
        try:
            while True:
                self.wait(self.receive(request, REQUEST))
                address, size = (int(word) for word in request)
                piece = self.memory[address : address + (size & ~WRITE)]
                if size & WRITE:
                    self.wait(self.receive(piece, DATA))
                    self.wait(self.send(done, ANSWER))
                else:
                    self.wait(self.send(piece, ANSWER))
        except (ConnectionError, ucx.UCXError):
            return

    def close(self) -> None:
        """Stop serving."""
        self.closing = True
        self.thread.join(5)


class PeerClient(Client):
    """An endpoint."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.ucx = Side()
        self.ucx.endpoint = self.ucx.worker.create_endpoint_from_hostname(
            "127.0.0.1", address["port"], True
        )

    def _read(self, request: Any, out: Any) -> None:
        answer = self.ucx.receive(out, ANSWER)
        self.ucx.wait(self.ucx.send(request, REQUEST), answer)

    def prepare(self, job: Job) -> Work:
        """One request after the other."""
        (slot,) = job.slots()
        address = job.addresses()[0]
        request = np.array([address, job.size], np.uint64)
        if job.kind == "read":
            return Work(
                lambda: self._read(request, slot),
                lambda: [(source(address, job.size), slot)],
                [slot],
            )
        writing = np.array([address, job.size | WRITE], np.uint64)
        done = np.zeros(1, np.uint8)

        def write() -> None:
            answer = self.ucx.receive(done, ANSWER)
            self.ucx.wait(self.ucx.send(writing, REQUEST), self.ucx.send(slot, DATA), answer)

        def moved() -> list[tuple[Any, Any]]:
            back = space(job.size)
            self._read(request, back)
            return [(slot, back)]

        return Work(write, moved)
