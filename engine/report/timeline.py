"""When elements ran and what was reserved meanwhile, as one SVG figure (matplotlib).

Above, a bar for every copy of every compute element and a thin one for every memory element, in the
order of the plan. Below, over the same time, the bytes that compute elements reserved and held, and
the bytes in memory elements.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from engine.report.dag import FONT
from engine.report.errors import missing_library
from engine.report.profile import CopyProfile, ExchangeProfile, QueryProfile, StageProfile
from engine.report.text import format_seconds
from libd.units import format_size

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["exchange_bytes", "step", "timeline_svg"]

_SVG = "{http://www.w3.org/2000/svg}"
_WIDTH, _BAR, _PANEL, _EDGES = 11.0, 0.215, 1.35, 1.1  # inches
_COLOURS = {
    "scan": "#8ab6d6",
    "join": "#f0a35e",
    "aggregate": "#9bbf6f",
    "top": "#c39bd3",
    "sort": "#c39bd3",
    "window": "#e3a0b5",
    "union": "#b8b08d",
}
_OTHER, _MEMORY, _INK, _GRID = "#b0b8c1", "#0f766e", "#1f2933", "#e4e7eb"
_RESERVED, _HELD = "#f6d5b4", "#d97706"

Steps = tuple[list[float], list[float]]


def step(changes: Iterable[tuple[float, float]]) -> Steps:
    """Times and the value from each time on, of changes ``(time, amount)``; begins at 0."""
    times, values = [0.0], [0.0]
    for time, amount in sorted(changes):
        if time == times[-1]:
            values[-1] += amount
        else:
            times.append(time)
            values.append(values[-1] + amount)
    return times, values


def exchange_bytes(stage: StageProfile, end: float) -> list[tuple[float, float]]:
    """Changes of the bytes in a stage's memory element: each copy's when it committed, all of them
    away when the element was freed (or the query was over).
    """
    changes = [
        (c.end, float(c.bytes_written))
        for c in stage.copies
        if c.end is not None and c.bytes_written
    ]
    total = sum(amount for _, amount in changes)
    freed = stage.output.end
    gone = end if freed is None else max(freed, *(time for time, _ in changes), 0.0)
    return [*changes, (gone, -total)] if total else []


def timeline_svg(profile: QueryProfile) -> ET.Element:
    """The figure; bars have tooltips.

    Raises
    ------
    ReportError
        If the query did not run.
    MissingLibraryError
        If matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_library("matplotlib") from error

    rows = _rows(profile)
    tall = max(2, len(rows)) * _BAR
    height = tall + 2 * _PANEL + _EDGES
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": profile.name,
        "font.family": "DejaVu Sans",  # measured with it; what shows is the reader's own
        "font.size": 8.5,
        "axes.edgecolor": "#9aa5b1",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    tips: dict[str, str] = {}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        ratios = [tall, _PANEL, _PANEL]
        bars, compute, memory = figure.subplots(
            3, 1, sharex=True, gridspec_kw={"height_ratios": ratios}
        )
        end = profile.seconds or 0.001
        _draw_bars(bars, profile, rows, tips)
        _draw_compute(compute, profile, end)
        _draw_memory(memory, profile, end)
        memory.set_xlim(0, end * 1.005)
        memory.set_xlabel("seconds")
        out = io.BytesIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return _finished(out.getvalue(), tips, f"Timeline of {profile.name}")


_Row = tuple[str, StageProfile, CopyProfile | None]


def _rows(profile: QueryProfile) -> list[_Row]:
    """From top to bottom: each stage's copies, then the memory element that it writes."""
    rows: list[_Row] = []
    for stage in profile.stages:
        for copy in stage.copies:
            index = f"[{copy.index}]" if len(stage.copies) > 1 else ""
            rows.append((f"{stage.name}{index}", stage, copy))
        rows.append((stage.output.name, stage, None))
    return rows


def _draw_bars(
    axes: Axes, profile: QueryProfile, rows: Sequence[_Row], tips: dict[str, str]
) -> None:
    path = set(profile.critical_path())
    axes.set_ylim(len(rows) - 0.4, -0.6)
    for at, (label, stage, copy) in enumerate(rows):
        gid = f"bar{at}"
        if copy is None:
            start, end = stage.output.start, stage.output.end
            if start is not None:
                end = profile.seconds if end is None else end
                width = max((end or start) - start, 0.0)
                axes.barh(at, width, 0.22, left=start, color=_MEMORY, alpha=0.65, gid=gid)
                tips[gid] = _memory_tip(stage.output, width)
        elif copy.start is not None:
            until = copy.end if copy.end is not None else profile.seconds or copy.start
            critical = stage.name in path and copy.end == stage.end
            failed = copy.status not in ("done", "running")
            axes.barh(
                at,
                max(until - copy.start, 0.0),
                0.72,
                left=copy.start,
                color=_COLOURS.get(stage.what.partition("_")[0], _OTHER),
                edgecolor="#b91c1c" if failed else _INK,
                linewidth=1.6 if failed else 1.2 if critical else 0.3,
                hatch="//" if failed else None,
                gid=gid,
            )
            tips[gid] = _copy_tip(label, copy)
    axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
    for tick, (_, stage, copy) in zip(axes.get_yticklabels(), rows, strict=True):
        if copy is None:
            tick.set_color(_MEMORY)
            tick.set_fontsize(7.5)
        elif stage.name in path:
            tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    _kinds(axes, profile)


def _kinds(axes: Axes, profile: QueryProfile) -> None:
    from matplotlib.patches import Patch

    found = dict.fromkeys(s.what.partition("_")[0] for s in profile.stages)
    patches = [Patch(color=_COLOURS.get(kind, _OTHER), label=kind) for kind in found]
    patches.append(Patch(color=_MEMORY, alpha=0.65, label="memory element"))
    axes.legend(
        handles=patches,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(patches),
        frameon=False,
        handlelength=1.1,
        handleheight=0.9,
        columnspacing=1.4,
        borderaxespad=0.3,
    )


def _draw_compute(axes: Axes, profile: QueryProfile, end: float) -> None:
    copies = [c for s in profile.stages for c in s.copies if c.start is not None]
    reserved = step(_reserved(copies, end))
    held = step(_peaks(copies, end))
    axes.fill_between(*_until(reserved, end), step="post", color=_RESERVED, label="reserved")
    axes.step(*_until(held, end), where="post", color=_HELD, linewidth=1.3, label="peaks held")
    _bytes_axis(axes, "compute elements")


def _draw_memory(axes: Axes, profile: QueryProfile, end: float) -> None:
    per_stage = [(s.output.name, exchange_bytes(s, end)) for s in profile.stages]
    times = sorted({0.0, end, *(t for _, changes in per_stage for t, _ in changes)})
    layers, names = [], []
    for name, changes in per_stage:
        if changes:
            layers.append(_sampled(step(changes), times))
            names.append(name)
    if layers:
        from matplotlib import colormaps

        shades = colormaps["GnBu"]
        colours = [shades(0.35 + 0.5 * i / max(len(layers) - 1, 1)) for i in range(len(layers))]
        axes.stackplot(times, layers, step="post", colors=colours, linewidth=0)
        axes.step(times, [sum(v) for v in zip(*layers, strict=True)], where="post", color=_MEMORY)
        largest = sorted(zip(map(max, layers), names, strict=True), reverse=True)[:4]
        text = "  ".join(f"{name} {format_size(int(size))}" for size, name in largest)
        axes.set_title(f"largest: {text}", loc="right", fontsize=7.5, color=_MEMORY, pad=2)
    _bytes_axis(axes, "memory elements")


def _reserved(copies: Sequence[CopyProfile], end: float) -> list[tuple[float, float]]:
    """Changes of what the copies had reserved."""
    changes = []
    for copy in copies:
        assert copy.start is not None
        before = 0.0
        for seconds, size in copy.reserved:
            changes.append((copy.start + seconds, size - before))
            before = size
        changes.append((copy.end if copy.end is not None else end, -before))
    return changes


def _peaks(copies: Sequence[CopyProfile], end: float) -> list[tuple[float, float]]:
    """Changes of the sum of the peaks of the copies that run."""
    changes = []
    for copy in copies:
        assert copy.start is not None
        changes.append((copy.start, float(copy.peak_bytes)))
        changes.append((copy.end if copy.end is not None else end, -float(copy.peak_bytes)))
    return changes


def _until(steps: Steps, end: float) -> Steps:
    return [*steps[0], max(end, steps[0][-1])], [*steps[1], steps[1][-1]]


def _sampled(steps: Steps, times: Sequence[float]) -> list[float]:
    values, at = [], 0
    for time in times:
        while at + 1 < len(steps[0]) and steps[0][at + 1] <= time:
            at += 1
        values.append(steps[1][at])
    return values


def _bytes_axis(axes: Axes, title: str) -> None:
    from matplotlib.ticker import FuncFormatter, MultipleLocator

    axes.set_title(title, loc="left", fontsize=8.5, pad=2)
    high = max(axes.get_ylim()[1], 1024.0)
    axes.set_ylim(0, high)
    axes.yaxis.set_major_locator(MultipleLocator(2 ** math.ceil(math.log2(high / 4))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: format_size(int(value))))
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=2,
            frameon=False,
            borderaxespad=0.1,
            handlelength=1.4,
        )


def _copy_tip(label: str, copy: CopyProfile) -> str:
    lines = [
        f"{label}: {format_seconds(copy.seconds)} from {format_seconds(copy.start)}",
        f"CPU {format_seconds(copy.cpu_seconds)}, peak {format_size(copy.peak_bytes)} "
        f"of {format_size(copy.limit_bytes)}",
    ]
    if copy.rows_written is not None:
        lines.append(f"wrote {copy.rows_written:,} rows")
    if copy.attempts > 1:
        lines.append(f"attempt {copy.attempts}")
    if copy.status != "done":
        lines.append(copy.status)
    return "\n".join(lines)


def _memory_tip(exchange: ExchangeProfile, seconds: float) -> str:
    held = "" if exchange.bytes is None else f", {format_size(exchange.bytes)}"
    return f"{exchange.name} ({exchange.kind}){held}, there for {format_seconds(seconds)}"


def _finished(svg: bytes, tips: dict[str, str], title: str) -> ET.Element:
    """The figure with tooltips, the reader's fonts, and nothing that a browser would fetch."""
    ET.register_namespace("", _SVG.strip("{}"))
    ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ET.fromstring(svg)
    for metadata in root.findall(f"{_SVG}metadata"):
        root.remove(metadata)
    root.set("role", "img")
    root.set("aria-label", title)
    for node in root.iter():
        if (tip := tips.get(node.get("id", ""))) is not None:
            told = ET.Element(f"{_SVG}title")
            told.text = tip
            node.insert(0, told)
        style = node.get("style", "")
        if "'DejaVu Sans'" in style:
            node.set("style", style.replace("'DejaVu Sans'", FONT))
    return root
