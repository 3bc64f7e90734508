"""A memory server's statistics in the text format of Prometheus, and a small HTTP server for them.

What is not here: counting (the native server does) and the data path, which this never touches.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Self

from libd.errors import LibdError

if TYPE_CHECKING:
    from libd.control import ServerStats, TenantStats

__all__ = ["MetricsServer", "exposition"]


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{k}="{_escape(v)}"' for k, v in labels.items())
    return f"{name}{{{inside}}} {value:g}" if inside else f"{name} {value!r}"


def _families(
    stats: ServerStats, tenants: Mapping[str, TenantStats]
) -> Iterator[tuple[str, str, str, list[tuple[Mapping[str, str], float]]]]:
    none: Mapping[str, str] = {}
    for name, kind, text, value in (
        ("pool_bytes", "gauge", "Bytes that the pool may reserve.", stats.size),
        ("reserved_bytes", "gauge", "Bytes that are reserved.", stats.reserved),
        ("resident_bytes", "gauge", "Bytes of the pool that are in memory.", stats.resident),
        (
            "overhead_bytes",
            "gauge",
            "Private memory of the process, beyond the pool.",
            stats.overhead,
        ),
        ("tenants", "gauge", "Tenants.", stats.tenants),
        ("elements", "gauge", "Memory elements.", stats.elements),
        ("regions", "gauge", "Regions.", stats.regions),
        ("connections", "gauge", "Open connections.", stats.connections),
        ("leases", "gauge", "Leases that are held or run.", stats.leases),
        ("draining", "gauge", "1 while the server drains.", int(stats.draining)),
        (
            "connections_accepted_total",
            "counter",
            "Connections since the start.",
            stats.accepted,
        ),
        (
            "connections_refused_total",
            "counter",
            "Strangers and malformed requests.",
            stats.refused,
        ),
        ("leases_expired_total", "counter", "Leases that ran out.", stats.leases_expired),
        ("read_bytes_total", "counter", "Bytes read through the server.", stats.bytes_read),
        ("written_bytes_total", "counter", "Bytes written.", stats.bytes_written),
        ("uptime_seconds", "gauge", "Seconds since the start.", stats.uptime),
    ):
        yield name, kind, text, [(none, value)]
    operations = [({"operation": k}, float(v)) for k, v in stats.operations.items()]
    yield "requests_total", "counter", "Requests by operation.", list(operations)
    errors = [({"reason": k}, float(v)) for k, v in stats.errors.items()]
    yield "errors_total", "counter", "Refused requests by reason.", list(errors)
    figures: tuple[tuple[str, str, Callable[[TenantStats], float]], ...] = (
        ("quota_bytes", "The most that a tenant may reserve.", lambda t: t.quota),
        ("reserved_bytes", "Bytes that a tenant has reserved.", lambda t: t.reserved),
        ("resident_bytes", "Bytes of its arena that are in memory.", lambda t: t.resident),
        ("elements", "Its memory elements.", lambda t: t.elements),
        ("regions", "Its regions.", lambda t: t.regions),
        ("free_blocks", "Free pieces of its arena.", lambda t: t.free_blocks),
        ("largest_free_bytes", "The largest of them.", lambda t: t.largest_free),
        ("fragmentation_ratio", "Free bytes not in the largest piece.", lambda t: t.fragmentation),
    )
    for name, text, get in figures:
        samples = [({"tenant": n}, float(get(t))) for n, t in tenants.items()]
        yield f"tenant_{name}", "gauge", text, list(samples)


def exposition(stats: ServerStats, tenants: Mapping[str, TenantStats]) -> str:
    """Return the statistics as Prometheus' text format, version 0.0.4."""
    lines = []
    for name, kind, text, samples in _families(stats, tenants):
        full = f"libd_{name}"
        lines += [f"# HELP {full} {text}", f"# TYPE {full} {kind}"]
        lines += [_line(full, labels, value) for labels, value in samples]
    return "\n".join(lines) + "\n"


class MetricsServer:
    """Serves ``/metrics`` over HTTP from threads of its own.

    Parameters
    ----------
    port
        TCP port; 0 takes a free one.
    read
        Gives the text; called for each request.
    bind
        Address; anything but loopback needs a `token`.
    token
        If given, requests show it as ``Authorization: Bearer TOKEN``.
    """

    def __init__(
        self,
        port: int,
        read: Callable[[], str],
        *,
        bind: str = "127.0.0.1",
        token: str | None = None,
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                given = self.headers.get("Authorization", "")
                if token is not None and not hmac.compare_digest(
                    given.encode(), f"Bearer {token}".encode()
                ):
                    self.send_error(401)
                    return
                if self.path.partition("?")[0] != "/metrics":
                    self.send_error(404)
                    return
                try:
                    body = read().encode()
                except LibdError:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: scrapes come every few seconds."""

        self._server = ThreadingHTTPServer((bind, port), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
