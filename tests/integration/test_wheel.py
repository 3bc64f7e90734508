"""The wheel, installed where the source tree is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Path:
    """Built from what git knows, so that nothing that happens to lie about gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((root / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--no-cache-dir", "--wheel-dir", str(folder / "dist"), "."],
        cwd=source, check=True, timeout=600,
    )  # fmt: skip
    (found,) = (folder / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and, as a folder behind it, our dependencies."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages /= "site-packages"
    # A path only: the finder of an editable install in there is not run.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install",
         "--quiet", "--no-deps", "--no-index", "--ignore-installed", str(wheel)],
        check=True, timeout=300,
    )  # fmt: skip
    return folder


def test_what_is_in_it(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    rooms = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == {
        "libd", "remote_array", "remote_frame", "operators", "engine", "openwhisk", "tpcds",
        "logistic_regression", "scad",
    }  # fmt: skip
    assert sum(name.endswith(".so") for name in names) >= 3
    assert [name for name in names if name.endswith((".c", ".pyx"))] == []
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {n.partition("/")[0] for n in names if n.endswith("py.typed")} == rooms


def test_it_works(installed: Path, root: Path, world: Any) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    nowhere = {"PYTHONPATH": "", "PATH": os.defpath}
    python = str(installed / "bin" / "python")
    for module in ("libd", "engine", "scad", "openwhisk", "operators"):
        where = world.run(python, "-c", f"import {module}; print({module}.__file__)", **nowhere)
        assert where.out.startswith(str(installed)), where
    scad = str(installed / "bin" / "scad")
    doctor = world.run(scad, "doctor", "--json", **nowhere)
    assert doctor.status == 0, doctor
    assert all(finding["level"] != "broken" for finding in json.loads(doctor.out))

    pq.write_table(pa.table({"a": [7, 7], "b": [2, 4]}), world.home / "t.parquet")
    command = ["sql", "select a/b as x from t order by x", "--table", "t=t.parquet"]
    status, out, err = world.run(scad, *command, "--format", "csv", **nowhere)
    assert (status, err) == (0, "")
    assert out.split() == ["x", "1.75", "3.5"]
