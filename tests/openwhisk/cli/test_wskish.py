"""``wskish``: what it says without a control plane. With one: ``tests/openwhisk/http``."""

from __future__ import annotations

from pathlib import Path

import pytest

from openwhisk.cli.wskish import main


def test_every_problem_is_a_line_of_wskish(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.o.py").write_text("#@ type: compute\n#@ limits:\n#@   mem: 12 XB\n")
    assert main(["--apihost", "http://127.0.0.1:9", "--auth", "u:k", "put", "a", str(tmp_path)])
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert all(line.startswith("wskish: ") for line in lines), said.err
    assert {"one.o.py", "two.o.py"} == {Path(line.split(":")[1].strip()).name for line in lines}
