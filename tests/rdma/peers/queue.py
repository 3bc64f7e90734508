"""Queue pairs and memory on pyverbs: the one place that knows it.

pyverbs has no types, so what comes out of it is ``Any``, in the private attributes here only. It
is imported when it is needed: the tests make it visible first.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import random
import time
from types import TracebackType
from typing import Any, Self

from tests.rdma.peers.protocol import Peer, Region

__all__ = ["Device", "Memory", "QueuePair", "WorkError"]

_ANSWERED = 16  # READs and atomics that one end answers at a time
_LONGEST = 60.0  # seconds that an operation may take; under emulation, on a busy machine
_TIMEOUT, _RETRIES = 17, 6  # 4.096 µs << 17 = 0.54 s until a packet goes out anew
_RNR = 12  # 0.64 ms; nobody here sends what needs a receive
_ROCE = bytes(10) + b"\xff\xff"  # an IPv4 address in an IPv6 one


def _load(module: str) -> Any:
    return importlib.import_module(f"pyverbs.{module}")


class WorkError(Exception):
    """The device refused an operation.

    Attributes
    ----------
    status
        The name of the work completion's status: ``REM_ACCESS_ERR``.
    """

    def __init__(self, what: str, status: str) -> None:
        super().__init__(f"{what}: {status}")
        self.status = status


def _status(number: int) -> str:
    enums = _load("enums")
    for name in dir(enums):
        errors = name.endswith(("_ERR", "_SUCCESS"))
        if name.startswith("IBV_WC_") and errors and getattr(enums, name) == number:
            return name.removeprefix("IBV_WC_")
    return str(number)


class _Closing:
    """Closes when the block is left."""

    def close(self) -> None:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Device(_Closing):
    """An RDMA device, one of its ports, and a protection domain of its own.

    Attributes
    ----------
    gid, gid_index
        The port's IPv4 RoCEv2 GID and where it stands in the table; the first one of the table if
        there is no such GID.
    """

    def __init__(self, name: str, port: int = 1) -> None:
        enums = self._enums = _load("enums")
        self.name = name
        self.port = port
        self._context = _load("device").Context(name=name)
        with contextlib.ExitStack() as undo:
            undo.callback(self._context.close)
            about, limits = self._context.query_port(port), self._context.query_device()
            self.mtu = int(about.active_mtu)
            self.lid = int(about.lid)
            self.answers = min(_ANSWERED, int(limits.max_qp_rd_atom))
            self.asks = min(_ANSWERED, int(limits.max_qp_init_rd_atom))
            self.gid_index, self.gid = 0, bytes(16)
            for entry in reversed(self._context.query_gid_table(about.gid_tbl_len)):
                gid = bytes.fromhex(entry.gid_str().replace(":", ""))
                ipv4 = gid.startswith(_ROCE) and entry.gid_type == enums.IBV_GID_TYPE_ROCE_V2
                if entry.port_num == port and (ipv4 or not self.gid.startswith(_ROCE)):
                    self.gid_index, self.gid = int(entry.gid_index), gid
            self._domain = _load("pd").PD(self._context)
            undo.pop_all()

    def close(self) -> None:
        """Close the device and what is left of its queue pairs and memory."""
        self._context.close()


class Memory(_Closing):
    """Registered memory that this process shares with nobody but the device.

    Attributes
    ----------
    address, rkey
        Where it is, and what opens it to one-sided operations.
    """

    def __init__(
        self, device: Device, size: int, *, remote: bool = False, atomic: bool = False
    ) -> None:
        enums = device._enums
        access = enums.IBV_ACCESS_LOCAL_WRITE
        if remote:
            access |= enums.IBV_ACCESS_REMOTE_READ | enums.IBV_ACCESS_REMOTE_WRITE
        if atomic:
            access |= enums.IBV_ACCESS_REMOTE_ATOMIC
        self.size = size
        self.bytes = mmap.mmap(-1, size)
        first = ctypes.c_char.from_buffer(self.bytes)
        self.address = ctypes.addressof(first)
        del first  # it would keep the mapping from being closed
        try:
            self._region = _load("mr").MR(device._domain, size, access, self.address)
        except BaseException:
            self.bytes.close()
            raise
        self.rkey = int(self._region.rkey)
        self._lkey = int(self._region.lkey)

    def close(self) -> None:
        """End the registration, then unmap."""
        self._region.close()
        self.bytes.close()


class QueuePair(_Closing):
    """One end of a reliable connection; `connect` makes it usable.

    Operations are one at a time and are waited for.
    """

    def __init__(self, device: Device) -> None:
        enums, qp = device._enums, _load("qp")
        self.device = device
        self.psn = random.getrandbits(24)
        self._queue = _load("cq").CQ(device._context, 16, None, None, 0)
        with contextlib.ExitStack() as undo:
            undo.callback(self._queue.close)
            about = qp.QPInitAttr(
                qp_type=enums.IBV_QPT_RC,
                scq=self._queue,
                rcq=self._queue,
                cap=qp.QPCap(max_send_wr=16, max_recv_wr=1, max_send_sge=1, max_recv_sge=1),
                sq_sig_all=1,
            )
            self._pair = qp.QP(device._domain, about)
            undo.pop_all()

    @property
    def me(self) -> Peer:
        """What the other end has to know."""
        device = self.device
        number = int(self._pair.qp_num)
        return Peer(device.gid, number, self.psn, device.lid, device.mtu, device.answers)

    def connect(self, peer: Peer) -> None:
        """Bring the queue pair to RTS, by way of INIT and RTR."""
        device, enums, addr = self.device, self.device._enums, _load("addr")
        # pyverbs wants the GID as text, whole: "0000:…:ffff:0a14:0001".
        text = ":".join(peer.gid[i : i + 2].hex() for i in range(0, 16, 2))
        route = addr.GlobalRoute(dgid=addr.GID(text), sgid_index=device.gid_index, hop_limit=64)
        attributes = _load("qp").QPAttr(port_num=device.port)
        attributes.pkey_index = 0
        attributes.qp_access_flags = (
            enums.IBV_ACCESS_REMOTE_READ
            | enums.IBV_ACCESS_REMOTE_WRITE
            | enums.IBV_ACCESS_REMOTE_ATOMIC
        )
        attributes.path_mtu = min(device.mtu, peer.mtu)
        attributes.dest_qp_num = peer.qpn
        attributes.rq_psn = peer.psn & 0xFFFFFF
        attributes.max_dest_rd_atomic = device.answers
        attributes.min_rnr_timer = _RNR
        attributes.ah_attr = addr.AHAttr(
            dlid=peer.lid, is_global=int(any(peer.gid)), port_num=device.port, gr=route
        )
        attributes.sq_psn = self.psn
        attributes.max_rd_atomic = min(device.asks, peer.atomic)
        attributes.timeout = _TIMEOUT
        attributes.retry_cnt = _RETRIES
        attributes.rnr_retry = _RETRIES
        self._pair.to_rts(attributes)  # through INIT and RTR

    def read(self, memory: Memory, size: int, region: Region, offset: int = 0) -> None:
        """Read ``region[offset : offset + size]`` into the beginning of ``memory``."""
        self._run("READ", self._work("RDMA_READ", memory, size), region, offset)

    def write(self, memory: Memory, size: int, region: Region, offset: int = 0) -> None:
        """Write the beginning of ``memory`` to ``region[offset : offset + size]``."""
        self._run("WRITE", self._work("RDMA_WRITE", memory, size), region, offset)

    def fetch_add(self, memory: Memory, region: Region, offset: int, delta: int) -> None:
        """Add to a word; what it was goes to the beginning of ``memory``."""
        work = self._work("ATOMIC_FETCH_AND_ADD", memory, 8)
        self._run("FETCH_AND_ADD", work, region, offset, delta % (1 << 64), 0)

    def compare_swap(
        self, memory: Memory, region: Region, offset: int, expected: int, desired: int
    ) -> None:
        """Replace a word if it is as expected; what it was goes to the beginning of ``memory``."""
        work = self._work("ATOMIC_CMP_AND_SWP", memory, 8)
        self._run("CMP_AND_SWP", work, region, offset, expected, desired)

    def _work(self, opcode: str, memory: Memory, size: int) -> Any:
        enums, wr = self.device._enums, _load("wr")
        piece = wr.SGE(memory.address, size, memory._lkey)
        return wr.SendWR(
            wr_id=1,
            opcode=getattr(enums, f"IBV_WR_{opcode}"),
            num_sge=1,
            sg=[piece],
            send_flags=enums.IBV_SEND_SIGNALED,
        )

    def _run(self, what: str, work: Any, region: Region, offset: int, *words: int) -> None:
        if words:
            work.set_wr_atomic(region.rkey, region.addr + offset, *words)
        else:
            work.set_wr_rdma(region.rkey, region.addr + offset)
        self._pair.post_send(work)
        deadline = time.monotonic() + _LONGEST
        while True:
            count, done = self._queue.poll(1)
            if count:
                break
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: no completion within {_LONGEST} s")
            time.sleep(1e-4)  # the emulated device works on this processor too
        if done[0].status != self.device._enums.IBV_WC_SUCCESS:
            raise WorkError(what, _status(done[0].status))

    def close(self) -> None:
        """Destroy the queue pair, then its completion queue."""
        self._pair.close()
        self._queue.close()
