"""Mooncake's transfer engine over TCP: one-sided reads and writes of registered memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mooncake.engine import TransferEngine

from bench.work import SPAN, Client, Job, Work, source, space


def engine() -> Any:
    """An engine without a metadata server."""
    made = TransferEngine()
    if made.initialize("127.0.0.1", "P2PHANDSHAKE", "tcp", "") != 0:
        raise RuntimeError("Mooncake's transfer engine does not start on TCP here")
    return made


class Server:
    """An engine that serves its registered memory."""

    def __init__(self) -> None:
        self.engine = engine()
        self.memory = space(2 * SPAN)
        self.memory[:SPAN] = source(0, SPAN)
        self.engine.register_memory(self.memory.ctypes.data, self.memory.nbytes)
        self.address = {
            "peer": f"127.0.0.1:{self.engine.get_rpc_port()}",
            "base": self.memory.ctypes.data,
        }

    def close(self) -> None:
        """Let go of the memory."""
        self.engine.unregister_memory(self.memory.ctypes.data)


class PeerClient(Client):
    """An engine that moves bytes between its registered memory and the server's."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.engine = engine()
        self.memory = space(SPAN)
        self.engine.register_memory(self.memory.ctypes.data, SPAN)

    def prepare(self, job: Job) -> Work:
        """Transfers in turn, or batches of `depth`."""
        slots = [self.memory[i * job.size : (i + 1) * job.size] for i in range(job.depth)]
        for slot, data in zip(slots, job.slots(), strict=True):
            slot[:] = data
        peer, base = self.address["peer"], self.address["base"]
        there = [base + address for address in job.addresses()]
        here = [slots[i % job.depth].ctypes.data for i in range(job.count)]
        sizes = [job.size] * job.count
        reading = job.kind == "read"
        one = self.engine.transfer_sync_read if reading else self.engine.transfer_sync_write
        many = (
            self.engine.batch_transfer_sync_read
            if reading
            else self.engine.batch_transfer_sync_write
        )

        def in_turn() -> None:
            for to, at in zip(here, there, strict=True):
                if one(peer, to, at, job.size) != 0:
                    raise RuntimeError("a Mooncake transfer failed")

        def batches() -> None:
            for i in range(0, job.count, job.depth):
                j = i + job.depth
                if many(peer, here[i:j], there[i:j], sizes[i:j]) != 0:
                    raise RuntimeError("a Mooncake batch failed")

        def moved() -> list[tuple[Any, Any]]:
            if reading:
                return [(source(address, job.size), slots[slot]) for address, slot in job.last()]
            wanted = [(address, slots[slot].copy()) for address, slot in job.last()]
            found = []
            for address, should in wanted:
                back = self.memory[-job.size :] if job.size < SPAN else self.memory
                back.fill(0)
                self.engine.transfer_sync_read(peer, back.ctypes.data, base + address, job.size)
                found.append((should, back.copy()))
            return found

        call: Callable[[], object] = batches if job.way == "vector" else in_turn
        return Work(call, moved, slots if reading else ())

    def close(self) -> None:
        """Let go of the memory."""
        self.engine.unregister_memory(self.memory.ctypes.data)
