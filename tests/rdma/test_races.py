"""What two threads, or two clients, do to one another under verbs."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

import numpy as np
import pytest

from libd import LibdError, StaleRefError

Stand = Any


@pytest.mark.parametrize("kind", ["queued", "older", "concurrent"])
def test_flush_waits_for_every_earlier_write(stand: Stand, kind: str) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 25), "m", 1 << 25, elastic=True)
    trans, tcp = stand.open(grant, "uverbs"), stand.open(grant, "tcp")
    far, word = trans.alloc(1 << 20), trans.alloc(64)
    trans.write_from(word, bytes(8))
    out = bytearray(8)
    tcp.resolve(trans.ref([(word, 8)]))
    trans.flush()
    keep = [bytearray(1 << 16) for _ in range(100)]
    if kind == "queued":  # the write has not been posted when flush looks
        batches = [trans.submit(reads=[(far, k)]) for k in keep]
        batches.append(trans.submit(writes=[(word, b"written!")]))
        trans.flush()
    elif kind == "older":  # more regions written since than are remembered, all freed
        others = [trans.alloc(64) for _ in range(8)]
        batches = [trans.submit(reads=[(far, k)]) for k in keep]
        while not batches[-9].done:
            batches[-9].poll()
        batches.append(trans.submit(writes=[(word, b"written!")]))
        for o in others:
            batches.append(trans.submit(writes=[(o, b"x")]))
        for o in others:
            tcp.resolve(trans.ref([(o, 1)]))
        for o in others:
            tcp.free(o)
        trans.flush()
    else:  # another flush has taken the note
        batches = [trans.submit(reads=[(far, k)]) for k in keep[:60]]
        batches.append(trans.submit(writes=[(far, b"x")]))
        other = threading.Thread(target=trans.flush)
        other.start()
        time.sleep(0.02)
        batches += [trans.submit(reads=[(far, k)]) for k in keep[60:68]]
        batches.append(trans.submit(writes=[(word, b"written!")]))
        other.join()
        trans.flush()
    tcp.read_into(word, out)
    for b in batches:
        with contextlib.suppress(StaleRefError):
            b.wait()
    assert out == b"written!"


def test_what_is_under_way_when_its_own_transport_extends(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 25), "m", 1 << 25, elastic=True)
    trans = stand.open(grant, "uverbs")
    addr = trans.alloc(1 << 22)
    data = np.random.default_rng(1).integers(0, 256, 1 << 22, dtype=np.uint8)
    trans.write_from(addr, data)
    outs = [np.zeros(1 << 22, np.uint8) for _ in range(4)]
    batches = [trans.submit(reads=[(addr, o)]) for o in outs]
    assert trans.extend(addr, 1 << 23) == addr
    more = trans.submit(writes=[(addr + (1 << 22), b"beyond")])
    for b, o in zip(batches, outs, strict=True):
        b.wait()
        np.testing.assert_array_equal(o, data)
    more.wait()


@pytest.mark.parametrize("kind", ["uverbs", "shm", "tcp"])
def test_no_write_is_lost_when_a_region_moves(stand: Stand, kind: str) -> None:
    size = 1 << 25
    grant = stand.control.create_element(stand.tenant(1 << 28), "m", 1 << 27, elastic=True)
    owner, writer = stand.open(grant, kind), stand.open(grant, kind)
    addr = owner.alloc(size)
    owner.write_from(addr, bytes(8))
    fence = owner.alloc(64)
    assert writer.resolve(owner.ref([(addr, 8)]))
    done = [0]

    def work() -> None:
        n = 1
        try:
            while True:
                writer.write_from(addr, n.to_bytes(8, "little"))
                done[0] = n
                n += 1
        except LibdError:
            pass

    thread = threading.Thread(target=work)
    thread.start()
    while done[0] < 3:
        time.sleep(0.01)
    moved = owner.extend(addr, 2 * size)
    thread.join()
    assert fence
    assert moved != addr
    out = bytearray(8)
    owner.read_into(moved, out)
    got = int.from_bytes(out, "little")
    print("acked", done[0], "found", got)
    assert got >= done[0]


def test_a_buffers_first_use_by_many(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "m", 1 << 20)
    trans = stand.open(grant, "uverbs")
    trans.write_from(0, b"x" * (1 << 20))
    wrong: list[object] = []
    for _ in range(10):
        buf = trans.reg(1 << 20)
        before = trans.registrations.made
        barrier = threading.Barrier(4)

        def work(i: int, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                trans.read(1 << 18, i << 18, i << 18)
            except LibdError as error:
                wrong.append(error)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        print("made", trans.registrations.made - before, wrong)
        assert not wrong
        assert bytes(buf[0 : 1 << 20]) == b"x" * (1 << 20)
