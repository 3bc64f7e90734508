"""libd by itself: memory of another process, read and written from here.

Run it from the repository's folder: ``python examples/far_memory.py``
"""

from __future__ import annotations

import asyncio

import numpy as np

from libd import LibdAction, MemoryServerProcess


async def read_twice(trans, out: np.ndarray) -> int:
    """Await two batches at a time; nothing runs in the background."""
    half = len(out) // 2
    moved = await asyncio.gather(
        trans.submit(reads=[(0, out[:half])]),
        trans.submit(reads=[(half * out.itemsize, out[half:])]),
    )
    return sum(moved)


def main() -> None:
    """Serve 64 MB, and use them over shared memory and over TCP."""
    with MemoryServerProcess("64 MB") as server:
        tenant = server.control.create_tenant("me", "64 MB")
        fixed = server.control.create_element(tenant, "table", "8 MB")
        pool = server.control.create_element(tenant, "pool", elastic=True)
        durls = [fixed.durl("here", "rdma_auto"), fixed.durl("there", "rdma_tcp")]
        durls.append(pool.durl("pool", "rdma_tcp"))
        with LibdAction("example", durls) as action:
            here, there = action.get_transport("here"), action.get_transport("there")
            print(f"auto chose {here.type}; the other is {there.type}")

            numbers = np.arange(1 << 20, dtype=np.int64)
            here.write_from(0, numbers)
            view = np.frombuffer(here.map(0, numbers.nbytes), np.int64)  # no copy
            print("seen through the map:", int(view.sum()))

            # 64 scattered reads are one request.
            rows = np.random.default_rng(0).integers(0, 1 << 20, 64)
            found = np.empty(64, np.int64)
            done = there.submit(reads=[(int(r) * 8, found[i : i + 1]) for i, r in enumerate(rows)])
            print("bytes of the batch:", done.wait(), "right:", bool((found == rows).all()))

            out = np.empty_like(numbers)
            print("awaited bytes:", asyncio.run(read_twice(there, out)))

            # A word that several processes may count on, whichever transport they use.
            print("tickets:", here.fetch_add(0, 1), there.fetch_add(0, 1))

            # Memory that comes back 30 s after this process is gone, however it goes.
            heap = action.get_transport("pool")
            addr = heap.alloc(1 << 20, lease=30)
            heap.write_from(addr, b"scratch")
            ref = heap.ref([(addr, 7)])
            heap.renew(addr)  # worth keeping after all
            print("a reference to it:", ref.to_json())


if __name__ == "__main__":
    main()
