"""A room imports only from rooms on lower floors (ARCHITECTURE.md §1)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {
    "libd": 0,
    "openwhisk": 1,
    "remote_array": 1,
    "operators": 2,
    "remote_frame": 3,
    "engine": 4,
    "tpcds": 5,
    "logistic_regression": 5,
    "scad": 5,
    "bench": 6,
}
# Imports that cost a worker dear, and the only room that may make them.
FRONT_END_ONLY = {"datafusion": {"engine"}, "substrait": {"engine"}, "sqlglot": {"engine"}}


def imported_packages(source: str) -> set[str]:
    """Top-level packages that a module imports anywhere, `TYPE_CHECKING` blocks included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def violations(room: str, source: str) -> set[str]:
    """Rooms and libraries that a module of `room` must not import but does."""
    imports = imported_packages(source)
    upward = {p for p in imports if p in FLOORS and p != room and FLOORS[p] >= FLOORS[room]}
    # Applications stand side by side on one floor; the face may use them, they may use the face's
    # floor below only.
    foreign = {lib for lib, rooms in FRONT_END_ONLY.items() if lib in imports and room not in rooms}
    return upward | (foreign if room not in ("bench", "scad", "tpcds") else set())


@pytest.mark.parametrize("room", FLOORS)
def test_room_imports_only_from_lower_floors(room: str) -> None:
    modules = sorted((ROOT / room).rglob("*.py")) + sorted((ROOT / room).rglob("*.pyi"))
    assert modules, f"room {room} is empty"
    wrong = {
        str(path.relative_to(ROOT)): bad
        for path in modules
        if (bad := violations(room, path.read_text()))
    }
    assert not wrong


def test_the_check_itself_sees_an_upward_import() -> None:
    assert violations("libd", "def f():\n    from engine.session import Session\n") == {"engine"}
    assert violations("remote_array", "import openwhisk.app") == {"openwhisk"}
    assert violations("operators", "import datafusion") == {"datafusion"}
    assert violations("engine", "import datafusion, libd.durl, remote_frame") == set()
