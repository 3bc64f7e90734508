"""Every example in the docstrings of the room and in docs/frames.md runs and says the truth."""

from __future__ import annotations

import datetime as dt
import doctest
import importlib
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import remote_frame
from remote_frame import col, lit, when

ROOT = Path(__file__).parent.parent.parent
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
MODULES = sorted(p.stem for p in (ROOT / "remote_frame").glob("*.py") if p.stem != "__init__")
# Those whose public objects users meet must have examples at all.
WITH_EXAMPLES = {
    *("aggregates", "api", "expressions", "files", "frame", "functions", "grouping"),
    *("namespaces", "numbers", "strings", "dates", "results", "rowwise", "selectors"),
    *("columns", "rows"),
}

SALES = pa.table(
    {
        "item": pa.array([1, 1, 2, 3, None], pa.int32()),
        "store": ["a", "b", "a", None, "a"],
        "qty": pa.array([5, None, 7, 1, 2], pa.int64()),
        "price": pa.array(
            [Decimal("1.50"), Decimal("2.00"), None, Decimal("4.25"), Decimal("0")],
            pa.decimal32(7, 2),
        ),
        "day": [dt.date(2020, 1, 31), dt.date(2020, 2, 1), dt.date(2021, 2, 1), None, None],
    }
)


@pytest.fixture
def names(tmp_path: Path) -> dict[str, Any]:
    """What examples may use without saying where it is from."""
    return {
        "col": col,
        "folder": tmp_path,
        "lit": lit,
        "datetime": dt,
        "pa": pa,
        "remote_frame": remote_frame,
        "sales": remote_frame.from_arrow(SALES),
        "when": when,
    }


@pytest.mark.parametrize("name", MODULES)
def test_docstrings(name: str, names: dict[str, Any]) -> None:
    module = importlib.import_module(f"remote_frame.{name}")
    result = doctest.testmod(module, extraglobs=names, optionflags=FLAGS)
    assert result.failed == 0
    assert (result.attempted > 0) == (name in WITH_EXAMPLES)


def test_the_page_about_frames(names: dict[str, Any]) -> None:
    page = ROOT / "docs" / "frames.md"
    # A fence is no expected output.
    text = page.read_text().replace("```python", "").replace("```", "")
    parser = doctest.DocTestParser()
    examples = parser.get_doctest(text, {**names}, page.name, str(page), 0)
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    runner.run(examples)
    assert runner.summarize().failed == 0
    assert runner.tries > 20
