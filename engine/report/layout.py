"""Places for the nodes of a DAG, layer by layer (Sugiyama's method, by grandalf)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.report.errors import missing_library

__all__ = ["Layout", "layered"]

Point = tuple[float, float]

_ROUNDS = 12  # of crossing reduction; a plan's DAG is nearly a tree and settles in a few
_GAP_X, _GAP_Y = 36.0, 38.0


@dataclass(frozen=True, slots=True)
class Layout:
    """Centres of nodes, bends of edges and the extent of it all; the origin is the top left
    corner.
    """

    centres: dict[str, Point]
    bends: dict[tuple[str, str], list[Point]]
    width: float
    height: float


class _Box:
    """What grandalf wants to know of a node, and where it puts it."""

    xy: Point = (0.0, 0.0)

    def __init__(self, size: Point) -> None:
        self.w, self.h = size


class _Line:
    """Where grandalf leads an edge."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def setpath(self, points: Sequence[Point]) -> None:
        self.points = list(points)


def layered(sizes: Mapping[str, Point], edges: Sequence[tuple[str, str]]) -> Layout:
    """Place nodes of these sizes so that edges lead downwards and cross little.

    Parameters
    ----------
    sizes
        Width and height of each node.
    edges
        From, to. They must not form a cycle.

    Raises
    ------
    MissingLibraryError
        If grandalf is not installed.
    """
    try:
        from grandalf.graphs import Edge, Graph, Vertex
        from grandalf.layouts import SugiyamaLayout
        from grandalf.routing import route_with_lines
    except ImportError as error:
        raise missing_library("grandalf") from error

    vertices: dict[str, Any] = {}
    for name, size in sizes.items():
        vertices[name] = Vertex(name)
        vertices[name].view = _Box(size)
    lines: dict[tuple[str, str], Any] = {}
    for source, target in edges:
        edge = lines[source, target] = Edge(vertices[source], vertices[target])
        edge.view = _Line()
    graph = Graph(list(vertices.values()), list(lines.values()))
    right = bottom = 0.0
    for component in graph.C:
        placed = SugiyamaLayout(component)
        placed.xspace, placed.yspace = _GAP_X, _GAP_Y
        placed.route_edge = route_with_lines
        placed.init_all(roots=[v for v in component.sV if not v.e_in()])
        placed.draw(_ROUNDS)
        placed.draw_edges()
        views = [v.view for v in component.sV]
        left = min(v.xy[0] - v.w / 2 for v in views)
        top = min(v.xy[1] - v.h / 2 for v in views)
        for view in views:
            view.xy = (view.xy[0] - left + right, view.xy[1] - top)
        for edge in component.sE:
            edge.view.points = [(x - left + right, y - top) for x, y in edge.view.points]
        right = max(v.xy[0] + v.w / 2 for v in views) + _GAP_X
        bottom = max(bottom, *(v.xy[1] + v.h / 2 for v in views))
    return Layout(
        {name: v.view.xy for name, v in vertices.items()},
        {ends: edge.view.points[1:-1] for ends, edge in lines.items()},
        max(0.0, right - _GAP_X),
        bottom,
    )
