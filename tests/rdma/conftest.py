"""RDMA devices of this machine, as the tests here use them.

Everything in this folder needs one. Without one it is skipped, unless ``$SCAD_RDMA`` says that
there has to be one: the guest (docs/rdma-testing.md) and `make test-rdma` set that.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from libd import ElementGrant, LibdAction, MemoryServer, ServerControl, Transport
from tests.libd.conftest import ADMIN, Stand
from tests.rdma.peers.queue import Device
from tests.rdma.peers.server import Server
from tests.rdma.peers.tools import SIZE, pairs, until

SYSFS = Path("/sys/class/infiniband")
DEBIAN_PYVERBS = Path("/usr/lib/python3/dist-packages/pyverbs")
REQUIRED = os.environ.get("SCAD_RDMA") == "1"
LONGEST = 100.0  # seconds; under emulation, on a busy machine


@dataclass(frozen=True)
class Endpoint:
    """A device with an active port, and how it is reached.

    Attributes
    ----------
    gid_index
        Of the IPv4 RoCEv2 GID where there is one, else 0.
    address
        The IPv4 address of that GID, else the loopback's.
    """

    device: str
    port: int
    gid_index: int
    address: str


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # entries of the GID table that are not in use cannot be read
        return ""


def _endpoint(device: Path) -> Endpoint | None:
    for port in sorted((device / "ports").iterdir()):
        if "ACTIVE" not in _text(port / "state"):
            continue
        for gid in sorted((port / "gids").iterdir(), key=lambda path: int(path.name)):
            words = _text(gid).split(":")
            kind = _text(port / "gid_attrs" / "types" / gid.name)
            if "RoCE v2" in kind and words[:6] == ["0000"] * 5 + ["ffff"]:
                address = socket.inet_ntoa(bytes.fromhex("".join(words[6:])))
                return Endpoint(device.name, int(port.name), int(gid.name), address)
        return Endpoint(device.name, int(port.name), 0, "127.0.0.1")
    return None


def find_endpoints(sysfs: Path = SYSFS) -> list[Endpoint]:
    """One endpoint for each device with an active port."""
    devices = sorted(sysfs.iterdir()) if sysfs.is_dir() else []
    return [endpoint for device in devices if (endpoint := _endpoint(device))]


def demand(endpoints: list[Endpoint], required: bool) -> None:
    """Skip the test if there is no device; fail it if there has to be one."""
    if endpoints:
        return
    if required:
        pytest.fail("$SCAD_RDMA says that there is an RDMA device, but none is active")
    pytest.skip("no RDMA device here; `make test-rdma` runs this in an emulated guest that has one")


def lacking(what: str) -> None:
    """Skip the test for want of a Debian package; fail it where there has to be a device."""
    if REQUIRED:
        pytest.fail(f"not installed: {what}")
    pytest.skip(f"not installed: {what}")


@pytest.fixture(scope="session")
def endpoints() -> list[Endpoint]:
    """Active devices; in the guest rxe0 and rxe1."""
    return find_endpoints()


@pytest.fixture(autouse=True)
def _device(request: pytest.FixtureRequest, endpoints: list[Endpoint]) -> None:
    if request.node.get_closest_marker("no_device") is None:
        demand(endpoints, REQUIRED)


@pytest.fixture
def pair(endpoints: list[Endpoint]) -> tuple[Endpoint, Endpoint]:
    """Two devices that reach one another: the first two, or the only one twice."""
    return endpoints[0], endpoints[min(1, len(endpoints) - 1)]


@pytest.fixture(scope="session")
def pyverbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Debian's pyverbs, an independent implementation of what libd does.

    It is built for Debian's Python and shows only if ours has the same version. Nothing else of
    Debian's packages becomes visible.
    """
    if not DEBIAN_PYVERBS.is_dir():
        lacking("Debian's python3-pyverbs")
    if not list(DEBIAN_PYVERBS.glob(f"device*{sysconfig.get_config_var('EXT_SUFFIX')}")):
        pytest.skip(f"python3-pyverbs is for another Python than {sys.version.split()[0]}")
    folder = tmp_path_factory.mktemp("debian")
    (folder / "pyverbs").symlink_to(DEBIAN_PYVERBS)
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module("pyverbs.device")
        yield importlib.import_module("pyverbs")
    finally:
        sys.path.remove(str(folder))


def _listens(port: int) -> bool:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in _text(Path(table)).splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == port:
                return True
    return False


@pytest.fixture
def converse() -> Iterator[Callable[[list[str], list[str], int], tuple[str, str]]]:
    """Run a server, and once it listens on a TCP port a client; return what both printed."""
    started: list[subprocess.Popen[str]] = []

    def start(command: list[str]) -> subprocess.Popen[str]:
        if shutil.which(command[0]) is None:
            lacking(command[0])
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        started.append(process)
        return process

    def run(server: list[str], client: list[str], port: int) -> tuple[str, str]:
        serving = start(server)
        deadline = time.monotonic() + LONGEST
        # A port of 0: what the server listens with shows nowhere, it gets a second.
        while port and not _listens(port):
            assert serving.poll() is None, serving.communicate()
            assert time.monotonic() < deadline, f"{server} does not listen on {port}"
            time.sleep(0.1)
        if not port:
            time.sleep(1)
        asking = start(client)
        try:
            said, _ = asking.communicate(timeout=LONGEST)
            assert asking.returncode == 0, said
            answered, _ = serving.communicate(timeout=LONGEST)
            assert serving.returncode == 0, answered
        finally:
            serving.kill()
        return answered, said

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@dataclass
class RdmaStand(Stand):
    """A memory server on the first device of a pair, its clients on the second."""

    device: str = ""

    def open(self, grant: ElementGrant, kind: str) -> Transport:
        durl = grant.durl("mem", f"rdma_{kind}")
        action = LibdAction("test", [durl + f"device,{self.device};" * (kind == "uverbs")])
        self.actions.append(action)
        return action.get_transport("mem", "rdma")


@pytest.fixture
def stand(pair: tuple[Endpoint, Endpoint]) -> Iterator[RdmaStand]:
    """What the tests of libd use, with RDMA.

    With ``$SCAD_TEST_SERVER``, the url of a `tests.rdma.serve` on another machine, they use that.
    """
    with contextlib.ExitStack() as stack:
        url = os.environ.get("SCAD_TEST_SERVER")
        server = None
        if url is None:
            server = stack.enter_context(
                MemoryServer(
                    1 << 28,
                    unix=f"@scad-test-{secrets.token_hex(8)}",
                    admin_token=ADMIN,
                    default_region=1 << 16,
                    rdma=pair[0].device,
                )
            )
        control = stack.enter_context(
            ServerControl(
                url or (server and server.tcp_url) or "",
                ADMIN,
                unix_url=server.unix_url if server else None,
            )
        )
        made = RdmaStand(server, control, device=pair[1].device)  # type: ignore[arg-type]
        yield made
        for action in made.actions:
            action.close()


@pytest.fixture(params=["uverbs"])
def kind(request: pytest.FixtureRequest) -> str:
    """The transport that the conformance suite is run on."""
    return str(request.param)


@pytest.fixture
def make(kind: str, stand: RdmaStand) -> Callable[..., Transport]:
    """Open a new memory element: ``make(size, elastic=…)``."""

    def open_one(size: int = 1 << 16, elastic: bool = False) -> Transport:
        tenant = stand.tenant(size)
        return stand.open(stand.control.create_element(tenant, "mem", size, elastic=elastic), kind)

    return open_one


RawRead = Callable[..., bytes]


@pytest.fixture
def raw_read(pair: tuple[Endpoint, Endpoint], pyverbs: ModuleType) -> RawRead:
    """READ with a queue pair of one grant and the key of another's region, past all of libd.

    ``raw_read(queue, region, addr, offset=…, size=…, before=…)``: `before` is called when the key
    is known. PermissionError if the device refuses.
    """

    def read(
        queue: ElementGrant,
        region: ElementGrant,
        addr: int = 0,
        *,
        offset: int = 0,
        size: int = 6,
        before: Callable[[], None] = lambda: None,
    ) -> bytes:
        from tests.rdma.peers.client import Client, Grant
        from tests.rdma.peers.queue import Device, WorkError

        grants = [Grant.from_durl(grant.durl("m", "rdma_uverbs")) for grant in (queue, region)]
        with (
            Device(pair[1].device) as device,
            Client(grants[1], device) as asking,
            Client(grants[0], device) as reading,
        ):
            about = asking.region(addr)
            reading.open()
            before()
            try:
                return reading.read(about, offset, size)
            except WorkError as error:
                if error.status != "REM_ACCESS_ERR":
                    raise
                raise PermissionError from error

    return read


@pytest.fixture
def no_pair_is_left(pyverbs: ModuleType) -> Iterator[None]:
    """Fails if there are more queue pairs after the test than there were before."""
    if shutil.which("rdma") is None:
        lacking("iproute2's rdma")
    before = len(pairs())
    yield
    assert until(lambda: len(pairs()) <= before), pairs()


@pytest.fixture
def far(pyverbs: ModuleType, pair: tuple[Endpoint, Endpoint]) -> Iterator[Device]:
    """The device of a server."""
    with Device(pair[0].device, pair[0].port) as device:
        yield device


@pytest.fixture
def near(pyverbs: ModuleType, pair: tuple[Endpoint, Endpoint]) -> Iterator[Device]:
    """The device of a client."""
    with Device(pair[1].device, pair[1].port) as device:
        yield device


@pytest.fixture
def start(pyverbs: ModuleType) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a peer as a process of its own; it has said its first line."""
    started: list[subprocess.Popen[str]] = []
    assert pyverbs.__file__ is not None
    visible = os.pathsep.join(
        [str(Path(__file__).resolve().parents[2]), str(Path(pyverbs.__file__).parents[1])]
    )

    def run(*command: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": visible},
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def peer(far: Device) -> Iterator[Server]:
    """A memory server that is not libd's."""
    with Server(far, SIZE) as server:
        yield server
