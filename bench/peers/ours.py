"""Our own side: a libd transport in a process of its own."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat as times
from typing import Any

import numpy as np

from bench.work import MIB, SPAN, Client, Job, Work, source, space
from libd import LibdAction

Pairs = list[tuple[int, Any]]
Submit = Callable[[Pairs], Any]


def window(submit: Submit, pairs: Pairs, depth: int) -> Callable[[], None]:
    """Single operations, `depth` of them outstanding: a new one once the oldest is done."""
    batches = [[pair] for pair in pairs]

    def call() -> None:
        outstanding: deque[Any] = deque()
        for batch in batches:
            if len(outstanding) == depth:
                outstanding.popleft().wait()
            outstanding.append(submit(batch))
        for completion in outstanding:
            completion.wait()

    return call


def alternating(submit: Submit, pairs: Pairs, depth: int) -> Callable[[], None]:
    """Two batches of half the depth, of which one is under way while the other is looked after."""
    half = depth // 2
    batches = [pairs[i : i + half] for i in range(0, len(pairs), half)]

    def call() -> None:
        before = None
        for batch in batches:
            completion = submit(batch)
            if before is not None:
                before.wait()
            before = completion
        if before is not None:
            before.wait()

    return call


def vectors(move: Callable[[Pairs], int], pairs: Pairs, depth: int) -> Callable[[], None]:
    """One vectored call for `depth` operations, then the next."""
    batches = [pairs[i : i + depth] for i in range(0, len(pairs), depth)]

    def call() -> None:
        for batch in batches:
            move(batch)

    return call


def in_turn(move: Callable[[int, Any], int], pairs: Pairs) -> Callable[[], object]:
    """One operation after the other."""
    if len(pairs) == 1:
        return partial(move, *pairs[0])

    def call() -> None:
        for address, data in pairs:
            move(address, data)

    return call


class PeerClient(Client):
    """A transport of the address's durl; with ``fill`` it first writes what reads expect."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.action = LibdAction("bench", [address["durl"]])
        name = address["durl"].partition(";")[0]
        self.transport = self.action.get_transport(name, "rdma")
        if address.get("fill"):
            for at in range(0, SPAN, MIB):
                self.transport.write_from(at, source(at, MIB).data)

    def prepare(self, job: Job) -> Work:
        """Operations in any of the ways; `map` makes a view of `size` bytes and drops it."""
        transport = self.transport
        if job.way == "map":
            return Work(
                lambda: transport.map(0, job.size),
                lambda: [(source(0, job.size), transport.map(0, job.size))],
            )
        slots = job.slots()
        if job.way == "mapcopy":
            view = np.frombuffer(transport.map(0, job.size), np.uint8)
            wanted = source(0, job.size)
            return Work(lambda: np.copyto(slots[0], view), lambda: [(wanted, slots[0])], slots)
        pairs: Pairs = [(a, slots[i % job.depth]) for i, a in enumerate(job.addresses())]
        reading = job.kind == "read"
        call: Callable[[], object]
        if job.way == "one":
            call = in_turn(transport.read_into if reading else transport.write_from, pairs)
        elif job.way == "vector":
            call = vectors(transport.readv if reading else transport.writev, pairs, job.depth)
        else:
            make = window if job.way == "window" else alternating
            call = make(self._submit_reads if reading else self._submit_writes, pairs, job.depth)

        def moved() -> list[tuple[Any, Any]]:
            if reading:
                return [(source(address, job.size), slots[slot]) for address, slot in job.last()]
            found = []
            for address, slot in job.last():
                back = space(job.size)
                transport.read_into(address, back.data)
                found.append((slots[slot], back))
            return found

        return Work(call, moved, slots if reading else ())

    def _submit_reads(self, batch: Pairs) -> Any:
        return self.transport.submit(batch)

    def _submit_writes(self, batch: Pairs) -> Any:
        return self.transport.submit((), batch)

    def attach(self, repeat: int) -> float:
        """Seconds for `repeat` times connecting and mapping the arena, without letting go of it."""
        spent = 0.0
        durl = self.address["durl"]
        name = durl.partition(";")[0]
        for _ in range(repeat):
            action = LibdAction("attach", [durl])
            start = time.perf_counter()
            action.get_transport(name, "rdma")
            spent += time.perf_counter() - start
            action.close()
        return spent

    def python_call(self, kind: str, repeat: int) -> float:
        """Seconds for `repeat` calls of 8 bytes from a loop that does nothing else.

        `kind` ``submit`` starts a batch of one read and waits for it: two calls.
        """
        data: Any = space(8)
        transport = self.transport
        if kind == "submit":
            submit, batch = transport.submit, [(0, data)]
            start = time.perf_counter()
            for _ in times(None, repeat):
                submit(batch).wait()
            return time.perf_counter() - start
        move = transport.read_into if kind == "read" else transport.write_from
        start = time.perf_counter()
        for _ in times(None, repeat):
            move(0, data)
        return time.perf_counter() - start

    def close(self) -> None:
        """Close the transport."""
        self.action.close()
