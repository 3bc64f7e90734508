"""libd's client and a server that is not libd: Debian's pyverbs, by the documented protocol."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import libd
from libd import LibdAction
from tests.rdma.peers.protocol import Op, Peer, Reply, Request
from tests.rdma.peers.queue import Device
from tests.rdma.peers.server import Server
from tests.rdma.peers.tools import LONGEST, SEED, SIZE, SIZES, pairs, pattern, said, until

pytestmark = pytest.mark.usefixtures("no_pair_is_left")

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def trans(peer: Server, pair: Any) -> Iterator[libd.Transport]:
    durl = f"m;rdma_uverbs;url,{peer.url};device,{pair[1].device};"
    with LibdAction("0", [durl]) as action:
        yield action.get_transport("m")
    # All of it went through the device: the server knows no other way.
    assert not peer.requests.keys() & {Op.READ, Op.WRITE, Op.READV, Op.WRITEV}


def test_reads_and_writes(trans: libd.Transport, peer: Server) -> None:
    for size in SIZES:
        data, out = pattern(size, size), bytearray(size)
        peer.memory.bytes[13 : 13 + size] = data
        trans.read_into(13, out)
        assert out == data
        trans.write_from(SIZE - size - 1, data[::-1])
        trans.flush()
        assert peer.memory.bytes[SIZE - size - 1 : SIZE - 1] == data[::-1]
        assert peer.memory.bytes[SIZE - 1] == 0


def test_through_the_registered_buffer(trans: libd.Transport, peer: Server) -> None:
    trans.reg(1 << 16)
    trans.buf[0:4096] = pattern(4096)
    trans.write(4096, addr=100, offset=0)
    trans.flush()
    assert peer.memory.bytes[100:4196] == pattern(4096)
    trans.read(4096, addr=100, offset=8192)
    assert trans.buf[8192:12288] == pattern(4096)


@pytest.mark.parametrize("size", [8, 4096, 65536])
def test_batches(trans: libd.Transport, peer: Server, size: int) -> None:
    count = 64
    order = random.Random(SEED).sample(range(count), count)
    data = [pattern(size, number) for number in range(count)]
    written = trans.submit(writes=[(number * size, data[number]) for number in order])
    assert written.wait(LONGEST) == count * size
    trans.flush()
    assert peer.memory.bytes[: count * size] == b"".join(data)
    outs = [bytearray(size) for _ in range(count)]
    done = trans.submit(reads=[(number * size, outs[number]) for number in order])
    assert done.wait(LONGEST) == count * size
    assert outs == data


def test_vectors(trans: libd.Transport, peer: Server) -> None:
    sizes = [1, 4096, 33, 300_000, 8, 1 << 20]
    places = [2, 5000, 10_000, 20_001, 400_000, 500_000]
    data = [pattern(size, size) for size in sizes]
    trans.writev(zip(places, data, strict=True))
    trans.flush()
    for place, piece in zip(places, data, strict=True):
        assert peer.memory.bytes[place : place + len(piece)] == piece
    outs = [bytearray(size) for size in sizes]
    assert trans.readv(zip(places, outs, strict=True)) == sum(sizes)
    assert outs == data


def test_words(trans: libd.Transport, peer: Server) -> None:
    assert trans.fetch_add(64, 5) == 0
    assert trans.fetch_add(64, -6) == 5
    assert trans.compare_swap(64, 2**64 - 1, 77) == 2**64 - 1
    assert trans.compare_swap(64, 76, 78) == 77
    assert peer.memory.bytes[64:72] == (77).to_bytes(8, "little")


def test_what_the_server_says(trans: libd.Transport) -> None:
    assert (trans.type, trans.size) == ("rdma_uverbs", SIZE)
    assert trans.region(0).size == SIZE
    assert trans.stat()["regions"] == 1


def test_beyond_the_region(trans: libd.Transport) -> None:
    for address, size in ((SIZE - 1, 2), (SIZE, 1), (2**63, 8)):
        with pytest.raises(libd.LibdError):
            trans.read_into(address, bytearray(size))
        with pytest.raises(libd.LibdError):
            trans.write_from(address, bytes(size))
    trans.write_from(SIZE - 2, b"ok")


def test_what_it_refuses_is_unsupported(trans: libd.Transport) -> None:
    with pytest.raises(libd.UnsupportedError):
        trans.alloc(4096)
    trans.write_from(0, b"still here")


def test_a_token(far: Device, pair: Any) -> None:
    with Server(far, 4096, token="secret") as server:
        durl = f"m;rdma_uverbs;url,{server.url};device,{pair[1].device};"
        with LibdAction("0", [durl + "token,guess;"]) as action:
            with pytest.raises(libd.AuthError):
                action.get_transport("m")
        with LibdAction("0", [durl + "token,secret;"]) as action:
            action.get_transport("m").write_from(0, b"let in")
        assert server.memory.bytes[:6] == b"let in"


def test_a_server_with_narrow_limits(far: Device, pair: Any) -> None:
    far.mtu, far.answers = 1, 1  # 256 bytes, one READ at a time
    with Server(far, SIZE) as server:
        durl = f"m;rdma_uverbs;url,{server.url};device,{pair[1].device};"
        with LibdAction("0", [durl]) as action:
            trans = action.get_transport("m")
            data = [pattern(5000, number) for number in range(32)]
            done = trans.submit(writes=[(n * 5000, piece) for n, piece in enumerate(data)])
            done.wait(LONGEST)
            outs = [bytearray(5000) for _ in data]
            done = trans.submit(reads=[(n * 5000, out) for n, out in enumerate(outs)])
            done.wait(LONGEST)
            assert outs == data
        assert server.memory.bytes[:160_000] == b"".join(data)


def test_words_that_are_nobodys(far: Device, pair: Any) -> None:
    with Server(far, 4096, nic=False) as server:
        durl = f"m;rdma_uverbs;url,{server.url};device,{pair[1].device};"
        with LibdAction("0", [durl]) as action:
            trans = action.get_transport("m")
            with pytest.raises(libd.UnsupportedError):
                trans.fetch_add(0, 1)
            trans.write_from(0, b"fine")


class Nowhere(Server):
    """A server whose queue pair nothing gets to, as on a network that ends before it."""

    def _open(self, request: Request, payload: bytes, queues: contextlib.ExitStack) -> Reply:
        reply = super()._open(request, payload, queues)
        me = Peer.unpack(reply.payload)
        lost = dataclasses.replace(me, qpn=(me.qpn + 0x1234) & 0xFFFFFF)
        return dataclasses.replace(reply, payload=lost.pack())


def test_a_device_that_nothing_gets_to(far: Device, pair: Any) -> None:
    with Nowhere(far, 4096) as server:
        durl = f"m;rdma_uverbs;url,{server.url};device,{pair[1].device};timeout,30;"
        with LibdAction("0", [durl]) as action:
            with pytest.raises(libd.UnsupportedError, match="gets from"):
                action.get_transport("m")
        durl = f"m;rdma_auto;url,{server.url};rdma,1;device,{pair[1].device};timeout,30;"
        with LibdAction("1", [durl]) as action:
            assert action.get_transport("m").type == "rdma_tcp"


def test_a_server_that_vanishes(pair: Any, start: Start) -> None:
    process = start("tests.rdma.peers.server", pair[0].device, 1 << 20)
    durl = f"m;rdma_uverbs;url,tcp://127.0.0.1:{int(said(process))};device,{pair[1].device};"
    with LibdAction("0", [durl]) as action:
        trans = action.get_transport("m")
        trans.write_from(0, b"here")
        process.kill()
        process.wait()
        with pytest.raises(libd.TransportError):
            trans.read_into(0, bytearray(4))
    assert until(lambda: not pairs()), pairs()
