"""Which transport leads best from here to a memory element, and why.

A durl of type ``rdma_auto`` carries every way to its element; `choose` orders those that are open
to this process. What is not here: opening them (`libd.transport`).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from libd.durl import Durl
from libd.errors import DurlError

__all__ = ["Choice", "choose", "host_id", "rdma_ports"]

_OWN = frozenset({"unix", "host", "rdma"})
"""Settings that only ``rdma_auto`` has; the durls that it stands for do not."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A transport that may lead to the element: its durl, and why it is chosen or passed over.

    Attributes
    ----------
    type
        ``rdma_local``, ``rdma_shm``, ``rdma_uverbs`` or ``rdma_tcp``.
    durl
        The address by that transport; None if it does not lead there.
    why
        The reason, in words.
    """

    type: str
    durl: Durl | None
    why: str


@functools.cache
def host_id() -> str:
    """Name what this process shares abstract Unix sockets with: this boot, this network namespace.

    Two containers on one machine have different names, and so have two boots.
    """
    import hashlib  # OpenSSL: 3 MB, which a memory server's process does not have to spare

    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/self/ns/net").st_ino
    return hashlib.sha256(f"{boot} {namespace}".encode()).hexdigest()[:24]


def rdma_ports(root: Path = Path("/sys/class/infiniband")) -> list[tuple[str, int]]:
    """List ``(device, port)`` of the RDMA ports of this machine that are active."""
    try:
        devices = sorted(root.iterdir())
    except OSError:
        return []
    found = []
    for device in devices:
        for state in sorted(device.glob("ports/*/state")):
            try:
                active = "ACTIVE" in state.read_text()
            except OSError:
                continue
            if active:
                found.append((device.name, int(state.parent.name)))
    return found


def choose(
    durl: Durl,
    *,
    here: str | None = None,
    ports: Sequence[tuple[str, int]] | None = None,
) -> list[Choice]:
    """Order the transports that an ``rdma_auto`` durl offers, best first.

    Memory of this process comes before shared memory, that before verbs, and those before TCP.

    Parameters
    ----------
    durl
        With any of ``size`` (memory of this process), ``unix`` and ``host`` (an abstract Unix
        socket, and the `host_id` it is on), ``rdma`` (``1``: the server has a
        device), ``url``.
    here
        `host_id` of this process.
    ports
        Active RDMA ports of this machine; by default as found.

    Returns
    -------
    list of Choice
        All four types; those that lead to the element first, in order of preference.

    Raises
    ------
    DurlError
        if the durl offers no way at all.
    """
    config = dict(durl.config)
    here = host_id() if here is None else here
    rest = {k: v for k, v in config.items() if k not in _OWN}
    choices = [
        _local(durl, config),
        _shm(durl, config, {k: v for k, v in rest.items() if k != "url"}, here),
        _verbs(durl, config, rest, rdma_ports() if ports is None else ports),
        _tcp(durl, config, {k: v for k, v in rest.items() if k != "device"}),
    ]
    if all(c.durl is None for c in choices):
        raise DurlError(
            f"durl {durl.name!r} of type 'rdma_auto' leads nowhere: give size, unix or url"
        )
    return sorted(choices, key=lambda c: c.durl is None)


def _local(durl: Durl, config: dict[str, str]) -> Choice:
    if "size" not in config or "url" in config or "unix" in config:
        return Choice("rdma_local", None, "the memory is not this process's own")
    return Choice(
        "rdma_local", Durl(durl.name, "rdma_local", config), "the memory is this process's own"
    )


def _shm(durl: Durl, config: dict[str, str], rest: dict[str, str], here: str) -> Choice:
    if "unix" not in config:
        return Choice("rdma_shm", None, "the memory server has no Unix socket")
    if config.get("host", here) != here:
        return Choice("rdma_shm", None, "the memory server is on another host or in a container")
    found = Durl(durl.name, "rdma_shm", {**rest, "url": config["unix"]})
    return Choice("rdma_shm", found, "the memory server is on this host")


def _verbs(
    durl: Durl, config: dict[str, str], rest: dict[str, str], ports: Sequence[tuple[str, int]]
) -> Choice:
    if "url" not in config or config.get("rdma", "0") != "1":
        return Choice("rdma_uverbs", None, "the memory server offers no RDMA device")
    if not ports:
        return Choice("rdma_uverbs", None, "this machine has no active RDMA port")
    device = rest.setdefault("device", ports[0][0])
    found = Durl(durl.name, "rdma_uverbs", rest)
    return Choice("rdma_uverbs", found, f"both sides have RDMA devices, here {device}")


def _tcp(durl: Durl, config: dict[str, str], rest: dict[str, str]) -> Choice:
    if "url" not in config:
        return Choice("rdma_tcp", None, "the memory server does not listen on TCP")
    return Choice("rdma_tcp", Durl(durl.name, "rdma_tcp", rest), "TCP leads everywhere")
