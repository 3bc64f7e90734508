from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from openwhisk.worker.scratch import PREFIX, Scratch, sweep


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_there_is_no_directory_before_somebody_asks(root: Path) -> None:
    scratch = Scratch()
    assert list(root.iterdir()) == []
    scratch.close()


def test_the_directory_goes_with_all_that_is_in_it(root: Path) -> None:
    scratch = Scratch()
    assert scratch.path == scratch.path
    (Path(scratch.path) / "run").write_bytes(b"x" * 100_000)
    scratch.close()
    scratch.close()
    assert list(root.iterdir()) == []
    assert scratch.peak >= 100_000


def test_what_is_gone_before_the_end_was_seen() -> None:
    scratch = Scratch()
    file = Path(scratch.path) / "run"
    file.write_bytes(b"x" * 1_000_000)
    deadline = time.monotonic() + 10
    while scratch.peak < 1_000_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    file.unlink()
    scratch.close()
    assert scratch.peak >= 1_000_000


def test_sweeping_leaves_alone_what_somebody_uses(root: Path) -> None:
    scratch = Scratch()
    path = Path(scratch.path)
    sweep()
    assert path.is_dir()
    scratch.close()


def test_sweeping_removes_what_a_killed_worker_left(root: Path) -> None:
    code = (
        "import tempfile, sys, time; tempfile.tempdir = sys.argv[1]\n"
        "from openwhisk.worker.scratch import Scratch\n"
        "s = Scratch(); open(s.path + '/run', 'w').write('x'); print(s.path, flush=True)\n"
        "time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        path = Path(worker.stdout.readline().strip())
        sweep()
        assert (path / "run").exists()
        worker.send_signal(signal.SIGKILL)
        worker.wait()
    assert path.exists()
    sweep()
    assert not path.exists()


def test_sweeping_touches_nothing_else(root: Path) -> None:
    (root / "mine").mkdir()
    (root / f"{PREFIX}link").symlink_to(root / "mine")
    (root / f"{PREFIX}file").write_text("")
    sweep()
    assert (root / "mine").is_dir()
    assert os.path.lexists(root / f"{PREFIX}link")
