"""A figure for each table: both sides' figures, and the ratio below them.

Colours are Okabe and Ito's, which colour-blind people tell apart; markers and dashes say the same.
"""

from __future__ import annotations

import re
import statistics
from pathlib import Path
from typing import Any

from bench.harness import Row
from bench.report import shown_figure, tables

__all__ = ["write_plots"]

OURS = ("#000000", "o", "-")
PEERS = [
    ("#D55E00", "s", "--"), ("#0072B2", "^", "-."), ("#009E73", "D", ":"),
    ("#CC79A7", "v", "--"), ("#E69F00", "P", "-."), ("#56B4E9", "X", ":"), ("#8A8A00", "*", "--"),
    ("#882255", "<", "-."), ("#44AA99", ">", ":"),
]  # fmt: skip
RATE_UNITS = ("GB/s", "k/s")


def size_text(value: float) -> str:
    """Bytes, shortly."""
    for unit, scale in (("M", 1 << 20), ("K", 1 << 10)):
        if value >= scale:
            return f"{value / scale:g}{unit}"
    return f"{value:g}"


def plain(value: float, _: int = 0) -> str:
    """A tick's label without an exponent."""
    return f"{value:g}" if value < 1e4 else f"{value:,.0f}"


def sparse(value: float, _: int = 0) -> str:
    """Labels for 2 and 5 between the powers of ten: axes of one decade need them."""
    return plain(value) if f"{value:e}"[0] in "25" else ""


def lines(rows: list[Row]) -> dict[str, dict[float, list[Row]]]:
    """Rows with both sides, by peer and x."""
    found: dict[str, dict[float, list[Row]]] = {}
    for row in rows:
        if row.peer is not None and row.x is not None:
            found.setdefault(row.peer_name, {}).setdefault(row.x, []).append(row)
    return found


def draw_lines(figure: Any, rows: list[Row]) -> None:
    """Figures over x on top, ratios below."""
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    unit = rows[0].unit
    places = sorted({row.x for row in rows if row.x is not None})
    # Ours is measured beside every peer, and in several ways: the best of its medians by way.
    ours = []
    for x in places:
        ways: dict[str, list[float]] = {}
        for row in rows:
            if row.x == x:
                ways.setdefault(row.name, []).append(row.ours)
        medians = [statistics.median(figures) for figures in ways.values()]
        ours.append(max(medians) if unit in RATE_UNITS else min(medians))
    top.plot(places, ours, color=OURS[0], marker=OURS[1], linestyle=OURS[2], lw=2.4, label="ours")
    for (name, by_x), style in zip(lines(rows).items(), PEERS * 2, strict=False):
        colour, marker, dashes = style
        look = {"color": colour, "marker": marker, "linestyle": dashes, "lw": 1.5}
        xs = sorted(by_x)
        top.plot(
            xs, [statistics.median(r.peer or 0.0 for r in by_x[x]) for x in xs], label=name, **look
        )
        best = max if unit in RATE_UNITS else min
        bottom.plot(xs, [best(r.ratio or 0.0 for r in by_x[x]) for x in xs], **look)
    for row in rows:
        wanted = re.search(r"[<>]= ([\d.]+) x peer", row.target)
        if wanted and row.x is not None:
            bottom.plot([row.x], [float(wanted[1])], color="#000000", marker="_", ms=16, mew=2.5)
    bottom.axhline(1.0, color="#555555", lw=1)
    is_size = max(places) > 64
    for axes in (top, bottom):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(plain)
        axes.yaxis.set_minor_formatter(sparse)
        axes.tick_params(axis="y", which="minor", labelsize=7)
        axes.grid(True, which="both", axis="y", alpha=0.2)
        axes.grid(True, which="major", alpha=0.35)
    bottom.set_xticks(places, [size_text(x) if is_size else f"{x:g}" for x in places])
    bottom.minorticks_off()
    bottom.set_xlabel(
        "bytes" if is_size else "in flight" if "flight" in rows[0].table else "clients"
    )
    top.set_ylabel(unit)
    better = "higher" if unit in RATE_UNITS else "lower"
    bottom.set_ylabel(f"ours / peer\n({better} is better)")
    figure.legend(loc="outside lower center", fontsize=8, ncols=4)


def draw_pairs(figure: Any, rows: list[Row]) -> None:
    """For each row of a table without an axis, ours and the peer's as two points."""
    axes = figure.subplots()
    for i, row in enumerate(rows):
        if row.peer is not None:
            axes.plot([row.ours, row.peer], [i, i], color="#999999", lw=2, zorder=1)
            axes.scatter(row.peer, i, 60, PEERS[0][0], marker=PEERS[0][1], zorder=2)
        axes.scatter(row.ours, i, 60, OURS[0], marker=OURS[1], zorder=2)
    names = [f"{row.name} [{row.unit}]" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(sparse)
    axes.set_xlabel(
        f"{' or '.join(dict.fromkeys(row.unit for row in rows))}; ours: black dots, peers: squares"
    )
    axes.grid(True, axis="x", alpha=0.35)
    beside = axes.twinx()
    beside.set_ylim(axes.get_ylim())
    texts = []
    for row in rows:
        ratio = f"{row.peer_name}: {shown_figure(row.ratio)}" if row.ratio is not None else "-"
        texts.append(f"{ratio} (target {row.target})" if row.target else ratio)
    beside.set_yticks(range(len(rows)), texts, fontsize=8)
    beside.set_ylabel("peer: ratio ours / peer", fontsize=8)


def write_plots(folder: Path, rows: list[Row]) -> list[Path]:
    """Write a PNG and an SVG for each table into `folder`; return their paths.

    Raises
    ------
    ModuleNotFoundError
        if matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for title, some in tables(rows).items():
        over_x = bool(lines(some)) and len({row.x for row in some}) > 1
        height = 6.5 if over_x else 1.5 + 0.3 * len(some)
        figure = Figure(figsize=(9 if over_x else 12, height), layout="constrained")
        figure.suptitle(f"{title}: ours beside its peers, medians of one run")
        (draw_lines if over_x else draw_pairs)(figure, some)
        stem = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
        for kind in ("png", "svg"):
            path = folder / f"{stem}.{kind}"
            figure.savefig(path, dpi=150)
            written.append(path)
    return written
