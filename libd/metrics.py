"""A memory server's statistics in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from libd.statistics import Snapshot

__all__ = ["CONTENT_TYPE", "format_metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "libd"
_Families = dict[str, tuple[str, str]]

# name without prefix: kind, help. A field of the records by the same name, without its unit and
# `_total`, unless `_FIELDS` says otherwise.
_SERVER = {
    "pool_bytes": ("gauge", "Bytes that all tenants together may reserve."),
    "reserved_bytes": ("gauge", "Bytes that are reserved."),
    "reserved_peak_bytes": ("gauge", "Most bytes that were ever reserved."),
    "resident_bytes": ("gauge", "Bytes that the arenas take, recycled warm pages included."),
    "undrawn_bytes": ("gauge", "Bytes that are promised and not in use yet."),
    "undrawn_elsewhere_bytes": ("gauge", "The same of the user's others on this machine."),
    "ledger": ("gauge", "1 if they know of one another."),
    "overhead_bytes": ("gauge", "What the server's process takes beyond the pool."),
    "tenants": ("gauge", "Tenants."),
    "elements": ("gauge", "Memory elements."),
    "regions": ("gauge", "Regions."),
    "connections": ("gauge", "Open connections."),
    "connections_accepted_total": ("counter", "Connections that were accepted."),
    "connections_refused_total": ("counter", "Strangers and malformed requests."),
    "connections_turned_away_total": ("counter", "Connections without a descriptor for them."),
    "descriptors": ("gauge", "Descriptors that the server's process may have."),
    "read_bytes_total": ("counter", "Bytes that were read through the server."),
    "written_bytes_total": ("counter", "Bytes that were written through the server."),
    "leases": ("gauge", "Leases that are held or run."),
    "leases_expired_total": ("counter", "Leases that ended, so that memory came back."),
    "draining": ("gauge", "1 while the server is stopping and begins nothing any more."),
    "uptime_seconds": ("gauge", "Seconds since the server started."),
}
_TENANT = {
    "quota_bytes": ("gauge", "Most bytes that the tenant may reserve."),
    "reserved_bytes": ("gauge", "Bytes that the tenant has reserved."),
    "reserved_peak_bytes": ("gauge", "Most bytes that the tenant ever had reserved."),
    "resident_bytes": ("gauge", "Bytes that its arena takes, recycled warm pages included."),
    "connections": ("gauge", "Connections to its elements."),
    "elements": ("gauge", "Elements of the tenant."),
    "regions": ("gauge", "Regions of the tenant."),
    "free_bytes": ("gauge", "Free bytes of its arena."),
    "free_blocks": ("gauge", "Free pieces of its arena."),
    "largest_free_bytes": ("gauge", "The largest free piece of its arena."),
    "fragmentation_ratio": ("gauge", "Share of the free bytes outside of the largest free piece."),
}
_ELEMENT = {
    "limit_bytes": ("gauge", "Most bytes that the element may hold."),
    "reserved_bytes": ("gauge", "Bytes that the element holds."),
    "reserved_peak_bytes": ("gauge", "Most bytes that the element ever held."),
    "reserved_byte_seconds_total": ("counter", "Reserved bytes, integrated over time."),
    "regions": ("gauge", "Regions of the element."),
    "read_bytes_total": ("counter", "Bytes that were read through the server."),
    "written_bytes_total": ("counter", "Bytes that were written through the server."),
    "free_bytes": ("gauge", "Free bytes of what the element allocates from."),
    "free_blocks": ("gauge", "Free pieces of it."),
    "largest_free_bytes": ("gauge", "The largest free piece of it."),
    "fragmentation_ratio": ("gauge", "Share of the free bytes outside of the largest free piece."),
    "age_seconds": ("gauge", "Seconds since the element was created."),
}
_FIELDS = {
    "reserved_peak_bytes": "peak",
    "connections_accepted_total": "accepted",
    "connections_refused_total": "refused",
    "connections_turned_away_total": "turned_away",
    "read_bytes_total": "bytes_read",
    "written_bytes_total": "bytes_written",
    "reserved_byte_seconds_total": "byte_seconds",
    "pool_bytes": "size",
}
_SUFFIXES = ("_total", "_bytes", "_seconds", "_ratio")


def _field(name: str) -> str:
    if name in _FIELDS:
        return _FIELDS[name]
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _labels(labels: Mapping[str, str]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return f"{{{inside}}}" if inside else ""


def _family(
    name: str, kind: str, text: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> list[str]:
    lines = [
        f"{name}{_labels(labels)} {value if isinstance(value, int) else repr(float(value))}"
        for labels, value in samples
    ]
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}", *lines] if lines else []


def format_metrics(snapshot: Snapshot) -> str:
    """Return the text that Prometheus scrapes; every line ends with a newline."""
    lines: list[str] = []
    tables: list[tuple[str, _Families, list[tuple[dict[str, str], object]]]] = [
        ("", _SERVER, [({}, snapshot.server)]),
        ("_tenant", _TENANT, [({"tenant": n}, s) for n, s in snapshot.tenants.items()]),
        (
            "_element",
            _ELEMENT,
            [
                ({"tenant": tenant, "id": str(id_), "element": name}, stats)
                for (tenant, id_, name), stats in snapshot.elements.items()
            ],
        ),
    ]
    for part, families, owners in tables:
        for name, (kind, text) in families.items():
            samples = [(labels, getattr(stats, _field(name))) for labels, stats in owners]
            lines += _family(f"{_PREFIX}{part}_{name}", kind, text, _numbers(samples))
    by_kind = [({"operation": k}, n) for k, n in snapshot.server.operations.items()]
    by_code = [({"reason": k}, n) for k, n in snapshot.server.errors.items()]
    lines += _family(f"{_PREFIX}_requests_total", "counter", "Requests by operation.", by_kind)
    lines += _family(f"{_PREFIX}_errors_total", "counter", "Refusals by reason.", by_code)
    return "\n".join(lines) + "\n"


def _numbers(
    samples: Iterable[tuple[Mapping[str, str], float]],
) -> list[tuple[Mapping[str, str], float]]:
    """A bool is no number to Prometheus."""
    return [(labels, int(v) if isinstance(v, bool) else v) for labels, v in samples]
