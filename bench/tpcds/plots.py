"""Figures of a run: a bar for each engine on each query, and the totals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from bench.plots import OURS as OUR_STYLE
from bench.plots import PEERS as PEER_STYLES
from bench.plots import plain
from bench.tpcds.figures import totals
from bench.tpcds.results import Pass, Results

__all__ = ["write_figures"]

PANEL = 33
"""Queries side by side in one row of bars."""


def write_figures(folder: Path, results: Results) -> list[Path]:
    """Write a PNG and an SVG for each pass into `folder`; return their paths.

    Raises
    ------
    ModuleNotFoundError
        if matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, one in results.passes.items():
        panels = -(-len(one.queries) // PANEL)
        figure = Figure(figsize=(14, 2.2 + 2.4 * panels), layout="constrained")
        scale = "" if results.sf is None else f", SF {results.sf:g}"
        figure.suptitle(f"TPC-DS{scale}, {name}: medians of one run")
        rows = figure.subplots(panels + 1, 1, height_ratios=[*[2.4] * panels, 1.4], squeeze=False)
        colours = _colours(one)
        for panel, axes in enumerate(rows[:-1, 0]):
            some = list(one.queries)[panel * PANEL : (panel + 1) * PANEL]
            _draw_queries(axes, one, some, colours)
        _draw_totals(rows[-1, 0], one, colours)
        for kind in ("png", "svg"):
            path = folder / f"tpcds-{name}.{kind}"
            figure.savefig(path, dpi=150)
            written.append(path)
    return written


def _colours(one: Pass) -> dict[str, str]:
    styles = iter(PEER_STYLES)
    return {
        key: OUR_STYLE[0] if engine.role == "ours" else next(styles)[0]
        for key, engine in one.engines.items()
    }


def _draw_queries(axes: Any, one: Pass, queries: list[int], colours: dict[str, str]) -> None:
    width = 0.8 / len(one.engines)
    places = np.arange(len(queries))
    for n, (key, engine) in enumerate(one.engines.items()):
        heights = [
            one.queries[q][key].median if one.queries[q][key].answered else np.nan for q in queries
        ]
        axes.bar(places + n * width, heights, width, color=colours[key], label=engine.title)
        for place, height in zip(places, heights, strict=True):
            if np.isnan(height):
                axes.annotate(
                    "x", (place + n * width, 0.02), xycoords=("data", "axes fraction"),
                    color=colours[key], ha="center", fontsize=8,
                )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(plain)
    axes.set_ylabel("seconds")
    axes.set_xticks(places + 0.4 - width / 2, [f"q{q}" for q in queries], fontsize=8)
    axes.set_xlim(-0.5, PANEL)
    axes.grid(True, axis="y", alpha=0.3)


def _draw_totals(axes: Any, one: Pass, colours: dict[str, str]) -> None:
    found = totals(one)
    keys = list(found)[::-1]
    sums = [found[key].common for key in keys]
    bars = axes.barh(
        [one.engines[key].title for key in keys], sums, color=[colours[key] for key in keys]
    )
    axes.bar_label(bars, [f" {s:.2f} s" for s in sums])
    axes.set_xlabel("seconds over the queries that all answered (x: no right answer)")
    axes.margins(x=0.12)
