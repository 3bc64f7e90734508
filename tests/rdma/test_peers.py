"""libd's server and a client that is not libd: Debian's pyverbs, by the documented protocol.

What both servers have to do is asked of a pyverbs server too: it holds the peers honest.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

import libd
from libd import LibdAction, MemoryServer, ServerControl
from libd.control import ElementGrant
from tests.rdma.peers.client import Client, Grant, RefusedError
from tests.rdma.peers.protocol import (
    NIC,
    OFFSET_BITS,
    VERSION,
    Code,
    Op,
    Peer,
    Region,
    Request,
    Stats,
)
from tests.rdma.peers.queue import Device, WorkError
from tests.rdma.peers.tools import SIZE, SIZES, pairs, pattern, said, until

pytestmark = pytest.mark.usefixtures("no_pair_is_left")

REFUSED = {"REM_ACCESS_ERR", "REM_INV_REQ_ERR", "REM_OP_ERR"}  # which one is the device's affair
Start = Callable[..., subprocess.Popen[str]]
Words = tuple[Client, Region, int]


@pytest.fixture
def memory_server(pair: Any) -> Iterator[MemoryServer]:
    name = f"{pair[0].device}:{pair[0].port}:{pair[0].gid_index}"
    with MemoryServer(2 * SIZE, admin_token="admin", default_region=SIZE, rdma=name) as server:
        yield server


@pytest.fixture
def control(memory_server: MemoryServer) -> Iterator[ServerControl]:
    assert memory_server.tcp_url
    with ServerControl(memory_server.tcp_url, "admin") as control:
        yield control


@pytest.fixture
def tcp(memory_server: MemoryServer) -> Iterator[libd.Transport]:
    with LibdAction("0", [f"m;rdma_tcp;url,{memory_server.tcp_url};"]) as action:
        yield action.get_transport("m")


@pytest.fixture(params=["pyverbs", "libd"])
def grant(request: pytest.FixtureRequest) -> Grant:
    """The default region, of each of the two servers."""
    name = "peer" if request.param == "pyverbs" else "memory_server"
    return Grant("127.0.0.1", request.getfixturevalue(name).port)


@pytest.fixture
def client(grant: Grant, near: Device) -> Iterator[Client]:
    with Client(grant, near) as client:
        client.open()
        yield client


def access(client: Client, region: Region, offset: int, size: int, write: bool) -> None:
    if write:
        client.write(region, offset, bytes(size))
    else:
        client.read(region, offset, size)


@pytest.fixture(params=["pyverbs", "libd"])
def words(request: pytest.FixtureRequest, near: Device) -> Iterator[Words]:
    """A region whose words the device changes, and its address; libd has them in elastic
    elements."""
    if request.param == "pyverbs":
        grant = Grant("127.0.0.1", request.getfixturevalue("peer").port)
    else:
        grant = Grant.from_durl(elastic(request.getfixturevalue("control")).durl("m", "rdma_tcp"))
    with Client(grant, near) as client:
        client.open()
        if not grant.element:
            yield client, client.region(), 0
        else:
            number, epoch = client.alloc(4096, flags=NIC)
            address = number << OFFSET_BITS
            yield client, client.region(address, epoch), address


def elastic(control: ServerControl) -> ElementGrant:
    tenant = control.create_tenant("elastic", 1 << 20)
    return control.create_element(tenant, "growing", elastic=True, limit=1 << 20)


class TestAPyverbsClientAndEitherServer:
    def test_the_server_says_what_there_is(self, client: Client) -> None:
        assert client.welcome.features & 1
        assert client.welcome.size == SIZE
        region = client.region()
        assert (region.size, region.epoch) == (SIZE, client.welcome.epoch)
        reply = client.request(Request(Op.REGION))
        assert (reply.a, reply.b) == (region.epoch, SIZE)
        client.request(Request(Op.FLUSH))
        stats = Stats.unpack(client.request(Request(Op.STAT)).payload)
        assert (stats.reserved, stats.limit, stats.regions) == (SIZE, SIZE, 1)

    def test_what_is_written_is_read(self, client: Client) -> None:
        region = client.region()
        for size in SIZES:
            data = pattern(size, size)
            client.write(region, 0, bytes(size + 200))
            client.write(region, 99, data)
            assert client.read(region, 0, size + 200) == bytes(99) + data + bytes(101)

    def test_the_last_byte_is_part_of_it(self, client: Client) -> None:
        region = client.region()
        client.write(region, SIZE - 5, b"final")
        assert client.read(region, SIZE - 5, 5) == b"final"

    def test_words(self, words: Words) -> None:
        client, region, _ = words
        assert region.nic
        client.write(region, 64, (2**64 - 2).to_bytes(8, "little"))
        assert client.fetch_add(region, 64, 5) == 2**64 - 2
        assert client.fetch_add(region, 64, -1) == 3
        assert client.compare_swap(region, 64, 7, 2**63) == 2
        assert client.compare_swap(region, 64, 2, 2**63) == 2
        assert int.from_bytes(client.read(region, 64, 8), "little") == 2**63

    def test_words_of_the_device_are_not_the_cpus(self, words: Words) -> None:
        client, region, address = words
        assert region.nic
        assert client.fetch_add(region, 8, 41) == 0
        for op, payload in ((Op.FETCH_ADD, b""), (Op.COMPARE_SWAP, bytes(8))):
            with pytest.raises(RefusedError) as refused:
                client.request(Request(op, address=address + 8, size=1), payload)
            assert (refused.value.code, refused.value.a) == (Code.UNSUPPORTED, 1)
        assert client.fetch_add(region, 8, 1) == 41

    @pytest.mark.parametrize("write", [False, True])
    def test_beyond_the_region(self, client: Client, write: bool) -> None:
        region = client.region()
        client.write(region, SIZE - 8, b"retained")
        for offset, size in ((SIZE - 4, 8), (SIZE, 1), (-1, 2), (-4096, 1)):
            with pytest.raises(WorkError) as refused:
                access(client, region, offset, size, write)
            assert refused.value.status in REFUSED
            client.open()  # on the same connection: the pair of before is of no use any more
        assert client.read(region, SIZE - 8, 8) == b"retained"

    def test_a_key_that_nobody_gave(self, client: Client) -> None:
        region = client.region()
        for flip in (1, 1 << 8, 1 << 31):
            guess = Region(region.addr, SIZE, region.epoch, region.rkey ^ flip, 0)
            with pytest.raises(WorkError) as refused:
                client.read(guess, 0, 1)
            assert refused.value.status in REFUSED
            client.open()

    def test_a_region_that_is_not(self, client: Client) -> None:
        with pytest.raises(RefusedError) as refused:
            client.region(12345 << OFFSET_BITS)
        assert refused.value.code in (Code.BOUNDS, Code.STALE)
        with pytest.raises(RefusedError) as refused:
            client.region(0, client.welcome.epoch - 1)
        assert (refused.value.code, refused.value.a) == (Code.STALE, client.welcome.epoch)
        assert client.region().size == SIZE

    def test_one_pair_at_a_time(self, client: Client) -> None:
        count = len(pairs())
        first = client.open()
        assert client.open() != first
        assert len(pairs()) == count
        client.shut()
        assert len(pairs()) == count - 2
        client.shut()
        client.open()
        client.write(client.region(), 0, b"again")

    def test_a_pair_is_of_its_connection(self, client: Client, grant: Grant) -> None:
        with Client(grant, client.device) as other:
            other.open()
            other.write(other.region(), 0, b"other")
            client.shut()
            assert other.read(other.region(), 0, 5) == b"other"

    def test_a_peer_that_cannot_be(self, client: Client) -> None:
        right = Peer(client.device.gid, 1, 1, client.device.lid, 3, 1)
        for wrong, code in (
            ({"mtu": 0}, Code.INVALID),
            ({"mtu": 6}, Code.INVALID),
            ({"gid": bytes(16), "lid": 0}, Code.SYSTEM),
        ):
            with pytest.raises(RefusedError) as refused:
                client.request(Request(Op.VERBS_OPEN), replace(right, **wrong).pack())
            assert refused.value.code == code
        client.open()
        client.write(client.region(), 0, b"fine")

    def test_not_this_protocol(self, grant: Grant, near: Device) -> None:
        for op, payload in (
            (Op.VERBS_OPEN, bytes(31)),
            (Op.VERBS_OPEN, bytes(33)),
            (Op.VERBS_OPEN, b""),
            (Op.VERBS_REGION, bytes(8)),
            (Op.VERBS_CLOSE, bytes(8)),
            (15, b""),
            (33, b""),
        ):
            with Client(grant, near) as client:
                with pytest.raises(RefusedError) as refused:
                    client.request(Request(op), payload)
                assert refused.value.code == Code.PROTOCOL
                assert client.ended()

    def test_the_smaller_mtu_is_used(self, grant: Grant, near: Device) -> None:
        near.mtu = 1  # 256 bytes: larger packets would not be taken
        with Client(grant, near) as client:
            client.open()
            region, data = client.region(), pattern(10_001)
            client.write(region, 3, data)
            assert client.read(region, 3, 10_001) == data

    def test_another_version(self, near: Device, grant: Grant) -> None:
        with pytest.raises(RefusedError) as refused, Client(grant, near, version=7):
            pass
        assert (refused.value.code, refused.value.a) == (Code.VERSION, VERSION)

    def test_a_client_that_vanishes_leaves_no_pair(
        self, grant: Grant, near: Device, start: Start
    ) -> None:
        process = start("tests.rdma.peers.client", near.name, grant.port)
        assert said(process) == "open"
        assert len(pairs()) == 2
        process.kill()
        process.wait()
        assert until(lambda: not pairs()), pairs()
        with Client(grant, near) as client:
            client.open()
            assert client.read(client.region(), 0, 4) == b"here"


class TestAPyverbsClientAndOurServer:
    @pytest.fixture
    def client(self, memory_server: MemoryServer, near: Device) -> Iterator[Client]:
        with Client(Grant("127.0.0.1", memory_server.port), near) as client:
            client.open()
            yield client

    def test_what_libd_writes_over_tcp_is_read(self, client: Client, tcp: libd.Transport) -> None:
        region = client.region()
        for size in SIZES:
            data = pattern(size, size)
            tcp.write_from(11, data)
            assert client.read(region, 11, size) == data

    def test_libd_reads_what_is_written(self, client: Client, tcp: libd.Transport) -> None:
        region = client.region()
        for size in SIZES:
            data, out = pattern(size, size), bytearray(size)
            client.write(region, 7, data)
            tcp.read_into(7, out)
            assert out == data

    def test_a_freed_region(self, client: Client, tcp: libd.Transport) -> None:
        address = tcp.alloc(1 << 16)
        region = client.region(address)
        client.write(region, 0, b"alive")
        tcp.free(address)
        with pytest.raises(WorkError) as refused:
            client.read(region, 0, 5)
        assert refused.value.status in REFUSED
        with pytest.raises(RefusedError) as stale:
            client.region(address, region.epoch)
        assert stale.value.code == Code.STALE

    def test_a_freed_region_is_not_written(self, client: Client, tcp: libd.Transport) -> None:
        address = tcp.alloc(1 << 16)
        region = client.region(address)
        tcp.free(address)
        again = tcp.alloc(1 << 16)
        tcp.write_from(again, pattern(1 << 16))
        with pytest.raises(WorkError) as refused:
            client.write(region, 0, bytes(1 << 16))
        assert refused.value.status in REFUSED
        out = bytearray(1 << 16)
        tcp.read_into(again, out)
        assert out == pattern(1 << 16)

    def test_a_region_ends_where_the_next_begins(self, client: Client, tcp: libd.Transport) -> None:
        first, second = (client.region(tcp.alloc(4096)) for _ in range(2))
        low, high = sorted((first, second), key=lambda region: region.addr)
        assert low.addr + low.size <= high.addr
        with pytest.raises(WorkError) as refused:
            client.read(low, high.addr - low.addr, 1)
        assert refused.value.status in REFUSED

    def test_words_of_the_cpu_are_not_the_devices(
        self, client: Client, tcp: libd.Transport
    ) -> None:
        address = tcp.alloc(4096)
        region = client.region(address)
        assert not region.nic
        with pytest.raises(WorkError) as refused:
            client.fetch_add(region, 0, 1)
        assert refused.value.status in REFUSED
        assert tcp.fetch_add(address, 1) == 0

    def test_words_are_shared_with_libds_client(
        self, control: ServerControl, near: Device, pair: Any
    ) -> None:
        grant = elastic(control)
        durl = grant.durl("m", "rdma_uverbs") + f"device,{pair[1].device};"
        with LibdAction("0", [durl]) as action, Client(Grant.from_durl(durl), near) as client:
            ours = action.get_transport("m")
            address = ours.alloc(4096, atomics="nic") + 8
            client.open()
            region = client.region(address)
            for turn in range(5):
                assert client.fetch_add(region, 8, 2) == turn * 5
                assert ours.fetch_add(address, 3) == turn * 5 + 2
            assert ours.compare_swap(address, 25, 1 << 40) == 25
            assert client.compare_swap(region, 8, 1 << 40, 0) == 1 << 40

    def test_words_of_a_fixed_element_are_the_cpus(self, client: Client) -> None:
        with pytest.raises(RefusedError) as refused:
            client.alloc(4096, flags=NIC)
        assert (refused.value.code, refused.value.a) == (Code.UNSUPPORTED, 1)

    @pytest.mark.parametrize("neighbour", [False, True])
    def test_a_region_that_grows(
        self, control: ServerControl, near: Device, neighbour: bool
    ) -> None:
        durl = elastic(control).durl("m", "rdma_tcp")
        with LibdAction("0", [durl]) as action, Client(Grant.from_durl(durl), near) as client:
            tcp = action.get_transport("m")
            client.open()
            address = tcp.alloc(1 << 16)
            if neighbour:
                tcp.alloc(1 << 16)
            before = client.region(address)
            client.write(before, 0, b"early")
            after = client.region(tcp.extend(address, 1 << 18))
            assert (after.addr != before.addr) == neighbour
            assert after.size == 1 << 18
            client.write(after, (1 << 18) - 4, b"late")
            assert client.read(after, 0, 5) == b"early"
            with pytest.raises(WorkError) as refused:
                client.read(before, 0, 1)
            assert refused.value.status in REFUSED

    def test_a_granted_element(
        self, control: ServerControl, memory_server: MemoryServer, near: Device
    ) -> None:
        tenant = control.create_tenant("one", SIZE)
        element = control.create_element(tenant, "numbers", 1 << 16)
        durl = element.durl("m", "rdma_uverbs")
        with Client(Grant.from_durl(durl), near) as client:
            assert (client.name, client.welcome.size) == ("numbers", 1 << 16)
            client.open()
            client.write(client.region(), 100, b"granted")
        with LibdAction("0", [element.durl("m", "rdma_tcp")]) as action:
            out = bytearray(7)
            action.get_transport("m").read_into(100, out)
            assert out == b"granted"

    @pytest.mark.parametrize("what", ["token", "key"])
    def test_what_opens_nothing(self, control: ServerControl, near: Device, what: str) -> None:
        tenant = control.create_tenant("one", SIZE)
        right = Grant.from_durl(control.create_element(tenant, "m", 4096).durl("m", "rdma_tcp"))
        wrong = right._replace(token="0" * 64) if what == "token" else right._replace(key=bytes(16))
        with pytest.raises(RefusedError) as refused, Client(wrong, near):
            pass
        assert refused.value.code == (Code.AUTH if what == "token" else Code.CAPABILITY)

    def test_another_tenants_key(self, control: ServerControl, near: Device) -> None:
        grants = []
        for name in ("one", "other"):
            tenant = control.create_tenant(name, 1 << 20)
            element = control.create_element(tenant, "m", 1 << 16)
            grants.append(Grant.from_durl(element.durl("m", "rdma_uverbs")))
        with Client(grants[0], near) as owner, Client(grants[1], near) as thief:
            owner.open()
            thief.open()
            region = owner.region()
            owner.write(region, 0, b"private")
            for write in (False, True):
                with pytest.raises(WorkError) as refused:
                    access(thief, region, 0, 7, write)
                assert refused.value.status in REFUSED
                thief.open()
            with pytest.raises(RefusedError) as unknown:
                thief.region(owner.welcome.root << OFFSET_BITS, region.epoch)
            assert unknown.value.code in (Code.STALE, Code.BOUNDS, Code.CAPABILITY)
            assert owner.read(region, 0, 7) == b"private"

    def test_a_dropped_tenant(self, control: ServerControl, near: Device) -> None:
        tenant = control.create_tenant("one", 1 << 20)
        element = control.create_element(tenant, "m", 1 << 16)
        with Client(Grant.from_durl(element.durl("m", "rdma_uverbs")), near) as client:
            client.open()
            region = client.region()
            client.write(region, 0, b"mine")
            control.drop_tenant(tenant)
            with pytest.raises(WorkError):
                client.read(region, 0, 4)
            assert client.ended()

    def test_a_server_without_a_device(self, near: Device) -> None:
        with MemoryServer(4096) as server:
            with Client(Grant("127.0.0.1", server.port), near) as client:
                assert not client.welcome.features & 1
                for attempt in (client.open, client.region):
                    with pytest.raises(RefusedError) as refused:
                        attempt()
                    assert refused.value.code == Code.UNSUPPORTED

    def test_a_server_that_stops(self, client: Client, memory_server: MemoryServer) -> None:
        region = client.region()
        client.write(region, 0, b"here")
        memory_server.stop()
        assert len(pairs()) == 1
        with pytest.raises(WorkError):
            client.read(region, 0, 4)
