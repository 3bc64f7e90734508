"""The peers: who they are, what each needs, and how a suite gets at them.

Each module here has a ``PeerClient`` and, where the peer is not a library alone, a ``Server``; both
run in worker processes (`bench.worker`), so a suite imports none of them.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from bench.harness import Options, Side
from bench.peers.perftest import perftest_timer
from bench.work import Job
from bench.worker import JobTimer, Together, Worker

__all__ = ["PEERS", "Opened", "Peer", "missing", "open_peers", "opened"]


@dataclass(frozen=True, slots=True)
class Peer:
    """Someone to be measured against.

    Parameters
    ----------
    label
        In tables.
    module
        In `bench.peers`.
    modules, programs
        What it needs.
    how
        The command that gets it.
    ways
        How it can keep operations outstanding (see `bench.work.Job`), and what a table calls that.
    server
        Whether it has a ``Server``.
    environment
        For its processes.
    """

    label: str
    module: str
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    how: str = ""
    ways: tuple[tuple[str, str], ...] = (("one", ""),)
    server: bool = True
    environment: tuple[tuple[str, str], ...] = ()


_EXTRA = "pip install 'scad[bench]'"
PEERS: dict[str, Peer] = {
    "copyto": Peer("np.copyto", "copy", server=False),
    "socket": Peer(
        "socket recv_into", "sockets", ways=(("one", ""), ("window", ", pipelined"))
    ),
    "zmq": Peer("pyzmq REQ/REP, no copy", "zeromq", ("zmq",), how=_EXTRA),
    "redis": Peer(
        "Redis",
        "redis_server",
        ("redis", "hiredis"),
        ("redis-server",),
        f"apt-get install redis-server; {_EXTRA}",
        (("one", ""), ("vector", " pipelined")),
    ),
    "flight": Peer("Arrow Flight", "flight", ("pyarrow.flight",), how=_EXTRA),
    "ucx": Peer(
        "UCX ucx_perftest (C)",
        "perftest",
        programs=("ucx_perftest",),
        how="apt-get install ucx-utils",
        ways=(("one", ""), ("window", "")),
    ),
    "ucxx": Peer(
        "ucxx tag send/recv",
        "ucx",
        ("ucxx",),
        how=_EXTRA,
        environment=(("UCX_TLS", "tcp,self"), ("UCX_LOG_LEVEL", "error")),
    ),
    "ray": Peer("Ray objects", "ray_objects", ("ray",), how="pip install 'scad[ray]'",
        ways=(("one", ""), ("map", ", no copy")), server=False,
    ),
    "mooncake": Peer(
        "Mooncake TCP",
        "mooncake",
        ("mooncake.engine",),
        how=_EXTRA,
        ways=(("one", ""), ("vector", " batch")),
        environment=(("MC_FORCE_TCP", "1"), ("GLOG_minloglevel", "3")),
    ),
}  # fmt: skip


def _found(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def missing(key: str) -> str | None:
    """Why a peer cannot take part here and how to change that, or None."""
    peer = PEERS[key]
    absent = [m for m in peer.modules if not _found(m)]
    absent += [p for p in peer.programs if shutil.which(p) is None]
    return f"{peer.label} (not installed: {peer.how})" if absent else None


@dataclass(slots=True)
class Opened:
    """A peer whose processes run, or one that is not installed.

    Parameters
    ----------
    key, peer
        Which.
    absent
        Why it cannot take part, and how to get it; None if it can.
    clients
        Its processes; none of a peer that is absent or a program with a clock of its own.
    """

    key: str
    peer: Peer
    absent: str | None
    clients: list[Worker]

    def names(self, job: Job) -> str:
        """What a table calls this peer at this job."""
        return self.called(dict(self.peer.ways).get(job.way, ""))

    def called(self, suffix: str) -> str:
        """The label with a suffix, or, of a peer that is not installed, how to get it."""
        return self.absent or self.peer.label + suffix

    def takes(self, job: Job) -> bool:
        """Whether the peer can do the job in this way."""
        return job.way in dict(self.peer.ways)

    def side(self, job: Job) -> Side | None:
        """The peer's side of a case."""
        if self.absent:
            return None
        if self.peer.module == "perftest":
            return perftest_timer(job)
        if len(self.clients) > 1:
            return Together(self.clients, job)
        return JobTimer(self.clients[0], job)


@contextmanager
def opened(key: str, clients: int = 1) -> Iterator[Opened]:
    """Start a peer with so many clients; a peer without an interpreter lock to share gets one
    server for all of them, a Python one gets one for each.
    """
    peer = PEERS[key]
    why = missing(key)
    if why is not None or peer.module == "perftest":
        yield Opened(key, peer, why, [])
        return
    module = f"bench.peers.{peer.module}"
    environment = dict(peer.environment)
    with ExitStack() as stack:

        def worker(role: str, arguments: dict[str, Any] | None = None) -> Worker:
            return stack.enter_context(Worker(module, role, arguments, environment))

        addresses: list[dict[str, Any]] = [{}] * clients
        if peer.server:
            one_for_all = peer.module == "redis_server"
            servers = [worker("Server") for _ in range(1 if one_for_all else clients)]
            addresses = [servers[i % len(servers)].address for i in range(clients)]
        made = [worker("PeerClient", {"address": address}) for address in addresses]
        yield Opened(key, peer, None, made)


def open_peers(keys: list[str], options: Options, aimed: tuple[str, ...] = ()) -> Iterator[Opened]:
    """Each of these peers in turn, started before and ended after its turn.

    `aimed` are those that the suite has targets against.
    """
    for key in keys:
        if options.wants(key) and not (options.targets and key not in aimed):
            with opened(key) as peer:
                yield peer
