"""Which transport is chosen, and that it can be opened."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from libd import (
    ArenaCache,
    AuthError,
    CapabilityError,
    CapacityError,
    Durl,
    DurlError,
    LibdAction,
    LibdError,
    MemoryServerProcess,
    StaleRefError,
    Transport,
    TransportClosedError,
    UnsupportedError,
)
from libd.choice import choose, host_id, rdma_ports
from libd.transport import _factories

Stand = Any  # conftest.py's

PORTS = [("mlx5_0", 1)]
CASES = [
    ("size,64;", [], "rdma_local"),
    ("unix,unix://@x;host,HERE;url,tcp://h:1;", PORTS, "rdma_shm"),
    ("unix,unix://@x;url,tcp://h:1;", PORTS, "rdma_shm"),
    ("unix,unix://@x;host,there;url,tcp://h:1;rdma,1;", PORTS, "rdma_uverbs"),
    ("unix,unix://@x;host,there;url,tcp://h:1;rdma,1;", [], "rdma_tcp"),
    ("unix,unix://@x;host,there;url,tcp://h:1;rdma,0;", PORTS, "rdma_tcp"),
    ("url,tcp://h:1;rdma,1;", PORTS, "rdma_uverbs"),
    ("url,tcp://h:1;", PORTS, "rdma_tcp"),
]


@pytest.mark.parametrize(("config", "ports", "expected"), CASES)
def test_the_best_that_leads_there(
    config: str, ports: list[tuple[str, int]], expected: str
) -> None:
    durl = Durl.parse(f"m;rdma_auto;{config}token,t;eid,3;".replace("HERE", host_id()))
    best, *others = choose(durl, ports=ports)
    assert best.type == expected
    assert best.durl is not None
    assert (best.durl.name, best.durl.config["token"]) == ("m", "t")
    assert not {"unix", "host", "rdma"} & set(best.durl.config)
    assert len({c.type for c in [best, *others]}) == 4
    assert all(c.why for c in others)
    if best.type == "rdma_uverbs":
        assert best.durl.config["device"] == "mlx5_0"


def test_a_durl_that_leads_nowhere() -> None:
    with pytest.raises(DurlError, match="leads nowhere"):
        choose(Durl.parse("m;rdma_auto;unix,unix://@x;host,elsewhere;"))


def test_the_device_that_was_asked_for() -> None:
    durl = Durl.parse("m;rdma_auto;url,tcp://h:1;rdma,1;device,mlx5_7;")
    best = choose(durl, ports=PORTS)[0].durl
    assert best is not None
    assert best.config["device"] == "mlx5_7"


def test_active_ports(tmp_path: Path) -> None:
    for name, state in (("rxe0/ports/1", "4: ACTIVE\n"), ("rxe1/ports/1", "1: DOWN\n")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "state").write_text(state)
    assert rdma_ports(tmp_path) == [("rxe0", 1)]
    assert rdma_ports(tmp_path / "no such folder") == []


def test_a_granted_element_is_opened_over_shared_memory_here() -> None:
    with MemoryServerProcess("16 MB") as process:
        tenant = process.control.create_tenant("t", "8 MB")
        grant = process.control.create_element(tenant, "m", 4096)
        with LibdAction("0", [grant.durl("m", "rdma_auto")]) as action:
            trans = action.get_transport("m")
            assert trans.type == "rdma_shm"
            trans.write_from(0, b"hello")
        far = grant.durl("m", "rdma_auto").replace(host_id(), "elsewhere")
        with LibdAction("0", [far]) as action:
            trans = action.get_transport("m")
            assert trans.type == "rdma_tcp"
            out = bytearray(5)
            trans.read_into(0, out)
            assert out == b"hello"


def test_the_next_best_is_tried_where_the_best_does_not_lead(stand: Stand) -> None:
    durl = f"m;rdma_auto;unix,unix://@nobody-listens-here;url,{stand.server.tcp_url};"
    with LibdAction("0", [durl]) as action:
        assert action.get_transport("m").type == "rdma_tcp"
    with LibdAction("0", ["m;rdma_auto;unix,unix://@nobody-listens-here;"]) as action:
        with pytest.raises(TransportClosedError):
            action.get_transport("m")


@pytest.mark.parametrize(
    ("error", "goes_on"),
    [
        (CapacityError("the device can register no more memory"), True),
        (LibdError("no route to host"), True),
        (UnsupportedError("no device"), True),
        (AuthError("the token"), False),
        (CapabilityError("the key"), False),
        (StaleRefError("dropped"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_tcp_is_tried_where_a_device_fails(
    stand: Stand, monkeypatch: pytest.MonkeyPatch, error: LibdError, goes_on: bool
) -> None:
    def fail(durl: Durl, cache: ArenaCache) -> Transport:
        raise error

    monkeypatch.setattr("libd.transport.choose", functools.partial(choose, ports=PORTS))
    monkeypatch.setitem(_factories, "rdma_uverbs", fail)
    with LibdAction("0", [f"m;rdma_auto;url,{stand.server.tcp_url};rdma,1;"]) as action:
        if goes_on:
            assert action.get_transport("m").type == "rdma_tcp"
        else:
            with pytest.raises(type(error)):
                action.get_transport("m")


def test_memory_of_this_process() -> None:
    with LibdAction("0", ["m;rdma_auto;size,64 KB;"]) as action:
        assert action.get_transport("m").type == "rdma_local"
