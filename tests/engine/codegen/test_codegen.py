"""Generated elements: readable, accepted by the tools, safe whatever the query's text holds."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.codegen import CodegenSettings, build_application, quoted_text
from engine.optimizer import Estimates, optimize
from engine.stages import CutSettings, StagePlan, cut
from openwhisk.app import load_directory, sinks, validate
from openwhisk.app.model import Application
from operators import build
from operators.rel import ParquetSource, Rel
from operators.types import canonical_schema

NASTY = 'it\'s "quoted" \\ """ {x} %s é \u2028 \x00'


@given(st.text())
def test_quoted_text_evaluates_to_the_text(text: str) -> None:
    assert ast.literal_eval(quoted_text(text)) == f"\n{text}\n"


@given(st.text(alphabet="\"\\\n'a"))
def test_quoted_text_survives_quotes_and_backslashes(text: str) -> None:
    assert ast.literal_eval(quoted_text(text)) == f"\n{text}\n"


@pytest.fixture
def plan(tmp_path: Path) -> Rel:
    path = tmp_path / 'o\'brien "x" \\.parquet'
    pq.write_table(pa.table({"k": [1, 2, 3, 4], 'v\'"""\\n': [1.0, 2.0, 3.0, 4.0]}), path)
    schema = canonical_schema(pq.read_schema(path))
    scan = build.scan(ParquetSource('odd """ name', (str(path),)), schema)
    wanted = build.call("not_equal", build.lit(NASTY), build.lit("x"))
    measure = build.aggregate("stddev_samp", build.col(scan.schema, 1))
    return build.aggregation(build.filter(scan, wanted), [build.col(scan.schema, 0)], [measure])


def stages_of(plan: Rel, parallelism: int = 2) -> StagePlan:
    estimates = Estimates()
    settings = CutSettings(parallelism, whole_rows=1.0, gather_rows=0.0)
    return cut(optimize(plan, estimates), estimates, settings)


def application(plan: Rel) -> Application:
    return build_application("q", stages_of(plan), CodegenSettings(512 << 20, 1 << 30))


def test_nothing_in_a_query_can_break_out_of_its_quotes(plan: Rel) -> None:
    for element in application(plan).compute.values():
        tree = ast.parse(element.code)
        names = [type(node).__name__ for node in tree.body]
        assert names == ["Expr", "ImportFrom", "Assign", "Assign", "FunctionDef"]
        sql = ast.literal_eval(tree.body[2].value)  # type: ignore[attr-defined]
        if "WHERE" in sql:
            quoted = NASTY.replace("'", "''").replace("\x00", "' || chr(0) || '")
            assert f"('{quoted}')" in sql


def test_the_application_is_valid_without_warnings(plan: Rel) -> None:
    app = application(plan)
    assert validate(app) == []
    assert sinks(app) == [stages_of(plan).result.name]
    assert app.memory["result"].lifetime == "session"
    assert {m.access for m in app.memory.values()} == {"exchange"}
    assert all(m.elastic for m in app.memory.values())
    assert {c.limits.mem for c in app.compute.values()} == {512 << 20}


def test_a_directory_of_elements_reads_back_as_the_same_application(
    plan: Rel, tmp_path: Path
) -> None:
    app = application(plan)
    folder = tmp_path / "q"
    folder.mkdir()
    app.write_directory(folder)
    again = load_directory(folder)
    assert {e.name for e in again} == {e.name for e in app}
    for name, element in app.compute.items():
        other = again.compute[name]
        assert (other.parents, other.dependents) == (element.parents, element.dependents)
        assert other.parallelism == element.parallelism
        assert other.limits == element.limits
        assert other.code.strip() == element.code.strip()


def test_an_element_says_what_it_does(plan: Rel) -> None:
    app = application(plan)
    stages = stages_of(plan)
    docs = [ast.get_docstring(ast.parse(e.code)) or "" for e in app.compute.values()]
    assert "Reads its part of odd" in docs[0]
    assert "scattered by k into 2 partitions" in docs[0]
    assert "its partition of x1" in docs[1]
    assert "Writes the answer" in docs[1]
    assert len(stages.stages) == 2


def test_element_modules_do_not_load_a_planner() -> None:
    import subprocess
    import sys

    code = (
        "import sys, engine.element; "
        "bad = {'datafusion', 'substrait', 'sqlglot', 'engine.session'} & set(sys.modules); "
        "sys.exit(f'loaded: {bad}' if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_names_of_columns_that_are_equal_are_made_unique(plan: Rel, tmp_path: Path) -> None:
    doubled: Any = build.project(plan, [build.col(plan.schema, 0)] * 2, ["A", "a"])
    stages = stages_of(doubled)
    names = [n.lower() for n in stages.result.output.schema.names]
    assert len(set(names)) == 2
    assert stages.schema.names == ("A", "a")
