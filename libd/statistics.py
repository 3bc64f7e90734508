"""What a memory server holds and does, as its administrator sees it: records, tables, JSON.

``python -m libd.statistics URL`` prints them for people; `libd.metrics` for Prometheus.
"""

from __future__ import annotations

import dataclasses
import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from libd.errors import LibdError
from libd.units import format_size

__all__ = ["ElementStats", "ServerStats", "Snapshot", "TenantStats", "fragmentation", "main"]

# Layouts of csrc/wire.h.
ELEMENT_LAYOUT = struct.Struct("<4Qd2Qd3Q")
TENANT_LAYOUT = struct.Struct("<10Q")
SERVER_LAYOUT = struct.Struct("<12Qd5Q48Q20Q5Q")
ENTRY_LAYOUT = struct.Struct("<QII88s")

OPERATIONS = {
    1: "read", 2: "write", 3: "readv", 4: "writev", 5: "alloc", 6: "free", 7: "extend", 8: "region",
    9: "flush", 10: "stat", 11: "attach", 12: "renew", 16: "fetch_add", 17: "compare_swap",
    20: "verbs_open", 21: "verbs_region", 22: "verbs_close", 32: "tenant_create", 33: "tenant_drop",
    34: "element_create", 35: "element_drop", 36: "element_stats", 37: "server_stats",
    38: "tenant_stats", 39: "list", 40: "element_renew",
}  # fmt: skip
"""Requests by number, as `ServerStats.operations` names them."""

ERRORS = {
    3: "auth", 4: "bounds", 5: "capability", 6: "stale", 7: "capacity", 8: "unsupported",
    9: "protocol", 10: "exists", 11: "missing", 12: "invalid", 13: "memory", 14: "version",
    16: "system",
}  # fmt: skip
"""Refusals by code, as `ServerStats.errors` names them."""


def fragmentation(free: int, largest_free: int) -> float:
    """Return the share of `free` bytes that is not in the largest free piece: 0 is none."""
    return 1 - largest_free / free if free else 0.0


@dataclass(frozen=True, slots=True)
class ElementStats:
    """What an element holds and moved. Sizes in bytes, `age` in seconds.

    `byte_seconds` integrates the reserved bytes over time; `bytes_read` and `bytes_written` count
    what went through the server, not what was touched through a mapping. `free`, `free_blocks` and
    `largest_free` are of what the element allocates from: its region 0, or for an elastic element
    its tenant's arena.
    """

    reserved: int
    peak: int
    limit: int
    regions: int
    byte_seconds: float
    bytes_read: int
    bytes_written: int
    age: float
    free: int = 0
    free_blocks: int = 0
    largest_free: int = 0

    @property
    def fragmentation(self) -> float:
        """Share of the free bytes that is not in the largest free piece: 0 is none."""
        return fragmentation(self.free, self.largest_free)


@dataclass(frozen=True, slots=True)
class TenantStats:
    """What a tenant holds, in bytes. `resident` is what its arena really takes, recycled warm pages
    included; `free` what is free in the arena.
    """

    quota: int
    reserved: int
    resident: int
    elements: int
    regions: int
    free_blocks: int
    largest_free: int
    peak: int = 0
    free: int = 0
    connections: int = 0

    @property
    def fragmentation(self) -> float:
        """Share of the free bytes that is not in the largest free piece: 0 is none."""
        return fragmentation(self.free, self.largest_free)


@dataclass(frozen=True, slots=True)
class ServerStats:
    """What a server holds and did. Sizes in bytes, `uptime` in seconds.

    Attributes
    ----------
    refused
        Strangers and malformed requests.
    overhead
        What the server's process takes beyond the pool.
    leases, leases_expired
        Leases that are held or run, and that have run out.
    draining
        Whether it is stopping, and begins nothing any more.
    peak
        The most that was ever reserved.
    operations, errors
        Requests by operation, refusals by reason.
    undrawn
        What is promised and not in use yet.
    undrawn_elsewhere
        The same of all other servers and local elements of the user on this machine.
    ledger
        Whether they know of one another; where not, each promises as if it were alone.
    turned_away
        Connections for which there was no descriptor, or none for their tenant.
    descriptors
        How many descriptors the server's process may have.
    """

    size: int
    reserved: int
    resident: int
    tenants: int
    elements: int
    regions: int
    connections: int
    accepted: int
    requests: int
    refused: int
    bytes_read: int
    bytes_written: int
    uptime: float
    overhead: int
    leases: int
    leases_expired: int
    draining: bool
    peak: int
    operations: Mapping[str, int]
    errors: Mapping[str, int]
    undrawn: int = 0
    undrawn_elsewhere: int = 0
    ledger: bool = False
    turned_away: int = 0
    descriptors: int = 0


_SERVER_FIELDS = tuple(f.name for f in dataclasses.fields(ServerStats))
_SERVER_PLAIN, _SERVER_LATER = _SERVER_FIELDS[:18], _SERVER_FIELDS[20:]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All statistics of a server: by tenant, and by tenant, element number and element name."""

    server: ServerStats
    tenants: Mapping[str, TenantStats]
    elements: Mapping[tuple[str, int, str], ElementStats]

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "server": dataclasses.asdict(self.server),
            "tenants": {
                name: dataclasses.asdict(stats) | {"fragmentation": stats.fragmentation}
                for name, stats in self.tenants.items()
            },
            "elements": [
                {"tenant": tenant, "id": id_, "name": name}
                | dataclasses.asdict(stats)
                | {"fragmentation": stats.fragmentation}
                for (tenant, id_, name), stats in self.elements.items()
            ],
        }


def unpack_server(reply: bytes) -> ServerStats:
    """Make the statistics of what the server sent."""
    values = SERVER_LAYOUT.unpack(reply)
    plain: dict[str, Any] = dict(zip(_SERVER_PLAIN, values, strict=False))
    counts, refusals = values[18:66], values[66:86]
    plain |= zip(_SERVER_LATER, values[86:], strict=True)
    for name in ("draining", "ledger"):
        plain[name] = bool(plain[name])
    return ServerStats(
        **plain,
        operations={name: counts[number] for number, name in OPERATIONS.items()},
        errors={name: refusals[number] for number, name in ERRORS.items()},
    )


def unpack_entries(page: bytes) -> Iterator[tuple[int, str, bytes]]:
    """Yield number, name and statistics of each entry of a list's page."""
    at = 0
    while at < len(page):
        id_, length, size, stats = ENTRY_LAYOUT.unpack_from(page, at)
        at += ENTRY_LAYOUT.size
        yield id_, page[at : at + length].decode(errors="replace"), stats[:size]
        at += length


# ---- the command --------------------------------------------------------------------------------


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def format_snapshot(snapshot: Snapshot) -> str:
    """Return tables for people."""
    server = snapshot.server
    plain = {
        f.name: getattr(server, f.name)
        for f in dataclasses.fields(server)
        if f.name not in ("operations", "errors")
    }
    sizes = {
        "size", "reserved", "resident", "peak", "bytes_read", "bytes_written", "overhead",
        "undrawn", "undrawn_elsewhere",
    }  # fmt: skip
    rows = [["server", ""]]
    for name, value in plain.items():
        rows.append([name, format_size(value) if name in sizes else f"{value:g}"])
    parts = [_table(rows)]
    for title, counts in (
        ("requests", server.operations),
        ("errors", server.errors),
    ):
        if any(counts.values()):
            parts.append(_table([[title, ""], *([k, str(n)] for k, n in counts.items() if n)]))
    columns = ["reserved", "peak", "free", "largest_free"]
    head = [*columns, "fragmentation", "regions"]

    def cells(stats: TenantStats | ElementStats) -> list[str]:
        found = [format_size(getattr(stats, c)) for c in columns]
        return [*found, f"{stats.fragmentation:.3f}", str(stats.regions)]

    if snapshot.tenants:
        lines = [[_printable(n), *cells(s)] for n, s in snapshot.tenants.items()]
        parts.append(_table([["tenant", *head], *lines]))
    if snapshot.elements:
        lines = [
            [f"{_printable(tenant)}/{id_} {_printable(name)}".rstrip(), *cells(stats)]
            for (tenant, id_, name), stats in snapshot.elements.items()
        ]
        parts.append(_table([["element", *head], *lines]))
    return "\n\n".join(parts)


def _printable(name: str) -> str:
    """Names are others' bytes: none of them moves the cursor of whoever looks."""
    return "".join(c if c.isprintable() else "\ufffd" for c in name)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the statistics of a running memory server; return the exit status."""
    import argparse
    import json

    from libd.control import ServerControl

    parser = argparse.ArgumentParser(
        prog="python -m libd.statistics",
        description="Print what a memory server holds and did: as a whole, by tenant, by element.",
        epilog="The administrator's token is taken from $SCAD_ADMIN_TOKEN.",
    )
    parser.add_argument("url", help="tcp://HOST:PORT or unix://@NAME")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="as JSON")
    group.add_argument("--metrics", action="store_true", help="in Prometheus' text format")
    options = parser.parse_args(argv)
    try:
        with ServerControl(options.url, os.environ.get("SCAD_ADMIN_TOKEN", "")) as control:
            if options.metrics:
                sys.stdout.write(control.metrics())
                return 0
            snapshot = control.snapshot()
    except LibdError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    text = json.dumps(snapshot.to_json(), indent=2) if options.json else format_snapshot(snapshot)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
