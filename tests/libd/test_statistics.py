"""Statistics by server, tenant and element: records, Prometheus' text, HTTP, the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from libd import AuthError, BoundsError, LibdAction, LibdError, ServerControl
from libd.metrics_server import MetricsServer
from tests.libd.by_hand import by_hand

Stand = Any  # conftest.py's

ADMIN = "the administrator's token"
ROOT = Path(__file__).parents[2]
ODD = 'a "quoted" \\back\nslash {x="y"} é'


# ---- a strict reader of the format --------------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|\Z)')
_SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? ([^ ]+)\Z")
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


@dataclass
class Family:
    kind: str
    text: str
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def parse(text: str) -> dict[str, Family]:
    """Return the families; AssertionError where the text breaks a rule of the format."""
    assert text.endswith("\n")
    families: dict[str, Family] = {}
    helped = {}
    current = None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            name, _, words = line[7:].partition(" ")
            assert re.fullmatch(NAME, name)
            assert name not in helped
            assert not re.search(r"\\(?![\\n])", words)
            helped[name] = words
        elif line.startswith("# TYPE "):
            current, kind = line[7:].split(" ")
            assert kind in ("counter", "gauge")
            assert current in helped
            assert current not in families  # each family in one block
            families[current] = Family(kind, helped[current])
        else:
            match = _SAMPLE.match(line)
            assert match, line
            assert match[1] == current, "a sample outside of its family's block"
            assert current is not None
            labels, rest = [], match[2] or ""
            while rest:
                found = _LABEL.match(rest)
                assert found, rest
                plain = re.sub(r"\\[\\\"n]", lambda m: _ESCAPES[m[0]], found[2])
                labels.append((found[1], plain))
                rest = rest[found.end() :]
            key = tuple(sorted(labels))
            assert len(dict(key)) == len(key)
            assert key not in families[current].samples
            families[current].samples[key] = float(match[3])
    for name, family in families.items():
        assert family.samples
        assert (family.kind == "counter") == name.endswith("_total")
        assert family.kind == "gauge" or min(family.samples.values()) >= 0
    return families


# ---- records ------------------------------------------------------------------------------------


def key(**labels: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def test_a_snapshot_has_everything(stand: Stand) -> None:
    tenant = stand.control.create_tenant(ODD, 1 << 20)
    grants = [stand.control.create_element(tenant, n, elastic=True) for n in ("a", ODD)]
    fixed = stand.control.create_element(tenant, "fixed", 8192)
    trans = stand.open(grants[0], "tcp")
    regions = [trans.alloc(4096) for _ in range(4)]
    trans.write_from(regions[0], bytes(100))
    trans.free(regions[1])
    trans.free(regions[2])
    window = stand.open(fixed, "tcp")
    window.alloc(1000)
    shot = stand.control.snapshot()
    assert set(shot.tenants) == {"default", ODD}
    assert shot.tenants[ODD] == stand.control.tenant_stats(ODD)
    mine = {k: v for k, v in shot.elements.items() if k[0] == ODD}
    assert set(mine) == {(ODD, g.id, g.name) for g in (*grants, fixed)}
    one = mine[ODD, grants[0].id, "a"]
    assert (one.reserved, one.peak, one.regions) == (8192, 4 * 4096, 2)
    assert one.bytes_written == 100
    # Of the tenant's arena: the hole that was freed, and what is behind everything.
    assert one.free == (1 << 20) - 8192 - 8192
    assert one.free_blocks == 2
    assert one.largest_free == one.free - 8192
    assert one.fragmentation == pytest.approx(8192 / one.free)
    assert shot.tenants[ODD].fragmentation == one.fragmentation
    assert shot.tenants[ODD].peak == 4 * 4096 + 8192
    last = mine[ODD, fixed.id, "fixed"]
    assert (last.free, last.largest_free, last.free_blocks) == (8192 - 1024, 8192 - 1024, 1)
    assert last.fragmentation == 0
    assert shot.server.peak == shot.tenants[ODD].peak + stand.server.default_region
    stand.control.drop_tenant(tenant)
    assert stand.control.stats().peak == shot.server.peak
    assert set(stand.control.snapshot().tenants) == {"default"}


def test_lists_of_several_pages(stand: Stand) -> None:
    names = [f"{i:03}" + "x" * 200 for i in range(500)]
    tenant = stand.control.create_tenant("many", 1 << 20)
    for name in names:
        stand.control.create_element(tenant, name, elastic=True)
        stand.control.create_tenant(name, 4096)
    assert stand.control.tenants() == ["default", "many", *names]
    shot = stand.control.snapshot()
    assert sorted(n for t, _, n in shot.elements if t == "many") == names


def test_requests_and_refusals_are_counted(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "tcp")
    trans.flush()
    trans.read_into(0, bytearray(1))  # learns the region's epoch
    before = stand.control.stats()
    for _ in range(3):
        trans.read_into(0, bytearray(1))
    trans.fetch_add(0)
    for addr in (4095, 1 << 39):
        with pytest.raises(BoundsError):
            trans.read_into(addr, bytearray(2))
    after = stand.control.stats()
    grown = {k: n - before.operations[k] for k, n in after.operations.items()}
    assert {k: n for k, n in grown.items() if n} == {"read": 5, "fetch_add": 1, "server_stats": 1}
    grown = {k: n - before.errors[k] for k, n in after.errors.items()}
    assert {k: n for k, n in grown.items() if n} == {"bounds": 2}


def test_a_draining_server_says_so(stand: Stand) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(64 << 20), "m", 64 << 20), "tcp")
    out = bytearray(64 << 20)
    done = trans.submit(reads=[(0, out)])
    assert stand.control.stats().draining is False
    stand.server.drain(60)
    stats = stand.control.stats()
    assert stats.draining is True
    assert stand.control.snapshot().server.draining is True
    with pytest.raises(ConnectionError, match="stopping"):
        stand.control.create_tenant("late", 4096)
    assert done.wait(timeout=60) == len(out)
    assert stand.server.over(30)


def test_metrics_are_prometheus_text(stand: Stand) -> None:
    tenant = stand.control.create_tenant(ODD, 1 << 20)
    grant = stand.control.create_element(tenant, ODD, 8192)
    trans = stand.open(grant, "tcp")
    trans.write_from(0, bytes(1000))
    with pytest.raises(BoundsError):
        trans.write_from(8000, bytes(1000))
    families = parse(stand.control.metrics())
    element = key(tenant=ODD, element=ODD, id=str(grant.id))
    assert families["libd_element_reserved_bytes"].samples[element] == 8192
    assert families["libd_element_written_bytes_total"].samples[element] == 1000
    assert families["libd_tenant_quota_bytes"].samples[key(tenant=ODD)] == 1 << 20
    assert families["libd_pool_bytes"].samples[()] == stand.server.size
    assert families["libd_requests_total"].samples[key(operation="write")] == 2
    assert families["libd_errors_total"].samples[key(reason="bounds")] == 1
    assert families["libd_draining"].samples[()] == 0
    assert families["libd_overhead_bytes"].samples[()] > 1 << 20
    sizes = [n for n in families if n.endswith("_bytes")]
    assert len(sizes) > 10  # units are in the names


def test_a_dropped_element_is_no_longer_in_the_metrics(stand: Stand) -> None:
    tenant = stand.tenant()
    grant = stand.control.create_element(tenant, "m", 4096)
    stand.control.drop_tenant(tenant)
    families = parse(stand.control.metrics())
    assert not any(dict(k).get("id") == str(grant.id) for f in families.values() for k in f.samples)


# ---- HTTP ---------------------------------------------------------------------------------------


@pytest.fixture
def served(stand: Stand) -> Iterator[MetricsServer]:
    control = ServerControl(stand.server.tcp_url, ADMIN)
    with MetricsServer(control, token="scraper") as metrics:
        yield metrics


def ask(port: int, path: str = "/metrics", method: str = "GET", token: str = "scraper") -> Any:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", headers=headers, method=method
    )
    return urllib.request.urlopen(request, timeout=20)


def test_scraping(served: MetricsServer) -> None:
    for path in ("/metrics", "/metrics?x=y"):
        with ask(served.port, path) as reply:
            assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            families = parse(reply.read().decode())
    assert families["libd_tenants"].samples[()] == 1
    with ask(served.port, method="HEAD") as reply:
        assert reply.read() == b""
        assert int(reply.headers["Content-Length"]) > 1000


@pytest.mark.parametrize(
    ("path", "method", "token", "status"),
    [
        ("/metrics", "GET", "", 401),
        ("/metrics", "GET", "wrong", 401),
        ("/metrics", "GET", "scraper2", 401),
        ("/", "GET", "scraper", 404),
        ("/metrics/x", "GET", "scraper", 404),
        ("/", "GET", "", 401),  # a stranger does not learn what there is
        ("/metrics", "POST", "scraper", 405),
    ],
)
def test_what_is_not_served(
    served: MetricsServer, path: str, method: str, token: str, status: int
) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(served.port, path, method, token)
    with closing(caught.value):
        assert caught.value.code == status
    with ask(served.port) as reply:  # and it goes on
        assert reply.status == 200


@pytest.mark.parametrize(
    "request_",
    [b"", b"nonsense\r\n\r\n", b"GET /metrics\r\n\r\n", b"\xff" * 9000, b"GET / HTTP/1.1"],
)
def test_strangers_do_not_stop_it(served: MetricsServer, request_: bytes) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as sock:
        answer = b""
        with suppress(OSError):  # it does not read on, and hangs up
            sock.sendall(request_)
            sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(4096):
                answer += piece
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    with ask(served.port) as reply:
        assert reply.status == 200


def test_metrics_of_a_server_that_is_gone(stand: Stand, served: MetricsServer) -> None:
    stand.server.stop()
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(served.port)
    with closing(caught.value):
        assert caught.value.code == 503


def test_only_loopback_without_a_token(stand: Stand) -> None:
    with ServerControl(stand.server.tcp_url, ADMIN) as control:
        with pytest.raises(AuthError, match="token"):
            MetricsServer(control, bind="0.0.0.0")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            with pytest.raises(LibdError, match="in use"):
                MetricsServer(control, port=taken.getsockname()[1])
    with MetricsServer(ServerControl(stand.server.tcp_url, ADMIN)) as metrics:
        with ask(metrics.port, token="") as reply:
            assert reply.status == 200


def test_a_silent_scraper_is_in_no_clients_way(stand: Stand, served: MetricsServer) -> None:
    trans = stand.open(stand.control.create_element(stand.tenant(), "m", 4096), "tcp")
    with socket.create_connection(("127.0.0.1", served.port)):
        for _ in range(100):
            trans.read_into(0, bytearray(8))


# ---- the command line ---------------------------------------------------------------------------


def run(*arguments: str, token: str = "boss") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "libd.statistics", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"SCAD_ADMIN_TOKEN": token},
        timeout=60,
    )


def test_statistics_of_a_running_server() -> None:
    with by_hand("0", "--size", "8 MB", "--default-region", "1 MB", SCAD_ADMIN_TOKEN="boss") as (
        server,
        url,
    ):
        with ServerControl(url, "boss") as control:
            tenant = control.create_tenant("t\x1b[2J", "4 MB")
            control.create_element(tenant, "m", "1 MB")
        done = run(url)
        assert done.returncode == 0, done.stderr
        assert "fragmentation" in done.stdout
        assert "\x1b" not in done.stdout  # names do not drive the terminal
        shot = json.loads(run(url, "--json").stdout)
        assert shot["server"]["reserved"] == 2 << 20
        assert {t: s["reserved"] for t, s in shot["tenants"].items()} == {
            "default": 1 << 20, tenant.name: 1 << 20
        }  # fmt: skip
        assert [e["name"] for e in shot["elements"] if e["tenant"] == tenant.name] == ["m"]
        parse(run(url, "--metrics").stdout)
        wrong = run(url, token="wrong")
        assert wrong.returncode == 1
        assert "token" in wrong.stderr
        assert "Traceback" not in wrong.stderr
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
    gone = run(url)
    assert gone.returncode == 1
    assert "Traceback" not in gone.stderr


@pytest.mark.parametrize("token", ["", "scraper"])
def test_metrics_of_the_process(token: str) -> None:
    with by_hand("0", "--size", "1 MB", "--metrics", "0", SCAD_METRICS_TOKEN=token) as (
        server,
        url,
    ):
        assert server.stderr is not None
        port = int(server.stderr.readline().rpartition("/metrics")[0].rpartition(":")[2])
        with LibdAction("0", [f"m;rdma_tcp;url,{url};"]) as action:
            action.get_transport("m").write_from(0, bytes(123))
        with ask(port, token=token) as reply:
            families = parse(reply.read().decode())
        assert families["libd_written_bytes_total"].samples[()] == 123
        if token:
            with pytest.raises(urllib.error.HTTPError) as caught:
                ask(port, token="")
            caught.value.close()
        # The token for the metrics' own connection is nobody else's.
        with pytest.raises(AuthError):
            ServerControl(url, "")
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def test_metrics_that_cannot_be_served() -> None:
    command = [sys.executable, "-m", "libd.memory_server", "0", "--size", "1MB", "--metrics"]
    for where, status, message in (("0.0.0.0:0", 1, "token"), ("x", 2, "not a TCP port")):
        done = subprocess.run(
            [*command, where], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status
        assert message in done.stderr.splitlines()[-1]
        assert "Traceback" not in done.stderr
