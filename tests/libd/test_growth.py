"""What the server takes beyond its pool, and that nothing grows with use."""

from __future__ import annotations

import json
import os
import resource
import socket
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from libd import ElementGrant, LibdAction, MemoryServerProcess
from tests.libd.test_requests import REPLY, REQUEST, greeting
from tests.waiting import until

BASE, PER_CLIENT = 20 << 20, 64 << 10
SANITIZED = "SCAD_SANITIZE" in os.environ  # shadows and quarantines are no memory of ours


def beyond_pool(pid: int) -> int:
    """Bytes that are resident in the server's process, but for the pages of arenas that it touched.

    The tables of regions are counted: they are shared, but no client's bytes.
    """
    total = arenas = 0
    for mapping in psutil.Process(pid).memory_maps():
        total += mapping.rss
        if "scad-arena" in mapping.path:
            arenas += mapping.rss
    return total - arenas


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Both sides need `count` of them; the server inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < count:
        if hard != resource.RLIM_INFINITY and hard < count:
            pytest.skip(f"{count} descriptors are needed, and {hard} allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def dial(process: MemoryServerProcess, grant: ElementGrant) -> socket.socket:
    host, _, port = process.tcp_url.removeprefix("tcp://").rpartition(":")
    sock = socket.create_connection((host, int(port)), timeout=30)
    sock.sendall(greeting(grant))
    reply = REPLY.unpack(sock.recv(REPLY.size, socket.MSG_WAITALL))
    assert reply[2] == 0
    sock.recv(reply[6], socket.MSG_WAITALL)
    return sock


@pytest.mark.skipif(SANITIZED, reason="sanitizers take more than the server")
def test_memory_beyond_the_pool() -> None:
    clients, regions = 1000, 10_000
    with descriptors(clients + 200), ExitStack() as stack:
        process = stack.enter_context(MemoryServerProcess("128 MB"))
        tenant = process.control.create_tenant("t", "96 MB")
        grant = process.control.create_element(tenant, "m", elastic=True)
        assert beyond_pool(process.pid) <= BASE
        action = stack.enter_context(LibdAction("0", [grant.durl("m", "rdma_shm")]))
        trans = action.get_transport("m")
        for _ in range(regions):
            trans.alloc(4096, lease=1000)
        assert beyond_pool(process.pid) <= BASE + PER_CLIENT
        socks = [stack.enter_context(dial(process, grant)) for _ in range(clients)]
        for sock in socks:  # half a request each, so that the server keeps something for all
            sock.sendall(REQUEST.pack(9, 0, 0, 1, 0, 0, 0, 0)[:24])
        for sock in socks:
            sock.sendall(REQUEST.pack(9, 0, 0, 1, 0, 0, 0, 0)[24:])
            assert REPLY.unpack(sock.recv(REPLY.size, socket.MSG_WAITALL))[2] == 0
        stats = process.control.stats()
        assert stats.connections == clients + 2
        assert stats.regions == regions
        used = beyond_pool(process.pid)
        assert used <= BASE + clients * PER_CLIENT
        assert 0 < stats.overhead <= used  # what the server says of itself


@pytest.mark.skipif(SANITIZED, reason="sanitizers take more than the server")
def test_memory_with_metrics() -> None:
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "8MB", "--metrics", "0"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"SCAD_METRICS_TOKEN": "scraper"},
    )
    assert process.stderr is not None
    try:
        process.stderr.readline()
        url = process.stderr.readline().split(" at ")[1].strip()
        request = urllib.request.Request(url, headers={"Authorization": "Bearer scraper"})
        for _ in range(20):
            with urllib.request.urlopen(request, timeout=20) as reply:
                assert b"libd_overhead_bytes" in reply.read()
        assert beyond_pool(process.pid) <= BASE
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.skipif(SANITIZED, reason="sanitizers take more than the server")
def test_memory_of_clients_that_ask_for_a_lot_at_a_time() -> None:
    """The longest list of segments, from many clients at once, and gone when they are."""
    clients, longest = 100, 2048
    segments = struct.pack("<QQQ", 0, 0, 4096) * longest
    with MemoryServerProcess("64 MB", default_region=1 << 20) as process, ExitStack() as stack:
        tenant = process.control.create_tenant("t", "16 MB")
        grant = process.control.create_element(tenant, "m", 4096)
        before = beyond_pool(process.pid)
        for _ in range(clients):
            sock = stack.enter_context(dial(process, grant))
            sock.sendall(REQUEST.pack(3, 0, longest, 1, 0, 0, 0, len(segments)) + segments)
        # It has begun to answer all of them, and nobody takes what it says.
        read = 2048 * 4096 * clients
        until(lambda: process.control.stats().bytes_read == read)
        assert process.control.stats().connections == clients + 1
        assert beyond_pool(process.pid) <= before + clients * PER_CLIENT


# ---- cycles -------------------------------------------------------------------------------------

CYCLES = """
import gc, json, os, sys
from libd import ArenaCache, LibdAction

durls, cycles = sys.argv[1:3], int(sys.argv[3])

def measure():
    gc.collect()
    with open("/proc/self/statm") as f:
        _, resident, shared, *_ = map(int, f.read().split())
    with open("/proc/self/maps") as f:
        segments = sum("memfd:" in line for line in f)
    return {
        "memory": (resident - shared) * 4096,
        "fds": len(os.listdir("/proc/self/fd")),
        "segments": segments,
    }

def cycle(i):
    with LibdAction("soak", [durls[i % 2]], cache=ArenaCache()) as action:
        trans = action.get_transport("m")
        addr = trans.alloc(1 << 14, lease=0.001 if i % 3 == 0 else None)
        trans.write_from(addr, bytes([i % 256]) * (1 << 14))
        addr = trans.extend(addr, 1 << 15)
        out = bytearray(1 << 14)
        trans.submit(reads=[(addr, out)]).wait()
        assert out.count(i % 256) == 1 << 14
        trans.fetch_add(addr, 1)
        if i % 3:  # else the lease gives it back
            trans.free(addr)

def report():
    print(json.dumps(measure()), flush=True)
    sys.stdin.readline()

for i in range(cycles // 4):
    cycle(i)
report()
for i in range(cycles):
    cycle(i)
report()
"""


def test_numbers_of_regions_rest_and_come_again() -> None:
    """The table of regions is as long as many rest, however many there have been."""
    resting = 4096
    with LibdAction("0", ["m;rdma_local;size,1MB;elastic,true;"]) as action:
        trans = action.get_transport("m")
        kept = trans.alloc(64)
        seen = []
        for _ in range(3 * resting):
            addr = trans.alloc(64)
            trans.free(addr)
            seen.append(addr >> 40)
        assert seen[:resting] == list(range(2, resting + 2))  # as long as they rest, all are fresh
        assert max(seen) == resting + 1
        last: dict[int, int] = {}
        for i, region in enumerate(seen):  # and one rests as long as any other
            assert i - last.get(region, -resting) >= resting
            last[region] = i
        held = [trans.alloc(64) for _ in range(resting + 10)]
        assert len({addr >> 40 for addr in [kept, *held]}) == resting + 11


@pytest.mark.parametrize(
    "cycles",
    [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_nothing_grows_with_cycles(cycles: int) -> None:
    with MemoryServerProcess("64 MB") as process:
        tenant = process.control.create_tenant("t", "32 MB")
        grant = process.control.create_element(tenant, "m", elastic=True)
        server = psutil.Process(process.pid)

        def measure() -> dict[str, int]:
            while process.control.element_stats(tenant, grant.id).regions:
                pass  # the last leases
            while process.control.stats().connections > 1:
                pass
            maps = Path(f"/proc/{process.pid}/maps").read_text()
            return {
                "memory": process.control.stats().overhead,
                "fds": server.num_fds(),
                "segments": maps.count("memfd:"),
            }

        client = subprocess.Popen(
            [
                sys.executable, "-c", CYCLES,
                grant.durl("m", "rdma_shm"), grant.durl("m", "rdma_tcp"), str(cycles),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert client.stdin is not None
        assert client.stdout is not None
        with client, client.stdin, client.stdout:
            found = []
            for _ in range(2):
                here = json.loads(client.stdout.readline())
                found.append((here, measure()))
                client.stdin.write("\n")
                client.stdin.flush()
        assert client.returncode == 0
        for before, after in zip(*found, strict=True):
            assert after["fds"] == before["fds"]
            assert after["segments"] == before["segments"]
            assert SANITIZED or after["memory"] <= before["memory"] + (1 << 20)
        stats = process.control.stats()
        assert stats.leases == 0
        assert stats.leases_expired >= cycles // 3
        assert stats.reserved == 0
