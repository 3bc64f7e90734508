"""Debian's pyverbs: one-sided operations between two queue pairs of this process.

Each operation builds its work request, because each has its own addresses; ours does as much.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.work import Client, Job, Work

DEBIAN = Path("/usr/lib/python3/dist-packages/pyverbs")


def pyverbs(module: str) -> Any:
    """A module of pyverbs, from Debian's folder and without the rest of that folder."""
    try:
        return importlib.import_module(f"pyverbs.{module}")
    except ModuleNotFoundError:
        folder = tempfile.mkdtemp()
        os.symlink(DEBIAN, Path(folder, "pyverbs"))
        sys.path.append(folder)
        try:
            return importlib.import_module(f"pyverbs.{module}")
        finally:
            # What is imported later finds its way by the package's own path.
            Path(folder, "pyverbs").unlink()
            Path(folder).rmdir()
            sys.modules["pyverbs"].__path__[:] = [str(DEBIAN)]


class End:
    """A device's protection domain, completion queue, memory region and queue pair."""

    def __init__(self, device: str, gid: int, size: int) -> None:
        enums = pyverbs("enums")
        qp = pyverbs("qp")
        self.gid = gid
        self.context = pyverbs("device").Context(name=device)
        self.domain = pyverbs("pd").PD(self.context)
        self.queue = pyverbs("cq").CQ(self.context, 16)
        access = (
            enums.IBV_ACCESS_LOCAL_WRITE
            | enums.IBV_ACCESS_REMOTE_READ
            | enums.IBV_ACCESS_REMOTE_WRITE
        )
        self.access = access
        self.region = pyverbs("mr").MR(self.domain, size, access)
        capacity = qp.QPCap(max_send_wr=4, max_recv_wr=1, max_send_sge=1, max_recv_sge=1)
        attributes = qp.QPInitAttr(
            qp_type=enums.IBV_QPT_RC, scq=self.queue, rcq=self.queue, cap=capacity
        )
        self.pair = qp.QP(self.domain, attributes)

    def connect(self, other: End) -> None:
        """Make the queue pair ready to send to another."""
        addr, qp = pyverbs("addr"), pyverbs("qp")
        there = other.context.query_gid(1, other.gid)
        route = addr.GlobalRoute(dgid=there, sgid_index=self.gid, hop_limit=64)
        attributes = qp.QPAttr(port_num=1)
        attributes.dest_qp_num = other.pair.qp_num
        attributes.path_mtu = self.context.query_port(1).active_mtu
        attributes.max_rd_atomic = attributes.max_dest_rd_atomic = 16
        attributes.min_rnr_timer, attributes.timeout = 12, 14
        attributes.retry_cnt = attributes.rnr_retry = 7
        attributes.qp_access_flags = self.access
        attributes.ah_attr = addr.AHAttr(gr=route, is_global=1, port_num=1)
        self.pair.to_rts(attributes)


class PeerClient(Client):
    """Two connected ends for each job."""

    def prepare(self, job: Job) -> Work:
        """Operations one at a time."""
        enums, wr = pyverbs("enums"), pyverbs("wr")
        here, there = (
            End(self.address[name], self.address["gid"], job.size) for name in ("from", "to")
        )
        here.connect(there)
        there.connect(here)
        reading = job.kind == "read"
        opcode = enums.IBV_WR_RDMA_READ if reading else enums.IBV_WR_RDMA_WRITE
        data = os.urandom(job.size)
        (there if reading else here).region.write(data, job.size)

        def call() -> None:
            piece = wr.SGE(here.region.buf, job.size, here.region.lkey)
            request = wr.SendWR(opcode=opcode, num_sge=1, sg=[piece])
            request.set_wr_rdma(there.region.rkey, there.region.buf)
            here.pair.post_send(request)
            while True:
                count, completions = here.queue.poll(1)
                if count:
                    break
            if completions[0].status != enums.IBV_WC_SUCCESS:
                raise RuntimeError(f"completion with status {completions[0].status}")

        def moved() -> list[tuple[bytes, bytes]]:
            return [(data, (here if reading else there).region.read(job.size, 0))]

        return Work(call, moved)
