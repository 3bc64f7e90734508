"""What the server asks of an RDMA device, seen at one that only counts: no device is needed."""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from libd import ElementGrant, ServerControl
from tests.libd.test_requests import ALLOC, FREE, OK, REPLY, REQUEST, STALE, Raw, greeting
from tests.waiting import until

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "libd" / "csrc"
HEADER = Path("/usr/include/infiniband/verbs.h")
SYSTEM_ERROR = 16
VERBS_OPEN, VERBS_REGION, VERBS_CLOSE = 20, 21, 22
PEER = bytes(26) + bytes([3, 1]) + bytes(4)  # MTU 1024, one READ at a time
EXPORTS_MAX = 4096
ADMIN = "admin"
REGION = struct.Struct("<QQQII")

pytestmark = pytest.mark.skipif(
    not HEADER.exists(), reason="no libibverbs headers: apt-get install libibverbs-dev"
)


def compiled(out: Path, *arguments: str) -> Path:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    flags = ["-std=gnu11", "-O1", "-w", "-pthread", "-DLIBD_HAVE_VERBS", f"-I{CSRC}"]
    if sanitizers := os.environ.get("SCAD_SANITIZE"):
        flags += [f"-fsanitize={sanitizers}", "-g"]
    # The sanitizers' libraries, which this process needs first, would slow the compiler down.
    environment = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    command = [*compiler.split(), *flags, *arguments, "-o", str(out), "-ldl"]
    subprocess.run(command, check=True, env=environment)
    return out


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [str(path) for path in CSRC.glob("*.c") if path.name != "verbs_lib.c"]
    out = tmp_path_factory.mktemp("native") / "device"
    return compiled(out, str(HERE / "device_harness.c"), *sources)


@dataclass
class Device:
    """The server's process."""

    process: subprocess.Popen[str]
    port: int
    control: ServerControl
    stack: ExitStack

    def tell(self, word: str) -> tuple[int, int, int]:
        """Domains, memory regions and queue pairs that exist."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(word, file=self.process.stdin, flush=True)
        domains, regions, pairs = self.process.stdout.readline().split()
        return int(domains), int(regions), int(pairs)

    @property
    def counts(self) -> tuple[int, int, int]:
        return self.tell("count")

    def connect(self, grant: ElementGrant) -> Raw:
        """A connection with a queue pair."""
        sock = self.stack.enter_context(
            socket.create_connection(("127.0.0.1", self.port), timeout=20)
        )
        sock.sendall(greeting(grant))
        client = Raw(sock)
        reply = REPLY.unpack(client.receive(REPLY.size))
        assert reply[2] == OK
        client.receive(reply[6])
        return client


@pytest.fixture
def device(program: Path) -> Iterator[Device]:
    with ExitStack() as stack:
        process = subprocess.Popen(
            [program, ADMIN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            control = stack.enter_context(ServerControl(f"tcp://127.0.0.1:{port}", ADMIN))
            yield Device(process, port, control, stack)
            stack.close()
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def key_of(client: Raw, number: int) -> int:
    """The remote key of a region."""
    client.sock.sendall(REQUEST.pack(VERBS_REGION, 0, 0, number, number << 40, 0, 0, 0))
    assert REPLY.unpack(client.receive(REPLY.size))[2] == OK
    *_, key, _ = REGION.unpack(client.receive(REGION.size))
    return int(key)


def linked(device: Device, grant: ElementGrant) -> Raw:
    client = device.connect(grant)
    assert client.ask(VERBS_OPEN, payload=PEER)[0] == OK
    return client


def ended(client: Raw) -> bool:
    try:
        return client.sock.recv(1) == b""
    except ConnectionError:
        return True


def test_the_keys_of_a_dropped_element_open_nothing(device: Device) -> None:
    tenant = device.control.create_tenant("t", 1 << 20)
    gone, stays = (device.control.create_element(tenant, name, 4096) for name in ("a", "b"))
    first, second = linked(device, gone), linked(device, stays)
    for client in (first, second):
        assert client.ask(VERBS_REGION)[0] == OK
    assert device.counts == (1, 2, 2)
    device.control.drop_element(gone.tenant.name, gone.id)
    assert device.counts == (1, 1, 1)
    assert ended(first)
    assert second.ask(VERBS_REGION)[0] == OK


def test_an_element_whose_lease_runs_out_hangs_up_too(device: Device) -> None:
    tenant = device.control.create_tenant("t", 1 << 20)
    with ServerControl(f"tcp://127.0.0.1:{device.port}", ADMIN) as holder:
        grant = holder.create_element(tenant, "m", 4096, lease=0.05)
        client = linked(device, grant)
        assert client.ask(VERBS_REGION)[0] == OK
    assert ended(client)
    until(lambda: device.counts == (1, 0, 0))


def test_what_the_device_keeps_is_out_of_reach(device: Device) -> None:
    """A memory region that stays although it was withdrawn must find no queue pair to serve."""
    tenant = device.control.create_tenant("t", 1 << 20)
    grant = device.control.create_element(tenant, "e", elastic=True)
    client, beside = linked(device, grant), linked(device, grant)
    region = client.ask(ALLOC, size=4096, addr=64)[1]
    kept = client.ask(ALLOC, size=4096, addr=64)[1]
    for number in (region, kept):
        assert client.ask(VERBS_REGION, number << 40)[0] == OK
    device.tell("fail")
    client.sock.sendall(REQUEST.pack(FREE, 0, 0, 99, region << 40, 0, 0, 0))
    until(lambda: device.counts[2] == 0)
    assert ended(beside)
    device.tell("work")
    # Whoever comes later is refused: by this domain; another tenant's works.
    later = device.connect(grant)
    assert later.ask(VERBS_OPEN, payload=PEER)[0] == SYSTEM_ERROR
    assert later.ask(VERBS_REGION, kept << 40)[0] == SYSTEM_ERROR
    assert later.ask(VERBS_REGION, region << 40)[0] == STALE
    assert later.ask(ALLOC, size=64, addr=64)[0] == OK
    assert device.counts == (1, 2, 0)
    other = device.control.create_element(device.control.create_tenant("u", 4096), "m", 4096)
    assert linked(device, other).ask(VERBS_REGION)[0] == OK
    device.control.drop_tenant(tenant)
    assert device.counts[0] == 1


def test_what_was_asked_for_lately_stays_exported(device: Device) -> None:
    tenant = device.control.create_tenant("t", 1 << 20)
    client = linked(device, device.control.create_element(tenant, "m", 1 << 20))
    windows = [client.ask(ALLOC, size=8, addr=8)[1] for _ in range(EXPORTS_MAX + 1)]
    keys = [key_of(client, number) for number in windows[:-1]]
    assert key_of(client, windows[0]) == keys[0]
    key_of(client, windows[-1])  # one too many
    assert device.counts == (1, EXPORTS_MAX, 1)
    assert key_of(client, windows[0]) == keys[0]
    assert key_of(client, windows[2]) == keys[2]
    assert key_of(client, windows[1]) != keys[1]


def test_a_tenant_exports_so_much_and_no_more(device: Device) -> None:
    tenant = device.control.create_tenant("t", 1 << 20)
    client = linked(device, device.control.create_element(tenant, "m", 1 << 20))
    windows = [client.ask(ALLOC, size=8, addr=8)[1] for _ in range(EXPORTS_MAX + 3)]
    keys = [key_of(client, number) for number in windows]
    assert device.counts == (1, EXPORTS_MAX, 1)
    # The last are as they were, the first have other keys, and take the places of the next.
    assert key_of(client, windows[-1]) == keys[-1]
    assert key_of(client, windows[0]) != keys[0]
    assert key_of(client, windows[4]) == keys[4]
    assert key_of(client, windows[3]) != keys[3]
    assert device.counts == (1, EXPORTS_MAX, 1)
    for number in windows[::-2]:
        assert client.ask(FREE, number << 40)[0] == OK
    assert device.counts[1] <= EXPORTS_MAX // 2 + 2
    for number in windows[-2::-2]:
        key_of(client, number)
    assert device.counts[1] == len(windows) // 2
    device.control.drop_tenant(tenant)
    assert device.counts == (0, 0, 0)


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    out = tmp_path_factory.mktemp("native") / "fork.so"
    return ctypes.CDLL(str(compiled(out, "-shared", "-fPIC", str(HERE / "fork_harness.c"))))


@pytest.mark.parametrize(
    ("kernel", "inits"),
    [
        ("4.19.0-27-amd64", 1),
        ("5.4", 1),
        ("5.11.22", 1),
        ("unknown", 1),
        ("5.12.0", 0),
        ("5.12-rc1", 0),
        ("6.1.0-18-amd64", 0),
        ("10.0.0", 0),
    ],
)
def test_old_kernels_keep_registered_pages_out_of_children(
    loader: ctypes.CDLL, kernel: str, inits: int
) -> None:
    assert loader.f_load(kernel.encode(), 0) == inits
    assert loader.f_load(kernel.encode(), 22) == (-1 if inits else 0)
