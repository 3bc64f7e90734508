"""`np.copyto` within one process: the limit of anything that copies."""

from __future__ import annotations

import numpy as np

from bench.work import SPAN, Client, Job, Work, source, space


class PeerClient(Client):
    """Copies between two buffers of its own."""

    def __init__(self, address: dict[str, object]) -> None:
        super().__init__(address)
        self.memory = space(2 * SPAN)
        self.memory[:SPAN] = source(0, SPAN)

    def prepare(self, job: Job) -> Work:
        """Copies of the job's size, one after the other."""
        (slot,) = job.slots()
        address = job.addresses()[0]
        there = self.memory[address : address + job.size]
        if job.kind == "write":
            return Work(lambda: np.copyto(there, slot), lambda: [(slot, there)])
        return Work(lambda: np.copyto(slot, there), lambda: [(there, slot)], [slot])
