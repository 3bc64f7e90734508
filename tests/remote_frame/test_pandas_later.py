"""pandas is not in a worker before an element asks for it, and pyarrow knows of it then."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("pandas")

ARROW = """
import pyarrow as pa, pyarrow.compute, duckdb
table = pa.table({"a": pa.array([1, None, 3])})
connection = duckdb.connect()
connection.register("t", table)
connection.register("u", table.to_reader())
assert connection.execute("select sum(t.a) from t, u").fetchall() == [(12,)]
"""


def run(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_arrow_works_without_pandas() -> None:
    run(f"""
import sys, remote_frame.pandas_later
{ARROW}
import operators.duckdb, operators.polars.kernel, engine.element, engine.resident.load
assert "pandas" not in sys.modules
""")


def test_arrow_takes_pandas_objects_once_they_are_there() -> None:
    # A series that pyarrow does not know keeps its NaN, a categorical one becomes strings.
    run(f"""
import sys, remote_frame.pandas_later
{ARROW}
import pandas as pd
assert pa.array(pd.Series([1.0, None])).null_count == 1
assert pa.types.is_dictionary(pa.array(pd.Series(["a", "b"], dtype="category")).type)
assert type(pd.__spec__.loader).__module__ != "remote_frame.pandas_later"
assert not any(type(f).__module__ == "remote_frame.pandas_later" for f in sys.meta_path)
""")


@pytest.mark.parametrize("ask", ["table.to_pandas()", "connection.execute('select 1').df()"])
def test_who_asks_for_a_frame_gets_one(ask: str) -> None:
    run(f"""
import sys, remote_frame.pandas_later
{ARROW}
frame = {ask}
import pandas as pd
assert isinstance(frame, pd.DataFrame)
assert pa.array(pd.Series([1.0, None])).null_count == 1
""")


def test_pandas_that_is_there_already_stays() -> None:
    run(f"""
import sys, pandas as pd, remote_frame.pandas_later
{ARROW}
assert sys.modules["pandas"] is pd
assert pa.array(pd.Series([1.0, None])).null_count == 1
assert not any(type(f).__module__ == "remote_frame.pandas_later" for f in sys.meta_path)
""")


def test_pandas_that_is_not_installed_is_missed_by_name() -> None:
    run(f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name=name)
sys.meta_path.insert(0, Missing())
import remote_frame.pandas_later
{ARROW}
try:
    import pandas
except ModuleNotFoundError as error:
    assert error.name == "pandas"
else:
    raise AssertionError
try:
    table.to_pandas()
except ModuleNotFoundError:
    pass
else:
    raise AssertionError
""")


def test_pandas_that_is_too_old_for_arrow_can_be_imported(tmp_path: Path) -> None:
    (tmp_path / "pandas").mkdir()
    (tmp_path / "pandas" / "__init__.py").write_text("__version__ = '1.5.3'\n")
    run(f"""
import sys, remote_frame.pandas_later
sys.path.insert(0, {str(tmp_path)!r})
{ARROW}
import pandas
assert pandas.__version__ == "1.5.3"
""")


def test_a_worker_begins_without_pandas_and_gives_it_to_who_asks() -> None:
    from engine.session import PREIMPORT
    from openwhisk.app.model import Application, ComputeElement, Limits
    from openwhisk.control import EmbeddedControlPlane

    code = """
import sys
import pyarrow as pa

def main(params, action):
    before = "pandas" in sys.modules
    import pandas as pd
    return {"before": before, "nulls": pa.array(pd.Series([1.0, None])).null_count}
"""
    with EmbeddedControlPlane(cores=1, preimport=PREIMPORT) as plane:
        element = ComputeElement("look", code, limits=Limits(mem=512 << 20))
        plane.put_application(Application("looks", [element]))
        done = plane.wait(plane.invoke("looks", {}))
    assert done.result == {"look": {"before": False, "nulls": 1}}
