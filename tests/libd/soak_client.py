"""One client of the soak: random operations on regions of its own, each beside a bytearray.

Reads its orders from standard input, a line of JSON, says "ready" once it has connected, and goes
on until that is closed. Then it gives everything back and prints a line of JSON about what it did.
It ends with 0 if all went as it should: wrong bytes, and errors that this client had no reason to
see, are exceptions that nobody catches.

The orders: ``durl`` of an elastic element, ``counter`` (a durl of an element whose first word it
counts up, or nothing), ``seed``, ``largest`` (bytes of a region), and ``faults``: ``"none"``, or
``"cut"`` where connections are cut under it: what was under way may fail then, a region that was
being written has unknown contents, and one whose lease ran out meanwhile is gone.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import select
import sys
from contextlib import suppress
from typing import Any

import libd
from libd import CapacityError, LibdAction, StaleRefError, Transport, TransportError

LEASE = 2.0
LOST = 3
"""Exit status of a client whose server is gone."""
REGIONS = 12


def usage() -> dict[str, int]:
    """What of this process must not grow."""
    gc.collect()
    with open("/proc/self/statm") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    with open("/proc/self/maps") as file:
        segments = sum("memfd:" in line for line in file)
    return {
        "memory": (resident - shared) * 4096,
        "fds": len(os.listdir("/proc/self/fd")),
        "segments": segments,
    }


class Client:
    """The regions that it has, and what is in them."""

    def __init__(self, trans: Transport, seed: int, largest: int) -> None:
        self.trans = trans
        self.rng = random.Random(seed)
        self.largest = largest
        self.model: dict[int, bytearray] = {}
        self.refused = 0

    def size(self) -> int:
        """Small ones mostly."""
        return self.rng.randrange(8, self.largest if self.rng.random() < 0.1 else 1 << 14)

    def forget(self, addr: int) -> None:
        """Nobody knows what is there any more: give it back, if it is still there."""
        self.model.pop(addr, None)
        with suppress(StaleRefError, TransportError):  # its lease gives it back
            self.trans.free(addr)

    def pick(self) -> tuple[int, bytearray]:
        addr = self.rng.choice(list(self.model))
        return addr, self.model[addr]

    def span(self, data: bytearray) -> tuple[int, int]:
        """Some range of a region."""
        at = self.rng.randrange(len(data))
        return at, self.rng.randrange(len(data) - at) + 1

    def parts(self, data: bytearray) -> list[tuple[int, int]]:
        """Ranges of a region that do not overlap."""
        cuts = sorted(
            self.rng.randrange(len(data) + 1) for _ in range(2 * self.rng.randrange(1, 9))
        )
        return [(a, b - a) for a, b in zip(cuts[::2], cuts[1::2], strict=True)]

    def step(self) -> None:
        """One operation."""
        if not self.model or (len(self.model) < REGIONS and self.rng.random() < 0.1):
            self.alloc()
            return
        operation = self.rng.choice(
            [
                self.write, self.write, self.read, self.read, self.vectors, self.batches,
                self.words, self.mapped, self.extend, self.free, self.renew, self.outside,
            ]
        )  # fmt: skip
        addr, data = self.pick()
        try:
            operation(addr, data)
        except (TransportError, StaleRefError):
            self.forget(addr)
            raise

    def alloc(self) -> None:
        size = self.size()
        try:
            addr = self.trans.alloc(size, lease=LEASE)
        except CapacityError:
            self.refused += 1
            if self.model:
                self.forget(self.pick()[0])
            return
        data = bytearray(self.rng.randbytes(size))
        try:
            self.trans.write_from(addr, data)
        except TransportError:
            self.forget(addr)
            raise
        self.model[addr] = data

    def compare(self, addr: int, data: bytearray, at: int, size: int, found: Any) -> None:
        assert found == data[at : at + size], f"wrong bytes: {size} at {addr:#x} + {at}"

    def write(self, addr: int, data: bytearray) -> None:
        at, size = self.span(data)
        data[at : at + size] = self.rng.randbytes(size)
        self.trans.write_from(addr + at, memoryview(data)[at : at + size])

    def read(self, addr: int, data: bytearray) -> None:
        at, size = self.span(data)
        out = bytearray(size)
        self.trans.read_into(addr + at, out)
        self.compare(addr, data, at, size, out)

    def vectors(self, addr: int, data: bytearray) -> None:
        parts = self.parts(data)
        for at, size in parts:
            data[at : at + size] = self.rng.randbytes(size)
        self.trans.writev([(addr + at, bytes(data[at : at + size])) for at, size in parts])
        outs = [bytearray(size) for _, size in parts]
        self.trans.readv([(addr + at, out) for (at, _), out in zip(parts, outs, strict=True)])
        for (at, size), out in zip(parts, outs, strict=True):
            self.compare(addr, data, at, size, out)

    def batches(self, addr: int, data: bytearray) -> None:
        parts = self.parts(data)
        writes = []
        for at, size in parts:
            data[at : at + size] = self.rng.randbytes(size)
            writes.append((addr + at, bytes(data[at : at + size])))
        if self.rng.random() < 0.3:
            self.trans.submit((), writes)  # dropped: the flush waits for it
            self.trans.flush()
        else:
            self.trans.submit((), writes).wait()
        outs = [bytearray(size) for _, size in parts]
        reads = [[(addr + at, out)] for (at, _), out in zip(parts, outs, strict=True)]
        if self.rng.random() < 0.2:

            async def all_of_them() -> None:
                await asyncio.gather(*(self.trans.submit(read) for read in reads))

            asyncio.run(all_of_them())
        else:
            for completion in [self.trans.submit(read) for read in reads]:
                completion.wait()
        for (at, size), out in zip(parts, outs, strict=True):
            self.compare(addr, data, at, size, out)

    def words(self, addr: int, data: bytearray) -> None:
        at = self.rng.randrange(len(data) // 8) * 8
        word = data[at : at + 8]
        if self.rng.random() < 0.5:
            delta = self.rng.randrange(1 << 32)
            old = self.trans.fetch_add(addr + at, delta)
            new = (old + delta) % (1 << 64)
        else:
            new = self.rng.randrange(1 << 64)
            old = self.trans.compare_swap(addr + at, int.from_bytes(word, "little"), new)
        self.compare(addr, data, at, 8, old.to_bytes(8, "little"))
        data[at : at + 8] = new.to_bytes(8, "little")

    def mapped(self, addr: int, data: bytearray) -> None:
        if not self.trans.mappable:
            self.read(addr, data)
            return
        at, size = self.span(data)
        view = self.trans.map(addr + at, size)
        self.compare(addr, data, at, size, view)

    def extend(self, addr: int, data: bytearray) -> None:
        more = self.size()
        if len(data) + more > 2 * self.largest:
            self.free(addr, data)
            return
        try:
            new = self.trans.extend(addr, len(data) + more)
        except CapacityError:
            self.refused += 1
            return
        del self.model[addr]
        fresh = self.rng.randbytes(more)
        try:
            self.trans.write_from(new + len(data), fresh)
        except TransportError:
            self.forget(new)
            raise
        self.model[new] = data + fresh

    def free(self, addr: int, data: bytearray) -> None:
        del self.model[addr]
        self.trans.free(addr)

    def renew(self, addr: int, data: bytearray) -> None:
        self.trans.renew(addr, lease=LEASE)

    def outside(self, addr: int, data: bytearray) -> None:
        """What must be refused is, by whatever operation."""
        out = bytearray(16)
        beyond = addr + len(data) - self.rng.randrange(8)
        for refused in (
            lambda: self.trans.read_into(beyond, out),
            lambda: self.trans.write_from(beyond, out),
            lambda: self.trans.readv([(addr, out[:1]), (beyond, out)]),
        ):
            try:
                refused()
            except libd.BoundsError:
                continue
            raise AssertionError("an access outside of its region was not refused")


def run(action: LibdAction, orders: dict[str, Any]) -> dict[str, Any]:
    client = Client(action.get_transport("m"), orders["seed"], orders["largest"])
    counter = action.get_transport("counter") if "counter" in orders else None
    operations = failed = counted = 0
    before: dict[str, int] | None = None
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            client.step()
            operations += 1
        except (TransportError, StaleRefError):
            if orders["faults"] != "cut":
                raise
            failed += 1
        if counter is not None:
            counter.fetch_add(0, 1)
            counted += 1
        if operations == 2000:
            before = usage()
    after = usage()
    for addr in list(client.model):
        client.forget(addr)
    return {
        "operations": operations, "failed": failed, "counted": counted,
        "refused": client.refused, "before": before, "after": after,
    }  # fmt: skip


def main() -> int:
    orders = json.loads(sys.stdin.readline())
    durls = [orders["durl"], *([orders["counter"]] if "counter" in orders else [])]
    try:
        with LibdAction("soak", durls) as action:
            print(json.dumps(run(action, orders)), flush=True)
    except (libd.TransportClosedError, StaleRefError) as error:
        print(json.dumps({"lost": str(error)}), flush=True)
        return LOST
    return 0


if __name__ == "__main__":
    sys.exit(main())
