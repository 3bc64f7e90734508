"""A region that moves when it is extended loses no write that was acknowledged."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from libd import LibdError

Stand = Any  # conftest.py's


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_writes_while_a_region_moves(stand: Stand, kind: str) -> None:
    size = 1 << 25
    grant = stand.control.create_element(stand.tenant(4 * size), "m", elastic=True)
    owner, writer = stand.open(grant, kind), stand.open(grant, kind)
    for _ in range(5):
        addr = owner.alloc(size)
        owner.write_from(addr, bytes(8))
        behind = owner.alloc(64)  # so that it cannot grow where it is
        writer.resolve(owner.ref([(addr, 8)]))
        written, began = [0], threading.Event()

        def work(at: int = addr, last: list[int] = written, go: threading.Event = began) -> None:
            number = 1
            try:
                while True:
                    writer.write_from(at, number.to_bytes(8, "little"))
                    last[0] = number
                    number += 1
                    if number == 100:
                        go.set()
            except LibdError:
                return

        thread = threading.Thread(target=work)
        thread.start()
        assert began.wait(30)
        moved = owner.extend(addr, size + (1 << 20))
        thread.join(30)
        assert moved != addr
        out = bytearray(8)
        owner.read_into(moved, out)
        # One that was refused may be in the copy, too; none that was acknowledged is missing.
        assert int.from_bytes(out, "little") in (written[0], written[0] + 1)
        owner.free(moved)
        owner.free(behind)
