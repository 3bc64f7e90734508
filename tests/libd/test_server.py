"""Tenants, keys, quotas, statistics, the default region."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from libd import (
    ArenaCache,
    AuthError,
    CapabilityError,
    CapacityError,
    DurlError,
    LibdAction,
    LibdError,
    MemoryServer,
    ServerControl,
    StaleRefError,
    TransportClosedError,
    TransportTimeoutError,
    UnsupportedError,
    register_transport,
)
from tests.waiting import until

ADMIN = "the administrator's token"
Stand = Any  # conftest.py's


@pytest.fixture(params=["shm", "tcp"])
def wire(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_both_transports_see_the_same_bytes(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(), "mem1", 4096)
    shm, tcp = stand.open(grant, "shm"), stand.open(grant, "tcp")
    assert shm.element == tcp.element == "mem1"
    shm.write_from(10, b"from shm")
    out = bytearray(8)
    tcp.read_into(10, out)
    assert out == b"from shm"
    addr = tcp.alloc(100)
    tcp.write_from(addr, b"from tcp")
    ((found, size),) = shm.resolve(tcp.ref([(addr, 8)]))
    assert bytes(shm.map(found, size)) == b"from tcp"


def test_what_one_transport_frees_the_other_refuses(stand: Stand, wire: str) -> None:
    grant = stand.control.create_element(stand.tenant(), "mem1", 1 << 16, elastic=True)
    one, two = stand.open(grant, "shm"), stand.open(grant, wire)
    addr = one.alloc(4096)
    ref = one.ref([(addr, 8)])
    two.resolve(ref)
    two.read_into(addr, bytearray(8))
    one.free(addr)
    one.alloc(4096)
    for operation in (lambda: two.read_into(addr, bytearray(8)), lambda: two.resolve(ref)):
        with pytest.raises(StaleRefError):
            operation()


def test_elements_of_one_tenant_are_apart(stand: Stand, wire: str) -> None:
    tenant = stand.tenant()
    grants = [stand.control.create_element(tenant, n, 1 << 16, elastic=True) for n in "ab"]
    one, two = (stand.open(g, wire) for g in grants)
    addr = one.alloc(100)
    one.write_from(addr, b"mine")
    for operation in (
        lambda: two.read_into(addr, bytearray(4)),
        lambda: two.write_from(addr, b"????"),
        lambda: two.free(addr),
    ):
        with pytest.raises(CapabilityError):
            operation()


def test_tenants_cannot_guess_one_another(stand: Stand, wire: str) -> None:
    mine, other = stand.tenant(), stand.tenant()
    grant = stand.control.create_element(other, "secret", 4096)
    stand.open(grant, wire).write_from(0, b"secret")
    own = stand.control.create_element(mine, "mem", 4096)
    for forged in (
        replace(grant, tenant=mine),  # the other's element with my token
        replace(own, id=grant.id),
        replace(grant, key=own.key),
        replace(grant, key=bytes(16)),
        replace(own, id=own.id + 1000),
    ):
        with pytest.raises((CapabilityError, AuthError)):
            stand.open(forged, wire)
    with pytest.raises(AuthError):
        stand.open(replace(grant, tenant=replace(other, token="0" * 64)), wire)
    with pytest.raises(AuthError):
        stand.open(replace(grant, tenant=replace(other, token="")), wire)
    out = bytearray(6)
    stand.open(own, wire).read_into(0, out)
    assert out == bytes(6)


def test_quota_is_hard_and_shared_by_the_elements(stand: Stand, wire: str) -> None:
    tenant = stand.tenant(1 << 20)
    stand.control.create_element(tenant, "fixed", 1 << 19)
    trans = stand.open(stand.control.create_element(tenant, "grow", elastic=True), wire)
    trans.alloc(1 << 18)
    with pytest.raises(CapacityError, match="quota"):
        trans.alloc((1 << 18) + 1)
    with pytest.raises(CapacityError, match="quota"):
        stand.control.create_element(tenant, "more", (1 << 18) + 1)
    assert stand.control.tenant_stats(tenant).reserved == (1 << 19) + (1 << 18)
    trans.alloc(1 << 18)


def test_the_servers_size_is_hard(stand: Stand) -> None:
    with pytest.raises(CapacityError):
        stand.control.create_tenant("too big", 1 << 40)
    size = stand.server.size
    grants = [
        stand.control.create_element(stand.tenant(size), "m", size // 2 - (1 << 16))
        for _ in range(2)
    ]
    with pytest.raises(CapacityError, match="memory server has"):
        stand.control.create_element(stand.tenant(size), "m", size // 2)
    stand.control.drop_element(grants[0].tenant, grants[0].id)
    stand.control.create_element(stand.tenant(size), "m", size // 3)


def test_a_server_that_does_not_fit_this_machine() -> None:
    with pytest.raises(CapacityError, match="can promise"):
        MemoryServer(1 << 46)


@pytest.mark.parametrize("kind", ["shm", "tcp"])
def test_an_elastic_element_may_hold_its_limit_or_the_quota(stand: Stand, kind: str) -> None:
    tenant = stand.tenant(1 << 20)
    for limit, most in ((None, 1 << 20), ("64 KB", 1 << 16), ("8 MB", 1 << 20)):
        grant = stand.control.create_element(tenant, "m", elastic=True, limit=limit)
        trans = stand.open(grant, kind)
        assert trans.size == most
        assert trans.stat()["limit"] == most
        assert stand.control.element_stats(tenant, grant.id).limit == most
        with pytest.raises(CapacityError, match="has 64 KiB left" if limit == "64 KB" else "1 MiB"):
            trans.alloc(1 << 50)
        with pytest.raises(CapacityError):
            trans.alloc(most + 1)
        trans.free(trans.alloc(most))


def test_statistics(stand: Stand) -> None:
    tenant = stand.tenant()
    grant = stand.control.create_element(tenant, "m", elastic=True, limit="1 MB")
    trans = stand.open(grant, "tcp")
    addr = trans.alloc(1000)
    trans.write_from(addr, bytes(300))
    trans.read_into(addr, bytearray(200))
    trans.free(trans.alloc(5000))
    alone = stand.control.element_stats(tenant, grant.id)
    stats = stand.control.element_stats(tenant, grant.id)
    assert (stats.reserved, stats.regions, stats.limit) == (1024, 1, 1 << 20)
    assert stats.peak == 1024 + 5056
    assert (stats.bytes_read, stats.bytes_written) == (200, 300)
    assert 0 < alone.byte_seconds <= alone.peak * alone.age
    grown, passed = stats.byte_seconds - alone.byte_seconds, stats.age - alone.age
    assert grown == pytest.approx(1024 * passed, rel=0.01)
    last = stand.control.drop_element(tenant, grant.id)
    assert last.peak == stats.peak
    assert last.byte_seconds >= stats.byte_seconds
    server = stand.control.stats()
    assert server.reserved == stand.server.default_region
    assert (server.tenants, server.elements) == (2, 1)
    with pytest.raises(LibdError):
        stand.control.element_stats(tenant, grant.id)


def test_dropped_elements_and_tenants(stand: Stand, wire: str) -> None:
    tenant = stand.tenant()
    grants = [stand.control.create_element(tenant, n, 4096) for n in "ab"]
    one, two = (stand.open(g, wire) for g in grants)
    stand.control.drop_element(tenant, grants[0].id)
    for operation in (lambda: one.read_into(0, bytearray(1)), lambda: one.write_from(0, b"1")):
        with pytest.raises(StaleRefError):
            operation()
    with pytest.raises(StaleRefError):
        one.alloc(1)
    two.read_into(0, bytearray(1))
    stand.control.drop_tenant(tenant)
    with pytest.raises(StaleRefError):
        two.read_into(0, bytearray(1))
    with pytest.raises(AuthError):
        stand.open(grants[1], wire)
    with pytest.raises(LibdError):
        stand.control.drop_tenant(tenant)


def test_a_new_element_does_not_show_what_an_old_one_left(stand: Stand) -> None:
    tenant = stand.tenant(1 << 24)
    for size in (1 << 16, 5 << 20, 100_001):
        grant = stand.control.create_element(tenant, "old", size)
        stand.open(grant, "shm").write_from(0, b"\xff" * size)
        stand.control.drop_element(tenant, grant.id)
        grant = stand.control.create_element(tenant, "new", size)
        out = bytearray(size)
        stand.open(grant, "shm").read_into(0, out)
        assert not any(out)
        stand.control.drop_element(tenant, grant.id)


def test_warm_pages_stay_in_the_tenant_and_go_with_it(stand: Stand) -> None:
    tenant = stand.tenant(1 << 22)
    grant = stand.control.create_element(tenant, "m", 1 << 20, elastic=True)
    trans = stand.open(grant, "shm")
    addr = trans.alloc(1 << 20)
    trans.write_from(addr, b"x" * (1 << 20))
    trans.free(addr)
    assert stand.control.tenant_stats(tenant).resident >= 1 << 20
    view = trans.map(trans.alloc(1 << 20), 1 << 20)
    before = stand.control.tenant_stats(tenant).resident
    assert bytes(view[:4]) == b"xxxx"  # recycled, and nothing new was touched
    assert stand.control.tenant_stats(tenant).resident == before
    resident = stand.control.stats().resident
    stand.control.drop_tenant(tenant)
    assert stand.control.stats().resident <= resident - (1 << 20)


def test_an_arena_is_attached_once_per_process(stand: Stand) -> None:
    tenant, cache = stand.tenant(), ArenaCache()
    grants = [stand.control.create_element(tenant, n, 4096) for n in "abc"]
    with LibdAction("1", [g.durl(g.name, "rdma_shm") for g in grants], cache=cache) as action:
        for grant in grants:
            action.get_transport(grant.name)
        assert len(cache) == 1
    with LibdAction("2", [grants[0].durl("m", "rdma_shm")], cache=cache) as action:
        action.get_transport("m").write_from(0, b"1")
    assert len(cache) == 1
    stand.control.drop_tenant(tenant)
    cache.sweep()
    assert len(cache) == 0


def test_grants_hide_their_secrets(stand: Stand) -> None:
    tenant = stand.tenant()
    grant = stand.control.create_element(tenant, "m", 64)
    for secret in (tenant.token, grant.key.hex(), repr(grant.key)):
        assert secret not in repr(grant) + repr(tenant) + str(grant)
        if secret != repr(grant.key):
            assert secret in grant.durl("m", "rdma_tcp")
    with pytest.raises(DurlError):
        grant.durl("m", "rdma_pigeons")


def test_administration_needs_its_token(stand: Stand) -> None:
    for token in ("", "wrong", ADMIN[:-1], ADMIN + "x"):
        with pytest.raises(AuthError):
            ServerControl(stand.server.tcp_url, token)
    with MemoryServer(4096) as server, pytest.raises(AuthError):
        ServerControl(server.tcp_url or "", "")


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b"])
def test_names_that_are_refused(stand: Stand, name: str) -> None:
    with pytest.raises(LibdError):
        stand.control.create_tenant(name, 64)


def test_names_are_unique(stand: Stand) -> None:
    stand.control.create_tenant("one", 64)
    with pytest.raises(LibdError, match="exists"):
        stand.control.create_tenant("one", 64)
    with pytest.raises(LibdError, match="no tenant"):
        stand.control.create_element("nobody", "m", 64)


def test_default_region(stand: Stand) -> None:
    with LibdAction("0000", [f"mem1;rdma_tcp;url,{stand.server.tcp_url};"]) as action:
        trans = action.get_transport("mem1", "rdma")
        assert (trans.size, trans.element) == (1 << 16, "mem1")
        trans.write_from(65530, b"123456")
    with LibdAction("0001", [f"mem1;rdma_shm;url,{stand.server.unix_url};"]) as action:
        assert bytes(action.get_transport("mem1").map(65530, 6)) == b"123456"


def test_default_region_behind_a_token() -> None:
    with MemoryServer(4096, token="open sesame") as server:
        durl = f"m;rdma_tcp;url,{server.tcp_url};"
        for bad in ("", "token,;", "token,open sesamE;", "token,open sesame!;"):
            with LibdAction("0", [durl + bad]) as action, pytest.raises(AuthError):
                action.get_transport("m")
        with LibdAction("0", [durl + "token,open sesame;"]) as action:
            action.get_transport("m").write_from(0, b"1")


def test_only_loopback_without_a_token() -> None:
    for host in ("0.0.0.0", "::", ""):
        with pytest.raises(AuthError, match="token"):
            MemoryServer(4096, bind=host)
    MemoryServer(4096, bind="0.0.0.0", token="t").stop()


def test_an_address_that_is_taken(stand: Stand) -> None:
    with pytest.raises(LibdError, match="in use"):
        MemoryServer(4096, port=stand.server.port)
    with pytest.raises(LibdError, match="in use"):
        MemoryServer(4096, unix=stand.server.unix_url.removeprefix("unix://"))


def test_a_server_inside_of_an_action() -> None:
    server = "server;rdma_tcp_server;url,tcp://*:0;size,65536;"
    with LibdAction("0", [server]) as action:
        with pytest.raises(DurlError, match="is a server"):
            action.get_transport("server")
        port = action._servers["server"].port
        action.add_transport(f"mem;rdma_tcp;url,tcp://localhost:{port};")
        trans = action.get_transport("mem")
        trans.write_from(0, b"x")
    with LibdAction("1", [f"mem;rdma_tcp;url,tcp://localhost:{port};"]) as action:
        with pytest.raises(TransportClosedError, match="no memory server"):
            action.get_transport("mem")


@pytest.mark.parametrize(
    ("type", "more", "rdma", "bind"),
    [
        ("rdma_tcp_server", "", None, "127.0.0.1"),
        ("rdma_tcp_server", "device,mlx5_1;", None, "127.0.0.1"),
        ("rdma_uverbs_server", "", "any", "127.0.0.1"),
        ("rdma_uverbs_server", "device,mlx5_1:2;", "mlx5_1:2", "127.0.0.1"),
        ("rdma_uverbs_server", "token,secret;", "any", "0.0.0.0"),
    ],
)
def test_what_a_server_inside_of_an_action_is_started_with(
    monkeypatch: pytest.MonkeyPatch, type: str, more: str, rdma: str | None, bind: str
) -> None:
    started: list[dict[str, Any]] = []

    class Recorder:
        def __init__(self, size: int, **settings: Any) -> None:
            started.append({"size": size, **settings})

        def stop(self) -> None:
            started.append({"stopped": True})

    monkeypatch.setattr("libd.server.MemoryServer", Recorder)
    with LibdAction("0", [f"s;{type};url,tcp://*:2333;size,64 KB;{more}"]):
        token = "secret" if "token" in more else None
        assert started == [
            {"size": 1 << 16, "bind": bind, "port": 2333, "token": token, "rdma": rdma}
        ]
    assert started[1:] == [{"stopped": True}]


def test_an_rdma_server_inside_of_an_action_needs_a_device() -> None:
    server = "s;rdma_uverbs_server;url,tcp://*:0;size,65536;device,none9;"
    with pytest.raises(UnsupportedError):
        LibdAction("0", [server])
    with LibdAction("0", ["s;rdma_uverbs_server;"]) as action:
        with pytest.raises(UnsupportedError):
            action.config_transport("s", server)
        action.add_transport("m;rdma_local;size,64;")  # and the action goes on
        action.get_transport("m").write_from(0, b"x")


# ---- LibdAction ---------------------------------------------------------------------------------


def test_late_configuration() -> None:
    with LibdAction("0", ["late;rdma_local;"]) as action:
        got: list[object] = []
        waiting = threading.Thread(
            target=lambda: got.append(action.get_transport("late", "rdma", timeout=60))
        )
        waiting.start()
        action.config_transport("late", "late;rdma_local;size,4096;")
        waiting.join(30)
        assert got == [action.get_transport("late")]


def test_late_configuration_times_out_with_the_name() -> None:
    with LibdAction("0", ["late;rdma_tcp;"]) as action:
        with pytest.raises(TransportTimeoutError, match=r"late.*not configured"):
            action.get_transport("late", timeout=0.01)
        with pytest.raises(TransportTimeoutError, match=r"nothing.*not added"):
            action.get_transport("nothing", timeout=0.01)


def test_closing_wakes_who_waits() -> None:
    action = LibdAction("0", ["late;rdma_tcp;"])
    caught: list[type[BaseException]] = []

    def wait() -> None:
        try:
            action.get_transport("late", timeout=60)
        except TransportClosedError as error:
            caught.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    action.close()
    thread.join(30)
    assert caught == [TransportClosedError]


CONFIGURATIONS: list[Callable[[LibdAction], object]] = [
    lambda a: a.add_transport("m;rdma_local;size,1;"),
    lambda a: a.add_transport("x;rdma_unheard_of;"),
    lambda a: a.config_transport("m", "m;rdma_tcp;url,tcp://h:1;"),
    lambda a: a.config_transport("nobody", "nobody;rdma_local;size,1;"),
    lambda a: a.config_transport("done", "done;rdma_local;size,1;"),
    lambda a: a.config_transport("m", "m;rdma_local;"),
    lambda a: a.get_transport("done", "message"),
    lambda a: a.get_transport("incomplete"),
    lambda a: a.get_transport("nourl"),
    lambda a: a.get_transport("badurl"),
    lambda a: a.get_transport("badkey"),
    lambda a: a.get_transport("shmtcp"),
]


@pytest.mark.parametrize("wrong", CONFIGURATIONS)
def test_contradictions_are_refused(wrong: Callable[[LibdAction], object]) -> None:
    durls = [
        "m;rdma_local;", "done;rdma_local;size,64;", "incomplete;rdma_local;elastic,true;",
        "nourl;rdma_tcp;size,1;", "badurl;rdma_tcp;url,ftp://h;",
        "badkey;rdma_tcp;url,tcp://h:1;key,xyz;", "shmtcp;rdma_shm;url,tcp://h:1;",
    ]  # fmt: skip
    with LibdAction("0", durls) as action, pytest.raises(DurlError):
        wrong(action)


def test_a_registered_transport() -> None:
    from libd import _core, transport_types

    kind = f"test_{secrets.token_hex(4)}"
    register_transport(
        kind, lambda durl, cache: _core.open_local(durl.name, int(durl.config["bytes"]))
    )
    assert kind in transport_types()
    with LibdAction("0", [f"m;{kind};bytes,128;"]) as action:
        assert action.get_transport("m").size == 128
    with pytest.raises(DurlError):
        register_transport(kind, lambda durl, cache: _core.open_local(durl.name, 1))


def test_many_clients(stand: Stand) -> None:
    grant = stand.control.create_element(stand.tenant(1 << 22), "m", elastic=True)
    wrong: list[object] = []

    def work(index: int) -> None:
        rng = np.random.default_rng(index)
        try:
            with LibdAction(str(index), [grant.durl("m", "rdma_tcp")]) as action:
                trans = action.get_transport("m")
                for _ in range(20):
                    data = rng.integers(0, 256, int(rng.integers(1, 50_000)), dtype=np.uint8)
                    addr = trans.alloc(data.size)
                    trans.writev(
                        [(addr, data[:100]), (addr + 100, data[100:])]
                        if data.size > 100
                        else [(addr, data)]
                    )
                    out = np.zeros_like(data)
                    trans.read_into(addr, out)
                    if not np.array_equal(out, data):
                        wrong.append(addr)
                    trans.free(addr)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert stand.control.element_stats(grant.tenant, grant.id).reserved == 0


def test_freed_memory_goes_back_to_the_machine() -> None:
    size = 40 << 20
    with MemoryServer(
        1 << 26, unix=f"@scad-test-{secrets.token_hex(8)}", admin_token=ADMIN, keep_warm=0.05
    ) as server:
        control = ServerControl(server.tcp_url or "", ADMIN, unix_url=server.unix_url)
        grant = control.create_element(control.create_tenant("t", 1 << 26), "m", elastic=True)
        with LibdAction("test", [grant.durl("m", "rdma_tcp")]) as action:
            trans = action.get_transport("m")
            kept = trans.alloc(100)
            trans.write_from(kept, b"kept")
            addr = trans.alloc(size)
            trans.write_from(addr, np.ones(size, np.uint8))
            assert control.stats().resident >= size
            trans.free(addr)
            until(lambda: control.stats().resident <= 8192)
            out = bytearray(4)
            trans.read_into(kept, out)
            assert out == b"kept"
        control.close()


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_freed_memory_is_kept_for_a_time(seconds: float) -> None:
    with pytest.raises(LibdError, match="keep_warm"):
        MemoryServer(1 << 20, keep_warm=seconds)
