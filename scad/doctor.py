"""What this machine can do: everything that Scad asks of it, tried where trying is possible.

Nothing is changed, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib
import importlib.util
import mmap
import os
import platform
import resource
import secrets
import shutil
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from libd.units import format_size
from scad.version import __version__

__all__ = ["Finding", "Level", "examine"]

Level = Literal["ok", "note", "broken"]

_PACKAGES = (
    *("numpy", "pyarrow", "duckdb", "datafusion", "substrait", "sqlglot", "msgspec", "pyzmq"),
    *("starlette", "uvicorn", "httpx", "rich"),
)
_OPTIONAL = ("duckdb-extension-tpcds", "tpcgen-cli", "scikit-learn", "polars", "ray")
_EXTENSIONS = {
    "libd._core": "transports and the memory server",
    "operators._partition": "the partition kernel",
    "openwhisk._sampler": "measuring what elements use",
}
_CGROUP = Path("/sys/fs/cgroup")
_MEMFD_NAME = "scad-doctor"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about this machine.

    Attributes
    ----------
    area
        ``versions``, ``build``, ``transports``, ``memory``, ``limits``, ``processors``,
        ``isolation`` or ``tpcds``.
    name
        What was looked at.
    level
        ``ok``; ``note`` for what something optional lacks; ``broken`` for what Scad cannot run
        without.
    detail
        What was found, for people.
    value
        The same for programs: a number of bytes or cores, a version, a truth value; None where
        there is none.
    """

    area: str
    name: str
    level: Level
    detail: str
    value: int | float | str | bool | None = None

    def to_json(self) -> dict[str, object]:
        """The finding as plain data."""
        return asdict(self)


def examine() -> list[Finding]:
    """Look at everything. Never raises: what cannot be looked at is itself a finding."""
    found: list[Finding] = []
    areas: tuple[Callable[[], Iterator[Finding]], ...] = (
        _versions,
        _build,
        _transports,
        _memory,
        _limits,
        _processors,
        _isolation,
        _tpcds,
    )
    for area in areas:
        try:
            found.extend(area())
        except Exception as error:
            detail = f"could not be examined: {type(error).__name__}: {error}"
            found.append(Finding(area.__name__.strip("_"), "examination", "note", detail))
    return found


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "scad", "ok", __version__, __version__)
    python = platform.python_version()
    enough = sys.version_info >= (3, 11)
    yield Finding("versions", "python", "ok" if enough else "broken", python, python)
    linux = sys.platform == "linux"
    system = f"{platform.system()} {platform.release()}"
    yield Finding("versions", "system", "ok" if linux else "broken", system, system)
    for package in (*_PACKAGES, *_OPTIONAL):
        needed = package in _PACKAGES
        try:
            found = version(package)
        except PackageNotFoundError:
            level: Level = "broken" if needed else "note"
            yield Finding("versions", package, level, "not installed")
        else:
            yield Finding("versions", package, "ok", found, found)


def _build() -> Iterator[Finding]:
    for module, purpose in _EXTENSIONS.items():
        error = _import_error(module)
        if error is None:
            yield Finding("build", module, "ok", f"built ({purpose})", True)
        else:
            yield Finding("build", module, "broken", f"{purpose} missing: {error}", False)


def _transports() -> Iterator[Finding]:
    core = _import_error("libd._core")
    missing = f"libd is not built: {core}"
    if core is None:
        yield Finding("transports", "rdma_local", "ok", "within one process", True)
    else:
        yield Finding("transports", "rdma_local", "broken", missing, False)
    yield _shared_memory(None if core is None else missing)
    yield _tcp(None if core is None else missing)
    yield _verbs(None if core is None else missing)
    yield _rdma_devices()
    if core is None:
        yield from _auto()


def _shared_memory(missing: str | None) -> Finding:
    name = "rdma_shm"
    if missing is not None:
        return Finding("transports", name, "broken", missing, False)
    try:
        _try_sealed_memfd()
        _try_abstract_socket()
    except OSError as error:
        return Finding("transports", name, "broken", f"sealed memory files fail: {error}", False)
    return Finding("transports", name, "ok", "sealed memory files and abstract sockets work", True)


def _try_sealed_memfd() -> None:
    """Make, seal and map a memory file, and see that the seal holds."""
    size = mmap.PAGESIZE
    descriptor = os.memfd_create(_MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
        with mmap.mmap(descriptor, size) as first, mmap.mmap(descriptor, size) as second:
            first[:4] = b"scad"
            if second[:4] != b"scad":
                raise OSError("two mappings of one memory file differ")
        try:
            os.ftruncate(descriptor, 0)
        except PermissionError:
            return
        raise OSError("a sealed memory file could be truncated")
    finally:
        os.close(descriptor)


def _try_abstract_socket() -> None:
    """Pass a descriptor over a socket that has no name in the file system."""
    address = f"\0scad-doctor-{secrets.token_hex(8)}"
    read, write = os.pipe()
    try:
        with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
            server.bind(address)
            server.listen(1)
            client.connect(address)
            with server.accept()[0] as accepted:
                socket.send_fds(accepted, [b"x"], [read])
            _, descriptors, _, _ = socket.recv_fds(client, 1, 1)
            for descriptor in descriptors:
                os.close(descriptor)
            if len(descriptors) != 1:
                raise OSError("no descriptor came over the socket")
    finally:
        os.close(read)
        os.close(write)


def _tcp(missing: str | None) -> Finding:
    if missing is not None:
        return Finding("transports", "rdma_tcp", "broken", missing, False)
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding("transports", "rdma_tcp", "broken", f"loopback fails: {error}", False)
    return Finding("transports", "rdma_tcp", "ok", "loopback works", True)


def _verbs(missing: str | None) -> Finding:
    name = "rdma_uverbs"
    if missing is not None:
        return Finding("transports", name, "broken", missing, False)
    from libd._core import rdma_devices
    from libd.errors import LibdError

    try:
        rdma_devices()
    except LibdError as error:
        return Finding("transports", name, "note", str(error).removeprefix("RDMA devices: "), False)
    return Finding("transports", name, "ok", "built, and libibverbs is here", True)


def _rdma_devices() -> Finding:
    from libd.choice import rdma_ports

    try:
        devices = sorted(entry.name for entry in Path("/sys/class/infiniband").iterdir())
    except OSError:
        devices = []
    if not devices:
        return Finding("transports", "RDMA devices", "note", "none", 0)
    active = {device for device, _ in rdma_ports()}
    told = ", ".join(f"{d} ({'active' if d in active else 'no active port'})" for d in devices)
    return Finding("transports", "RDMA devices", "ok" if active else "note", told, len(devices))


def _auto() -> Iterator[Finding]:
    """What `auto` makes of a memory server that offers everything, here and elsewhere."""
    from libd.choice import choose, host_id
    from libd.durl import Durl

    ways = {"unix": "unix://@server", "url": "tcp://server:2333", "rdma": "1"}
    for where, host in (("to this host", host_id()), ("to another host", "another")):
        best, *others = choose(Durl("mem", "rdma_auto", {**ways, "host": host}))
        passed = [c for c in others if c.durl is None and c.type != "rdma_local"]
        detail = f"{best.type}: {best.why}" + "".join(f"; not {c.type}: {c.why}" for c in passed)
        yield Finding("transports", f"auto, {where}", "ok", detail, best.type)


def _memory() -> Iterator[Finding]:
    facts = _meminfo()
    total, available = facts.get("MemTotal", 0), facts.get("MemAvailable", 0)
    yield Finding("memory", "total", "ok", format_size(total), total)
    level: Level = "ok" if available >= 1 << 30 else "note"
    yield Finding("memory", "available", level, format_size(available), available)
    yield _cgroup_limit("memory.max", "cgroup limit")
    with contextlib.suppress(OSError, ValueError):
        policy = int(Path("/proc/sys/vm/overcommit_memory").read_text())
        strict = policy == 2
        detail = f"{policy}{' (strict: reservations must be backed by swap or RAM)' * strict}"
        yield Finding("memory", "overcommit", "note" if strict else "ok", detail, policy)
    with contextlib.suppress(OSError):
        shm = shutil.disk_usage("/dev/shm").total
        detail = f"{format_size(shm)}; irrelevant, shared memory here does not live in it"
        yield Finding("memory", "/dev/shm", "ok", detail, shm)


def _cgroup_limit(file: str, name: str) -> Finding:
    try:
        text = (_CGROUP / file).read_text().strip()
    except OSError:
        return Finding("memory", name, "ok", "none found")
    if text == "max":
        return Finding("memory", name, "ok", "none")
    limit = int(text)
    return Finding("memory", name, "ok", format_size(limit), limit)


def _limits() -> Iterator[Finding]:
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    # Only registered (RDMA) memory is locked; everything else runs with any limit.
    enough = locked == resource.RLIM_INFINITY or locked >= 1 << 30
    note = "" if enough else "; little for RDMA, raise it with ulimit -l"
    yield Finding(
        "limits", "locked memory", "ok" if enough else "note", _limit(locked) + note, locked
    )
    for name, number in (("address space", resource.RLIMIT_AS), ("data", resource.RLIMIT_DATA)):
        limit = resource.getrlimit(number)[0]
        free = limit == resource.RLIM_INFINITY
        note = "" if free else "; the workers' own limits cannot be above it"
        yield Finding("limits", name, "ok" if free else "note", _limit(limit) + note, limit)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    level: Level = "ok" if soft >= 1024 else "note"
    yield Finding("limits", "open files", level, f"{soft} (at most {hard})", soft)


def _limit(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else format_size(value)


def _processors() -> Iterator[Finding]:
    usable, present = len(os.sched_getaffinity(0)), os.cpu_count() or 0
    yield Finding("processors", "cores", "ok", f"{usable} of {present}", usable)
    with contextlib.suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        if quota != "max":
            share = int(quota) / int(period)
            yield Finding("processors", "cgroup quota", "ok", f"{share:g} cores", share)


def _isolation() -> Iterator[Finding]:
    try:
        _try_sealed_memfd()
    except OSError as error:
        yield Finding("isolation", "sealed memory files", "broken", str(error), False)
    else:
        yield Finding("isolation", "sealed memory files", "ok", "seals hold", True)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    try:
        resource.setrlimit(resource.RLIMIT_DATA, before)
    except (OSError, ValueError) as error:
        yield Finding("isolation", "memory limit of elements", "broken", str(error), False)
    else:
        yield Finding("isolation", "memory limit of elements", "ok", "RLIMIT_DATA", True)


def _tpcds() -> Iterator[Finding]:
    yield _tpcds_extension()
    program = shutil.which("tpcgen-cli", path=sysconfig.get_path("scripts"))
    program = program or shutil.which("tpcgen-cli")
    if program is None:
        detail = "not installed: no data above scale factor 1 (pip install 'scad[tpcds]')"
        yield Finding("tpcds", "tpcgen-cli", "note", detail, False)
    else:
        yield Finding("tpcds", "tpcgen-cli", "ok", program, True)


def _tpcds_extension() -> Finding:
    name = "DuckDB extension"
    spec = importlib.util.find_spec("duckdb_extension_tpcds")
    if spec is None or spec.origin is None:
        return Finding("tpcds", name, "note", "not installed (pip install 'scad[tpcds]')", False)
    try:
        wanted = f"v{version('duckdb')}"
    except PackageNotFoundError:
        return Finding("tpcds", name, "note", "DuckDB is not installed", False)
    folder = Path(spec.origin).parent / "extensions"
    if (folder / wanted / "tpcds.duckdb_extension").exists():
        return Finding("tpcds", name, "ok", f"matches DuckDB {wanted}", True)
    other = ", ".join(sorted(path.name for path in folder.glob("v*"))) or "no version"
    return Finding("tpcds", name, "note", f"is for {other}, DuckDB is {wanted}", False)


def _import_error(module: str) -> str | None:
    """Why a module does not import; None if it does."""
    try:
        importlib.import_module(module)
    except ImportError as error:
        return " ".join(str(error).split())
    return None


def _meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    facts = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        words = value.split()
        facts[name] = int(words[0]) * (1024 if words[1:] == ["kB"] else 1)
    return facts
