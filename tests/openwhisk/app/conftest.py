from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files (name → text) into an application directory and return it."""
    directory = tmp_path / "demo"

    def write(files: dict[str, str]) -> Path:
        directory.mkdir(exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(dedent(text))
        return directory

    return write
