"""One-sided reads and writes over RDMA, beside perftest, a plain C loop and pyverbs.

Needs an RDMA device: ``python -m tests.rdma.guest -- python -m bench verbs`` boots a guest with
two. All peers move from the first device to the last.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.elements import served
from bench.harness import Case, Options, Side, Timer, Unavailable
from bench.native import CORE, NO_COMPILER, ProgramTimer, compiled
from bench.peers.perftest import PairError, run_pair
from bench.peers.verbs_pyverbs import DEBIAN
from bench.sizes import label
from bench.work import KIB, MIB, Job
from bench.worker import JobTimer, Worker

__all__ = ["IbPerftest", "gid_index", "rdma_devices", "verbs"]

DEVICES = Path("/sys/class/infiniband")
SIZES = [8, 64, 512, 4 * KIB, 64 * KIB, MIB]
LATENCY_UP_TO = 4 * KIB
DEPTH = 8


def rdma_devices() -> list[str]:
    """Names of this machine's RDMA devices."""
    return sorted(path.name for path in DEVICES.iterdir()) if DEVICES.is_dir() else []


def gid_index(device: str) -> int:
    """The device's first GID for RoCE v2 over IPv4; 0 where there is none (InfiniBand)."""
    port = DEVICES / device / "ports/1"
    for path in sorted((port / "gids").iterdir(), key=lambda p: int(p.name)):
        try:
            kind = (port / "gid_attrs/types" / path.name).read_text().strip()
        except OSError:  # an empty place in the table
            continue
        if kind == "RoCE v2" and ":ffff:" in path.read_text():
            return int(path.name)
    return 0


class IbPerftest(Timer):
    """``ib_read_lat``, ``ib_read_bw`` or ``ib_write_bw``, on their own clock."""

    def __init__(self, program: str, devices: tuple[str, str], gid: int, size: int) -> None:
        self.program = program
        self.devices = devices
        self.common = ["-x", str(gid), "-s", str(size), "-F"]
        self.size = size

    def seconds(self, repeat: int) -> float:
        """Run the pair of processes; only what they measure counts."""
        iterations = max(repeat, 10)
        here, there = self.devices
        options = [*self.common, "-n", str(iterations)]
        if self.program.endswith("_bw"):
            options.append("--report_gbits")
        server = [self.program, "-d", there, *options]
        output = run_pair(server, [self.program, "-d", here, *options, "127.0.0.1"])
        for line in output.splitlines():
            words = line.split()
            if words[:2] == [str(self.size), str(iterations)]:
                break
        else:
            raise PairError(f"{self.program}: {output[-500:]}")
        if self.program.endswith("_bw"):
            # bytes, iterations, peak, average
            return repeat * self.size * 8 / (float(words[3]) * 1e9)
        # bytes, iterations, least, most, typical, average
        return repeat * float(words[5]) * 1e-6


def perftest(
    program: str, devices: tuple[str, str], gid: int, size: int
) -> tuple[str, Side | None]:
    """One of perftest's programs, and what a table calls it."""
    if shutil.which(program) is None:
        return f"{program} (not installed: apt-get install perftest)", None
    return program, IbPerftest(program, devices, gid, size)


def verbs(options: Options) -> Iterator[Case]:
    """Latency of small operations in us, of large ones GB/s; the issue's three targets.

    ``ib_read_bw`` and ``ib_write_bw`` keep many operations outstanding; the target against them is
    about two alternating batches of ours.
    """
    found = rdma_devices()
    if not found:
        raise Unavailable(
            "no RDMA device here; python -m tests.rdma.guest -- python -m bench verbs"
        )
    devices, gid = (found[0], found[-1]), gid_index(found[0])
    sizes = [8] if options.quick else SIZES
    with (
        served() as memory,
        compiled("verbs_calls.c", libraries=[["-libverbs"]]) as program,
        compiled("transport_calls.c", CORE, [["-DLIBD_HAVE_VERBS", "-ldl"]]) as core,
    ):
        ours = memory.client("uverbs")
        secrets = {"BENCH_DURL": memory.grant.durl("memory", "rdma_uverbs")}
        for kind in ("read", "write"):
            for size in sizes:
                small = size <= LATENCY_UP_TO

                def case(
                    job: Job, peer_name: str, peer: Side | None,
                    target: float | None = None, small: bool = small,
                ) -> Case:  # fmt: skip
                    depth = f", {job.depth} in flight" if job.depth > 1 else ""
                    return Case(
                        name=f"verbs {job.kind} {label(job.size)}{depth}",
                        unit="us" if small else "GB/s",
                        ours=JobTimer(ours, job),
                        peer_name=peer_name,
                        peer=peer,
                        operations=job.count,
                        peer_operations=1,
                        size=job.size,
                        target=target,
                        repeat=0,
                        table=f"verbs {job.kind}, {'latency' if small else 'bandwidth'}",
                        x=job.size,
                    )

                one = Job(kind, size)
                first = (kind, size) == ("read", 8)
                loop = (
                    ProgramTimer(program, *devices, str(gid), kind, str(size)) if program else None
                )
                name = "C loop" if program else NO_COMPILER
                yield case(one, name, loop, 1.05 if first else None)
                if small and core:
                    # What the transport takes by itself, without the interpreter that calls it.
                    mine = ProgramTimer(core, "", kind, str(size), environment=secrets)
                    yield replace(
                        case(one, name, loop, 1.05 if first else None),
                        name=f"verbs {kind} {label(size)}, from C", ours=mine,
                    )  # fmt: skip
                if DEBIAN.exists():
                    address = {"from": devices[0], "to": devices[1], "gid": gid}
                    module = "bench.peers.verbs_pyverbs"
                    with Worker(module, "PeerClient", {"address": address}) as other:
                        target = 1 / 3 if first else None
                        yield case(one, "pyverbs", JobTimer(other, one), target)
                else:
                    yield case(
                        one, "pyverbs (not installed: apt-get install python3-pyverbs)", None
                    )
                if small and kind == "read":
                    yield case(one, *perftest("ib_read_lat", devices, gid, size))
                if not small:
                    tool = perftest(f"ib_{kind}_bw", devices, gid, size)
                    yield case(one, *tool)
                    many = Job(kind, size, DEPTH, "batches", 4 * DEPTH)
                    aim = 0.97 if (kind, size) == ("read", MIB) else None
                    yield case(many, *tool, aim)
