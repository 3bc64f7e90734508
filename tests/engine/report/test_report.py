"""Profiles, their text, and pages with pictures, made from records without running anything."""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from engine import Session
from engine.report import (
    MissingLibraryError,
    QueryProfile,
    ReportError,
    ReportWriter,
    format_profile,
    profile,
    q_error,
    show,
)
from engine.report.dag import dag_svg
from engine.report.layout import layered
from engine.report.timeline import exchange_bytes, step, timeline_svg
from engine.stages import StagePlan
from openwhisk.api import Activation, ElementRecord, MemoryRecord, Usage

SQL = "select k, count(*) as n from big join small using (k) group by k order by n desc limit 3"
BEGAN = 1_700_000_000.0


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> StagePlan:
    folder = tmp_path_factory.mktemp("tables")
    big = pa.table({"k": [i % 7 for i in range(1000)], "x": list(range(1000))})
    pq.write_table(big, folder / "big.parquet", row_group_size=100)
    pq.write_table(pa.table({"k": [1, 2, 3]}), folder / "small.parquet")
    with Session(parallelism=2) as session:
        for name in ("big", "small"):
            session.register(name, folder / f"{name}.parquet")
        return session.stages(session.sql(SQL).plan)


@pytest.fixture(scope="module")
def ran(plan: StagePlan) -> Activation:
    """A record as the control plane makes it: stages one after the other, two copies each."""
    elements, memory = [], []
    for number, stage in enumerate(plan.stages):
        start = BEGAN + number
        for index in range(stage.parallelism):
            elements.append(
                ElementRecord(
                    name=stage.name,
                    index=index,
                    attempts=1 + (number == 0 and index == 1),
                    start=start,
                    end=start + 0.5 + 0.25 * index,
                    status="done",
                    limit_bytes=1 << 30,
                    peak_anon_bytes=(50 + number) << 20,
                    cpu_seconds=0.4,
                    metrics={
                        "rows_read": 5.0,
                        "rows_written": 1000.0 * (index + 1),
                        "frame_bytes_written": 4096.0,
                    },
                )
            )
        memory.append(
            MemoryRecord(name=stage.output.name, start=start, end=start + 1.9, peak_bytes=8192)
        )
    return Activation(
        activation_id="abc",
        name="query-1",
        start=BEGAN,
        end=BEGAN + len(plan.stages),
        status="success",
        elements=elements,
        memory=memory,
        usage=Usage(compute_gb_s=1.5, memory_gb_s=0.5, recomputed=["s1[1]"]),
    )


@pytest.fixture(scope="module")
def analyzed(plan: StagePlan, ran: Activation) -> QueryProfile:
    return profile(plan, ran, name="q <1> & co", sql=SQL)


@given(st.floats(0, 1e12), st.floats(0, 1e12))
def test_the_q_error_is_symmetric_and_at_least_one(estimated: float, actual: float) -> None:
    assert q_error(estimated, actual) == q_error(actual, estimated) >= 1
    assert q_error(actual, actual) == 1


def test_the_q_error_counts_no_rows_as_one() -> None:
    assert q_error(0, 0) == q_error(0, 1) == 1
    assert q_error(0, 50) == q_error(200, 4) == 50


def test_a_plan_alone_has_estimates_only(plan: StagePlan) -> None:
    planned = profile(plan, sql=SQL)
    assert not planned.analyzed
    assert planned.status == "planned"
    assert planned.critical_path() == ()
    assert planned.worst_estimate() is None
    assert planned.elements == plan.elements
    tables = {t.table: t for s in planned.stages for t in s.tables}
    assert tables["big"].rows == 1000
    assert tables["big"].shares is not None
    assert sum(tables["big"].shares) == 1000
    assert tables["small"].rows == 3


def test_figures_are_those_of_the_record(analyzed: QueryProfile, plan: StagePlan) -> None:
    first, last = analyzed.stages[0], analyzed.result
    assert (first.start, first.end, first.seconds) == (0.0, 0.75, 0.75)
    assert first.output.rows == 3000
    assert first.output.bytes == 8192
    assert first.output.q_error == q_error(first.output.estimated_rows, 3000)
    assert first.output.end == pytest.approx(1.9)
    assert first.repeated == 1
    assert last.repeated == 0
    assert first.cpu_seconds == pytest.approx(0.8)
    assert last.peak_bytes == (50 + len(plan.stages) - 1) << 20
    assert analyzed.seconds == len(plan.stages)
    path = analyzed.critical_path()
    assert path[-1] == last.name
    assert set(path) <= {s.name for s in analyzed.stages}
    assert json.loads(json.dumps(analyzed.to_json()))["stages"][0]["output"]["rows"] == 3000


def test_a_copy_without_figures_leaves_rows_unknown(plan: StagePlan, ran: Activation) -> None:
    ran = Activation(
        activation_id="x",
        name="x",
        start=BEGAN,
        status="failed",
        error="element s1 failed\nTraceback",
        elements=[
            ElementRecord(name=plan.stages[0].name, status="failed", attempts=1, start=BEGAN)
        ],
    )
    broken = profile(plan, ran)
    assert broken.stages[0].output.rows is None
    assert broken.stages[0].output.q_error is None
    assert broken.critical_path() == ()
    text = format_profile(broken)
    assert "(failed)" in text
    assert "element s1 failed" in text
    assert "Traceback" not in text
    ET.tostring(dag_svg(broken))
    ET.tostring(timeline_svg(broken))


def test_the_text_is_a_tree_with_marked_errors(analyzed: QueryProfile) -> None:
    text = format_profile(analyzed)
    lines = text.splitlines()
    assert lines[0].startswith("q <1> & co: ")
    names = [s.name for s in analyzed.stages]
    tree = [line for line in lines[:20] if any(n in line for n in names)]
    assert tree[0].strip().startswith(analyzed.result.name)
    assert "└─ " in tree[1]
    assert "! " in text  # the first stage's rows are far from what was expected
    assert "critical path: " in text
    assert "repeated" in text
    for stage in analyzed.stages:
        assert all(f"  | {line}" in text for line in stage.plan.splitlines())
    assert len(format_profile(analyzed, plans=False)) < len(text)


def test_a_narrow_terminal_gets_fewer_columns(analyzed: QueryProfile) -> None:
    def first_lines(width: int) -> str:
        console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
        show(analyzed, console, plans=False)
        console.file.close()
        return console.export_text()

    assert "est. bytes" in first_lines(220)
    narrow = first_lines(90)
    assert "est. bytes" not in narrow
    assert "q-error" in narrow
    assert max(map(len, narrow.splitlines()[:8])) <= 90


def test_names_and_sql_are_quoted_in_pages(analyzed: QueryProfile, tmp_path: Path) -> None:
    page = ReportWriter(tmp_path / "pages", "all <of> it").add(analyzed, DuckDB="<b>1 s</b>")
    text = page.read_text()
    assert page.name == "q-1-co.html"
    assert "<h1>q &lt;1&gt; &amp; co" in text
    assert "q <1>" not in text
    index = (page.parent / "index.html").read_text()
    assert "&lt;b&gt;1 s&lt;/b&gt;" in index
    assert 'href="q-1-co.html"' in index


def test_pages_stand_alone(analyzed: QueryProfile, tmp_path: Path) -> None:
    page = ReportWriter(tmp_path).add(analyzed).read_text()
    fetched = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!\#)(\w+:|//)""", page)
    assert not fetched
    assert "<link" not in page
    assert "@import" not in page
    assert len(page) < 300_000


def test_queries_of_one_name_have_pages_of_their_own(
    analyzed: QueryProfile, plan: StagePlan, tmp_path: Path
) -> None:
    writer = ReportWriter(tmp_path)
    pages = [writer.add(analyzed), writer.add(profile(plan, name="q 1 co")), writer.add(analyzed)]
    assert len({p.name for p in pages}) == 3
    assert writer.add(profile(plan, name="index")).name == "index-2.html"
    assert writer.add(profile(plan, name="../../etc")).parent == tmp_path
    index = (tmp_path / "index.html").read_text()
    assert index.count("<tr>") == 1 + 5


def test_the_picture_has_every_element(analyzed: QueryProfile) -> None:
    root = dag_svg(analyzed)
    text = " ".join(t for t in root.itertext() if t)
    for stage in analyzed.stages:
        assert stage.name in text
        assert stage.output.name in text
    boxes = [n for n in root.iter("rect") if n.get("class") == "stage"]
    assert len(boxes) == len(analyzed.stages)
    assert all("--time:#" in b.get("style", "") for b in boxes)
    dashed = [n for n in root.iter("path") if n.get("stroke-dasharray")]
    assert len(dashed) == sum(len(s.reads) for s in analyzed.stages) + 1  # and the legend's


def test_the_timeline_has_a_bar_with_a_tip_for_every_element(analyzed: QueryProfile) -> None:
    root = timeline_svg(analyzed)
    tips = [t.text or "" for t in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(tips) == analyzed.elements + len(analyzed.stages)
    assert any("attempt 2" in t for t in tips)
    again = timeline_svg(analyzed)
    assert ET.tostring(root) == ET.tostring(again), "the same figures make the same picture"


def test_bytes_in_memory_go_up_with_commits_and_down_when_freed(analyzed: QueryProfile) -> None:
    stage = analyzed.stages[0]
    changes = exchange_bytes(stage, 99.0)
    times, values = step(changes)
    assert times == [0.0, 0.5, 0.75, pytest.approx(1.9)]
    assert values == [0.0, 4096.0, 8192.0, 0.0]


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-10, 10)), max_size=30))
def test_steps_add_up(changes: list[tuple[float, float]]) -> None:
    times, values = step(changes)
    assert times == sorted(set(times))
    assert values[-1] == pytest.approx(sum(a for _, a in changes), abs=1e-9)


@given(st.data())
def test_nodes_do_not_overlap_and_edges_lead_down(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    edges = [
        (f"n{data.draw(st.integers(0, target - 1))}", f"n{target}") for target in range(1, count)
    ]
    edges += [("n0", f"n{count - 1}")] if count > 2 else []
    sizes = {f"n{i}": (60.0 + 40 * (i % 3), 30.0 + 10 * (i % 2)) for i in range(count)}
    layout = layered(sizes, list(dict.fromkeys(edges)))
    places = layout.centres
    for source, target in edges:
        assert places[source][1] < places[target][1]
    for one in sizes:
        for other in sizes:
            if one < other:
                dx = abs(places[one][0] - places[other][0])
                dy = abs(places[one][1] - places[other][1])
                beside = dx >= (sizes[one][0] + sizes[other][0]) / 2 - 0.5
                assert beside or dy >= (sizes[one][1] + sizes[other][1]) / 2 - 0.5
        x, y = places[one]
        assert x - sizes[one][0] / 2 + 0.5 >= 0
        assert x + sizes[one][0] / 2 <= layout.width + 0.5
        assert y + sizes[one][1] / 2 <= layout.height + 0.5


@pytest.mark.parametrize("library", ["grandalf", "matplotlib"])
def test_a_missing_library_names_the_extra(
    analyzed: QueryProfile, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    real: Callable[..., Any] = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingLibraryError, match=rf"{library}.*pip install 'scad\[report\]'"):
        (dag_svg if library == "grandalf" else timeline_svg)(analyzed)


def test_a_missing_library_shows_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingLibraryError, match="jinja2"):
        ReportWriter(tmp_path / "pages")
    assert not (tmp_path / "pages").exists()


def test_a_directory_that_cannot_be_made_is_named(analyzed: QueryProfile, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match="file"):
        ReportWriter(tmp_path / "file")
    writer = ReportWriter(tmp_path / "pages")
    (tmp_path / "pages" / "q-1-co.html").mkdir()
    with pytest.raises(ReportError, match=r"q-1-co\.html"):
        writer.add(analyzed)
