"""The DAG of a query as an SVG picture.

Boxes are compute elements, coloured by how long they took (and, in a page that says so, by memory);
cylinders are memory elements. Solid lines join elements that run beside one another, with what
flows along them; dashed lines are dependences. The picture stands alone: no fonts, scripts or style
sheets from elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as ET

from engine.report.layout import Layout, Point, layered
from engine.report.profile import ExchangeProfile, QueryProfile, StageProfile
from engine.report.text import Q_ERROR_BAD, Q_ERROR_SUSPICIOUS, format_seconds
from libd.units import format_size

__all__ = ["FONT", "HOT_MEMORY", "HOT_TIME", "dag_svg", "shade", "short_count"]

FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"

# White to a colour in which black text is still easy to read.
HOT_TIME, HOT_MEMORY = (246, 165, 92), (126, 176, 232)

_SVG = "http://www.w3.org/2000/svg"
_STAGE_WIDTH, _LINE, _PAD = 230.0, 15.0, 9.0
_MEMORY = (176.0, 50.0)
_MARGIN, _LEGEND = 18.0, 54.0
_INK, _FAINT, _EDGE, _DEPENDENCE = "#1f2933", "#5b6770", "#7b8794", "#b0b8c1"
_TEAL, _TEAL_FILL, _RED, _AMBER = "#0f766e", "#e3f4f1", "#b91c1c", "#b45309"
_BADGE = "#7c3aed"


def shade(share: float, colour: tuple[int, int, int]) -> str:
    """`colour` mixed with white: all of it for a share of 1."""
    share = min(max(share, 0.0), 1.0)
    return "#" + "".join(f"{round(255 + (c - 255) * share):02x}" for c in colour)


def short_count(number: float) -> str:
    """A count in a few characters: 950, 12.3k, 4.56M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def dag_svg(profile: QueryProfile) -> ET.Element:
    """The picture.

    Every stage's box has the class ``stage`` and the CSS variables ``--time`` and ``--memory``, its
    fill by either measure.

    Raises
    ------
    MissingLibraryError
        If grandalf is not installed.
    """
    sizes: dict[str, Point] = {}
    edges: list[tuple[str, str]] = []
    for stage in profile.stages:
        sizes[stage.name] = (_STAGE_WIDTH, 2 * _PAD + _LINE * len(_stage_lines(stage)))
        sizes[stage.output.name] = _MEMORY
        edges.append((stage.name, stage.output.name))
        edges += [(r.exchange, stage.name) for r in stage.reads]
    layout = layered(sizes, edges)
    width = max(layout.width, 600.0) + 2 * _MARGIN
    height = layout.height + 2 * _MARGIN + _LEGEND
    root = ET.Element(
        "svg",
        {
            "xmlns": _SVG,
            "viewBox": f"0 0 {width:.0f} {height:.0f}",
            "width": f"{width:.0f}",
            "height": f"{height:.0f}",
            "font-family": FONT,
            "font-size": "12",
            "role": "img",
            "aria-label": f"DAG of {profile.name}",
        },
    )
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    shift = f"translate({(width - layout.width) / 2:.1f} {_MARGIN:.1f})"
    canvas = ET.SubElement(root, "g", {"transform": shift})
    _Drawing(profile, layout, sizes, canvas).draw()
    _legend(root, profile, height - _LEGEND)
    return root


class _Drawing:
    """Draws nodes and edges where the layout says."""

    def __init__(
        self,
        profile: QueryProfile,
        layout: Layout,
        sizes: dict[str, Point],
        canvas: ET.Element,
    ) -> None:
        self._profile = profile
        self._layout = layout
        self._sizes = sizes
        self._canvas = canvas
        self._path = set(profile.critical_path())
        self._slowest = max((s.seconds or 0.0 for s in profile.stages), default=0.0)
        self._largest = max((s.peak_bytes for s in profile.stages), default=0)

    def draw(self) -> None:
        """Edges first, so that nodes lie on top."""
        for stage in self._profile.stages:
            for read in stage.reads:
                self._dependence(read.writer, stage.name, read.exchange)
        for stage in self._profile.stages:
            self._flow(stage.name, stage.output.name, _written(stage.output), stage.output)
            for read in stage.reads:
                label = {"all": "all", "part": "partition i", "own": "frame i"}[read.mode]
                if stage.parallelism > 1 and read.mode == "all":
                    label = f"all, ×{stage.parallelism}"
                elif stage.parallelism == 1 and read.mode != "all":
                    label = ""
                self._flow(read.exchange, stage.name, label, self._exchange(read.exchange))
        for stage in self._profile.stages:
            self._memory(stage.output)
            self._stage(stage)

    def _exchange(self, name: str) -> ExchangeProfile:
        return next(s.output for s in self._profile.stages if s.output.name == name)

    def _flow(self, source: str, target: str, label: str, exchange: ExchangeProfile) -> None:
        points = self._ends(source, target)
        critical = exchange.writer in self._path and (
            target == exchange.name or target in self._path
        )
        ET.SubElement(
            self._canvas,
            "path",
            {
                "d": _curve(points),
                "fill": "none",
                "stroke": _INK if critical else _EDGE,
                "stroke-width": f"{_thickness(exchange):.1f}",
                "stroke-opacity": "0.85",
            },
        )
        # Arrow head, drawn as a shape: renderers differ in how they scale markers.
        x, y = points[-1]
        head = f"M{x - 4.5:.1f} {y - 8:.1f}L{x + 4.5:.1f} {y - 8:.1f}L{x:.1f} {y:.1f}Z"
        ET.SubElement(self._canvas, "path", {"d": head, "fill": _INK if critical else _EDGE})
        if label:
            x, y = points[0]
            style = {"fill": _INK if target == exchange.name else _FAINT, "font-size": "11"}
            halo = {"stroke": "#ffffff", "stroke-width": "3", "paint-order": "stroke"}
            _text(self._canvas, x + 8.0, y + 15.0, label, {**style, **halo})

    def _dependence(self, writer: str, reader: str, exchange: str) -> None:
        """A dashed line past the memory element, on the side that points outwards."""
        x, y = self._layout.centres[exchange]
        start, end = self._layout.centres[writer], self._layout.centres[reader]
        middle = self._layout.width / 2
        side = -1.0 if x < middle - 1.0 else 1.0
        beside = x + side * (_MEMORY[0] / 2 + 9.0)
        top = start[1] + self._sizes[writer][1] / 2
        bottom = end[1] - self._sizes[reader][1] / 2
        x0 = start[0] + side * (_STAGE_WIDTH / 2 - 14.0)
        x1 = end[0] + side * (_STAGE_WIDTH / 2 - 14.0)
        bends = self._layout.bends.get((exchange, reader), [])
        points = [(x0, top), (beside, y - _MEMORY[1] / 2), (beside, y + _MEMORY[1] / 2)]
        points += [(bx + side * 9.0, by) for bx, by in bends]
        ET.SubElement(
            self._canvas,
            "path",
            {
                "d": _curve([*points, (x1, bottom)]),
                "fill": "none",
                "stroke": _DEPENDENCE,
                "stroke-width": "1.2",
                "stroke-dasharray": "4 4",
            },
        )

    def _ends(self, source: str, target: str) -> list[Point]:
        """The points of an edge from the bottom of one node to the top of the other; edges that
        meet at a node are spread along its side.
        """
        x0, y0 = self._layout.centres[source]
        x1, y1 = self._layout.centres[target]
        bends = self._layout.bends.get((source, target), [])
        return [
            (self._spread(source, target, x0, outgoing=True), y0 + self._sizes[source][1] / 2),
            *bends,
            (self._spread(target, source, x1, outgoing=False), y1 - self._sizes[target][1] / 2),
        ]

    def _spread(self, node: str, other: str, x: float, *, outgoing: bool) -> float:
        """Where along the side of `node` the edge to or from `other` begins or ends."""
        edges = [e for e in self._layout.bends if e[0 if outgoing else 1] == node]
        if len(edges) < 2:
            return x
        towards = {}
        for source, target in edges:
            far = target if outgoing else source
            bends = self._layout.bends[source, target]
            near = bends[0 if outgoing else -1][0] if bends else self._layout.centres[far][0]
            towards[far] = near
        order = sorted(towards, key=lambda far: towards[far])
        room = self._sizes[node][0] * 0.72
        return x - room / 2 + room * order.index(other) / (len(order) - 1)

    def _stage(self, stage: StageProfile) -> None:
        x, y = self._layout.centres[stage.name]
        w, h = self._sizes[stage.name]
        left, top = x - w / 2, y - h / 2
        time = shade((stage.seconds or 0.0) / self._slowest if self._slowest else 0.0, HOT_TIME)
        memory = shade(stage.peak_bytes / self._largest if self._largest else 0.0, HOT_MEMORY)
        critical = stage.name in self._path
        group = ET.SubElement(self._canvas, "g")
        ET.SubElement(group, "title").text = _stage_tooltip(stage)
        if stage.parallelism > 1:  # a second sheet behind it: there are several
            ET.SubElement(
                group,
                "rect",
                {
                    **_rect(left + 4, top - 4, w, h, 7),
                    "fill": "#ffffff",
                    "stroke": _EDGE,
                    "stroke-width": "1",
                },
            )
        ET.SubElement(
            group,
            "rect",
            {
                **_rect(left, top, w, h, 7),
                "class": "stage",
                "style": f"--time:{time};--memory:{memory}",
                "fill": time,
                "stroke": _INK if critical else _EDGE,
                "stroke-width": "2.2" if critical else "1.1",
            },
        )
        for number, (line, attributes) in enumerate(_stage_lines(stage)):
            at = top + _PAD + _LINE * number + 11
            _text(group, left + 11, at, line, attributes)
        if stage.parallelism > 1:
            attributes = {"text-anchor": "end", "font-weight": "600", "fill": _FAINT}
            _text(group, left + w - 10, top + _PAD + 11, f"×{stage.parallelism}", attributes)
        if stage.repeated:
            ET.SubElement(
                group,
                "circle",
                {"cx": f"{left:.1f}", "cy": f"{top:.1f}", "r": "9", "fill": _BADGE},
            )
            attributes = {"text-anchor": "middle", "fill": "#ffffff", "font-size": "11"}
            _text(group, left, top + 4, f"↻{stage.repeated}", attributes)

    def _memory(self, exchange: ExchangeProfile) -> None:
        x, y = self._layout.centres[exchange.name]
        w, h = _MEMORY
        left, top, cap = x - w / 2, y - h / 2, 5.0
        body = (
            f"M{left:.1f} {top + cap:.1f}a{w / 2:.1f} {cap} 0 0 1 {w:.1f} 0"
            f"v{h - 2 * cap:.1f}a{w / 2:.1f} {cap} 0 0 1 {-w:.1f} 0z"
        )
        rim = f"M{left:.1f} {top + cap:.1f}a{w / 2:.1f} {cap} 0 0 0 {w:.1f} 0"
        group = ET.SubElement(self._canvas, "g")
        ET.SubElement(group, "title").text = _memory_tooltip(exchange)
        stroke = {"stroke": _TEAL, "stroke-width": "1.2"}
        ET.SubElement(group, "path", {"d": body, "fill": _TEAL_FILL, **stroke})
        ET.SubElement(group, "path", {"d": rim, "fill": "none", **stroke})
        middle = {"text-anchor": "middle"}
        kind = exchange.kind
        if kind == "hash":
            kind = f"hash({_shorten(', '.join(exchange.keys), 15)})"
            kind += f" → {exchange.partitions}" if exchange.partitions > 1 else ""
        title = _text(group, x, top + 25, "", middle)
        ET.SubElement(title, "tspan", {"font-weight": "600"}).text = exchange.name
        if exchange.kind != "result":
            small = {"fill": _FAINT, "font-size": "11", "dx": "5"}
            ET.SubElement(title, "tspan", small).text = kind
        estimate = f"expected {short_count(exchange.estimated_rows)} rows"
        colour = _FAINT
        if (error := exchange.q_error) is not None and error >= 1.05:
            estimate += f" (×{error:.1f})" if error < 100 else f" (×{short_count(error)})"
            if error >= Q_ERROR_SUSPICIOUS:
                colour = _RED if error >= Q_ERROR_BAD else _AMBER
        _text(group, x, top + 40, estimate, {**middle, "fill": colour, "font-size": "10.5"})


def _stage_lines(stage: StageProfile) -> list[tuple[str, dict[str, str]]]:
    """What stands in a stage's box."""
    room = 31 if stage.parallelism == 1 else 27
    lines = [(_shorten(stage.name, room), {"font-weight": "600", "fill": _INK})]
    small = {"font-size": "11", "fill": _INK}
    if stage.seconds is not None:
        figures = [format_seconds(stage.seconds), f"peak {format_size(stage.peak_bytes)}"]
        lines.append((" · ".join(figures), small))
    for table in stage.tables[:3]:
        share = "" if table.shares is None else "share of "
        room = 24 if table.shares is None else 15
        name = _shorten(table.table, room)
        lines.append((f"{share}{name}, {short_count(table.rows)} rows", {**small, "fill": _FAINT}))
    if len(stage.tables) > 3:
        more = f"and {len(stage.tables) - 3} more tables"
        lines.append((more, {**small, "fill": _FAINT}))
    return lines


def _stage_tooltip(stage: StageProfile) -> str:
    lines = [f"{stage.name}, {stage.parallelism} {'copy' if stage.parallelism == 1 else 'copies'}"]
    for copy in stage.copies:
        if copy.seconds is not None:
            lines.append(
                f"[{copy.index}] {format_seconds(copy.seconds)} from {format_seconds(copy.start)}, "
                f"CPU {format_seconds(copy.cpu_seconds)}, peak {format_size(copy.peak_bytes)}"
                + ("" if copy.rows_written is None else f", wrote {copy.rows_written:,} rows")
            )
    return "\n".join([*lines, "", stage.plan])


def _memory_tooltip(exchange: ExchangeProfile) -> str:
    lines = [f"{exchange.name}: {exchange.kind}", f"columns: {', '.join(exchange.columns)}"]
    if exchange.rows is not None and exchange.bytes is not None:
        lines.append(f"{exchange.rows:,} rows, {format_size(exchange.bytes)}")
    lines.append(
        f"expected {exchange.estimated_rows:,.0f} rows, "
        f"{format_size(int(exchange.estimated_bytes))}"
    )
    return "\n".join(lines)


def _written(exchange: ExchangeProfile) -> str:
    if exchange.rows is None or exchange.bytes is None:
        rows, size = exchange.estimated_rows, int(exchange.estimated_bytes)
        return f"~{short_count(rows)} rows · ~{format_size(size)}"
    return f"{short_count(exchange.rows)} rows · {format_size(exchange.bytes)}"


def _thickness(exchange: ExchangeProfile) -> float:
    """1 to 5 pixels from a kilobyte to a gigabyte."""
    size = exchange.bytes if exchange.bytes is not None else exchange.estimated_bytes
    digits = len(str(int(max(size, 1))))
    return 1.0 + min(max(digits - 4, 0), 6) * 0.65


def _curve(points: Sequence[Point]) -> str:
    """A line that leaves downwards, arrives downwards and bends softly in between."""
    (x, y), *rest = points
    path = f"M{x:.1f} {y:.1f}"
    for nx, ny in rest:
        bend = (ny - y) / 2
        path += f"C{x:.1f} {y + bend:.1f} {nx:.1f} {ny - bend:.1f} {nx:.1f} {ny:.1f}"
        x, y = nx, ny
    return path


def _rect(x: float, y: float, w: float, h: float, radius: float) -> dict[str, str]:
    sides = {"x": x, "y": y, "width": w, "height": h, "rx": radius}
    return {name: f"{value:.1f}" for name, value in sides.items()}


def _text(
    parent: ET.Element, x: float, y: float, text: str, attributes: dict[str, str]
) -> ET.Element:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}"}
    node = ET.SubElement(parent, "text", {**place, "fill": _INK, **attributes})
    node.text = text
    return node


def _shorten(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _legend(root: ET.Element, profile: QueryProfile, top: float) -> None:
    group = ET.SubElement(
        root, "g", {"font-size": "11", "transform": f"translate({_MARGIN} {top})"}
    )
    small = {"fill": _FAINT}
    ET.SubElement(group, "path", {"d": "M0 0H580", "stroke": "#e4e7eb"})
    box = {"fill": shade(0.35, HOT_TIME), "stroke": _EDGE}
    ET.SubElement(group, "rect", {**_rect(0, 12, 22, 13, 3), **box})
    _text(group, 28, 22, "compute element", small)
    can = "M140 14.5a11 2.5 0 0 1 22 0v8a11 2.5 0 0 1 -22 0z"
    ET.SubElement(group, "path", {"d": can, "fill": _TEAL_FILL, "stroke": _TEAL})
    _text(group, 168, 22, "memory element", small)
    ET.SubElement(group, "path", {"d": "M284 19H308", "stroke": _EDGE, "stroke-width": "2"})
    _text(group, 314, 22, "corunning, with what flows", small)
    dashes = {"stroke": _DEPENDENCE, "stroke-dasharray": "4 4", "stroke-width": "1.2"}
    ET.SubElement(group, "path", {"d": "M492 19H516", **dashes})
    _text(group, 522, 22, "dependence", small)
    if profile.critical_path():
        ET.SubElement(group, "path", {"d": "M0 40H22", "stroke": _INK, "stroke-width": "2.2"})
        _text(group, 28, 44, "critical path", small)
        _text(group, 140, 44, f"colour: up to {format_seconds(_slowest(profile))}", small)


def _slowest(profile: QueryProfile) -> float:
    return max((s.seconds or 0.0 for s in profile.stages), default=0.0)
