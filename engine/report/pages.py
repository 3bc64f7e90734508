"""`ReportWriter`: a directory of pages, one per query, and an index of them.

Each page stands alone: pictures, styles and figures are in it, and a browser fetches nothing.
Beside ``NAME.html`` lie the pictures (``NAME.svg``, ``NAME.timeline.svg``) and the figures
(``NAME.json``).
"""

from __future__ import annotations

import datetime
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from engine.report.dag import dag_svg
from engine.report.errors import ReportError, missing_library
from engine.report.profile import QueryProfile
from engine.report.text import Q_ERROR_BAD, Q_ERROR_SUSPICIOUS, format_seconds
from engine.report.timeline import timeline_svg
from libd.units import format_size

__all__ = ["ReportWriter", "check_libraries"]


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of the index."""

    file: str
    profile: QueryProfile
    facts: Mapping[str, str]

    @property
    def written(self) -> int:
        return sum(s.output.bytes or 0 for s in self.profile.stages)

    @property
    def peak(self) -> int:
        return max((s.peak_bytes for s in self.profile.stages), default=0)

    @property
    def gb_s(self) -> float:
        usage = self.profile.usage or {}
        return float(usage.get("compute_gb_s", 0.0) + usage.get("memory_gb_s", 0.0))

    @property
    def cpu(self) -> float:
        return float((self.profile.usage or {}).get("cpu_s", 0.0))

    @property
    def worst(self) -> float | None:
        worst = self.profile.worst_estimate()
        return None if worst is None else worst[1]


def check_libraries() -> None:
    """Find out before a long run whether a report can be made after it.

    Raises
    ------
    MissingLibraryError
        If a library is not installed.
    """
    import importlib.util

    for name in ("jinja2", "grandalf", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise missing_library(name)


class ReportWriter:
    """Writes pages into a directory, which it makes.

    Parameters
    ----------
    directory
        Files of the same names are replaced.
    title
        Of the index.

    Raises
    ------
    MissingLibraryError
        If a library that reports need is not installed.
    ReportError
        If the directory cannot be made.
    """

    def __init__(self, directory: str | os.PathLike[str], title: str = "Scad: queries") -> None:
        check_libraries()
        self.directory = Path(directory)
        self._title = title
        self._rows: list[_Row] = []
        self._pages = _environment()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ReportError(f"{self.directory}: {error.strerror}") from error

    def add(self, profile: QueryProfile, **facts: str) -> Path:
        """Write a query's page and its line in the index; returns the page.

        Parameters
        ----------
        facts
            Further columns of the index, by their heads (``DuckDB="0.12 s"``).

        Raises
        ------
        ReportError
            If a file cannot be written.
        """
        stem = self._stem(profile.name)
        dag = ET.tostring(dag_svg(profile), encoding="unicode")
        timeline = ""
        if profile.analyzed:
            timeline = ET.tostring(timeline_svg(profile), encoding="unicode")
        self._rows.append(_Row(f"{stem}.html", profile, facts))
        from markupsafe import Markup

        page = self._pages.get_template("query.html").render(
            p=profile,
            path=set(profile.critical_path()),
            tiles=_tiles(profile),
            dag=Markup(dag),
            timeline=Markup(timeline),
            index=len(self._rows) > 1,
        )
        self._put(f"{stem}.svg", dag)
        if timeline:
            self._put(f"{stem}.timeline.svg", timeline)
        self._put(f"{stem}.json", json.dumps(profile.to_json(), indent=1) + "\n")
        self._write_index()
        return self._put(f"{stem}.html", page)

    def _write_index(self) -> None:
        names = dict.fromkeys(name for row in self._rows for name in row.facts)
        seconds = [row.profile.seconds or 0.0 for row in self._rows]
        page = self._pages.get_template("index.html").render(
            title=self._title,
            rows=self._rows,
            facts=list(names),
            total=sum(seconds),
            longest=max(seconds) or 1.0,
        )
        self._put("index.html", page)

    def _stem(self, name: str) -> str:
        """A file name that no other page of this report has."""
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "query"
        taken = {row.file for row in self._rows} | {"index.html"}
        number, free = 1, stem
        while f"{free}.html" in taken:
            number += 1
            free = f"{stem}-{number}"
        return free

    def _put(self, name: str, text: str) -> Path:
        path = self.directory / name
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ReportError(f"{path}: {error.strerror}") from error
        return path


def _environment() -> Any:
    import jinja2

    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("engine.report"), autoescape=True, trim_blocks=True
    )
    pages.filters |= {
        "count": lambda n: "" if n is None else f"{n:,.0f}",
        "size": lambda n: "" if n is None else format_size(int(n)),
        "seconds": format_seconds,
        "factor": lambda f: f"×{f:.1f}" if f < 100 else f"×{f:,.0f}",
        "severity": _severity,
        "moment": _moment,
    }
    return pages


def _severity(error: float | None) -> str:
    if error is None or error < Q_ERROR_SUSPICIOUS:
        return ""
    return "bad" if error >= Q_ERROR_BAD else "suspicious"


def _moment(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _tiles(profile: QueryProfile) -> list[tuple[str, str]]:
    """The figures at the head of a page."""
    shape = (f"{len(profile.stages)} / {profile.elements}", "stages / elements")
    if not profile.analyzed or profile.usage is None:
        return [shape, (f"{profile.result.output.estimated_rows:,.0f}", "expected rows")]
    usage = profile.usage
    rows = profile.result.output.rows
    tiles = [
        (format_seconds(profile.seconds), "time"),
        ("–" if rows is None else f"{rows:,}", "rows"),
        shape,
        (format_size(sum(s.output.bytes or 0 for s in profile.stages)), "written to memory"),
        (format_size(max((s.peak_bytes for s in profile.stages), default=0)), "largest element"),
        (format_seconds(usage["cpu_s"]), "CPU"),
        (f"{usage['compute_gb_s'] + usage['memory_gb_s']:.2f}", "GB·s reserved"),
        (f"{usage['held_gb_s']:.2f}", "GB·s held by elements"),
    ]
    if (worst := profile.worst_estimate()) is not None:
        tiles.append((f"×{worst[1]:,.1f}", f"worst estimate ({worst[0]})"))
    if usage["recomputed"]:
        tiles.append((str(len(usage["recomputed"])), "elements recomputed"))
    return tiles
