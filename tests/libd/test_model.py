"""alloc, free, extend, write and read against a dict."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from libd import CapacityError, LibdAction, MemoryServer, Ref, ServerControl, StaleRefError

LIMIT = 1 << 14


class Regions(RuleBasedStateMachine):
    """Two transports to one elastic element; whatever one does, the other sees."""

    kinds = ("tcp", "shm")
    regions = Bundle("regions")

    def __init__(self) -> None:
        super().__init__()
        self.server = MemoryServer(
            1 << 20, unix=f"scad-model-{secrets.token_hex(8)}", admin_token="a"
        )
        self.control = ServerControl(self.server.tcp_url or "", "a", unix_url=self.server.unix_url)
        tenant = self.control.create_tenant("t", LIMIT * 2)
        grant = self.control.create_element(tenant, "m", elastic=True, limit=LIMIT)
        self.action = LibdAction("0", [grant.durl(k, f"rdma_{k}") for k in self.kinds])
        self.transports = [self.action.get_transport(k) for k in self.kinds]
        self.live: dict[int, bytearray] = {}
        self.dead: list[Ref] = []

    def teardown(self) -> None:
        self.action.close()
        self.control.close()
        self.server.stop()

    def charged(self) -> int:
        return sum(max(1, -(-len(data) // 64)) * 64 for data in self.live.values())

    @rule(
        target=regions,
        side=st.integers(0, 1),
        size=st.integers(0, 3000),
        align=st.sampled_from([1, 64, 256, 4096]),
    )
    def alloc(self, side: int, size: int, align: int) -> int:
        trans = self.transports[side]
        try:
            addr = trans.alloc(size, align)
        except CapacityError:
            # Only for want of room; what is free may be in pieces.
            assert self.charged() + size + align > LIMIT // 2
            return -1
        assert addr not in self.live
        trans.write_from(addr, bytes(size))
        self.live[addr] = bytearray(size)
        return addr

    @rule(addr=consumes(regions), side=st.integers(0, 1))
    def free(self, addr: int, side: int) -> None:
        if addr in self.live:
            self.dead.append(self.transports[side].ref([(addr, 0)]))
            self.transports[side].free(addr)
            del self.live[addr]

    @rule(addr=regions, side=st.integers(0, 1), at=st.floats(0, 1), data=st.binary(max_size=200))
    def write(self, addr: int, side: int, at: float, data: bytes) -> None:
        if addr in self.live:
            model = self.live[addr]
            offset = int(at * len(model))
            data = data[: len(model) - offset]
            self.transports[side].write_from(addr + offset, data)
            model[offset : offset + len(data)] = data

    @rule(target=regions, addr=consumes(regions), side=st.integers(0, 1), more=st.integers(0, 2000))
    def extend(self, addr: int, side: int, more: int) -> int:
        if addr not in self.live:
            return addr
        old, trans = self.live[addr], self.transports[side]
        ref = trans.ref([(addr, 0)])
        try:
            new = trans.extend(addr, len(old) + more)
        except CapacityError:
            return addr
        if new != addr:
            self.dead.append(ref)
        del self.live[addr]
        trans.write_from(new + len(old), bytes(more))
        self.live[new] = old + bytes(more)
        return new

    @rule(side=st.integers(0, 1))
    def the_dead_stay_dead(self, side: int) -> None:
        for ref in self.dead[-5:]:
            with pytest.raises(StaleRefError):
                self.transports[side].resolve(ref)

    @invariant()
    def everybody_reads_what_was_written(self) -> None:
        for trans in self.transports:
            outs = {addr: bytearray(len(data)) for addr, data in self.live.items()}
            trans.readv(list(outs.items()))
            assert outs == self.live

    @invariant()
    def the_books_are_right(self) -> None:
        stat = self.transports[0].stat()
        assert stat["reserved"] == self.charged()
        assert stat["regions"] == len(self.live)


Regions.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestRegions = Regions.TestCase
