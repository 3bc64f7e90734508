"""What a machine can promise: `capacity.c` on machines and cgroups that are made up here."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "libd" / "csrc"
MB = 1 << 20
MARGIN = 64 * MB  # of a machine of at most 4 GiB

Available = Callable[[], int]


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    out = tmp_path_factory.mktemp("native") / "capacity.so"
    flags = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", f"-I{CSRC}"]
    if sanitizers := os.environ.get("SCAD_SANITIZE"):
        flags += [f"-fsanitize={sanitizers}", "-g"]
    source = str(HERE / "capacity_harness.c")
    subprocess.run([*compiler.split(), *flags, source, "-o", str(out)], check=True)
    library = ctypes.CDLL(str(out))
    library.c_available.restype = ctypes.c_uint64
    library.c_available.argtypes = [ctypes.c_char_p]
    return library


class Machine:
    def __init__(self, native: ctypes.CDLL, root: Path) -> None:
        self.native, self.root = native, root
        self.memory(2048 * MB, 1024 * MB)

    def write(self, path: str, text: str) -> None:
        where = self.root / path.lstrip("/")
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(text)

    def memory(self, total: int, available: int) -> None:
        self.write(
            "/proc/meminfo",
            f"MemTotal: {total >> 10} kB\nMemFree: 1 kB\nMemAvailable: {available >> 10} kB\n"
            "Buffers: 77 kB\n",
        )

    def in_group(self, line: str) -> None:
        self.write("/proc/self/cgroup", line)

    def group(self, path: str, **files: object) -> None:
        for name, value in files.items():
            self.write(f"/sys/fs/cgroup{path}/memory.{name}", f"{value}\n")

    def available(self) -> int:
        return int(self.native.c_available(str(self.root).encode()))


@pytest.fixture
def machine(native: ctypes.CDLL, tmp_path: Path) -> Machine:
    return Machine(native, tmp_path)


def test_a_machine_without_cgroups(machine: Machine) -> None:
    assert machine.available() == 1024 * MB - MARGIN
    machine.memory(2048 * MB, 10 * MB)
    assert machine.available() == 0  # the margin is never promised
    machine.memory(64 << 30, 32 << 30)
    assert machine.available() == (32 << 30) - (64 << 30) // 64


def test_a_machine_that_says_nothing(native: ctypes.CDLL, tmp_path: Path) -> None:
    assert native.c_available(str(tmp_path / "nowhere").encode()) == 0
    machine = Machine(native, tmp_path)
    machine.write("/proc/meminfo", "nonsense\n")
    assert machine.available() == 0


def test_a_group_with_a_limit(machine: Machine) -> None:
    machine.in_group("0::/a.slice/b.scope\n")
    machine.group("/a.slice/b.scope", max=512 * MB, current=100 * MB)
    assert machine.available() == 412 * MB - MARGIN
    machine.group("/a.slice/b.scope", stat=f"anon 1\ninactive_file {60 * MB}\nactive_file 7")
    assert machine.available() == 472 * MB - MARGIN  # page cache is given back
    machine.group("/a.slice/b.scope", stat=f"inactive_file {600 * MB}")
    assert machine.available() == 512 * MB - MARGIN
    machine.group("/a.slice/b.scope", current=600 * MB, stat="")
    assert machine.available() == 0  # above its limit already


def test_the_tightest_of_all_ancestors_counts(machine: Machine) -> None:
    machine.in_group("0::/a/b/c\n")
    machine.group("/a/b/c", max="max", current=100 * MB)
    assert machine.available() == 1024 * MB - MARGIN
    machine.group("/a", max=300 * MB, current=120 * MB)
    machine.group("/a/b", max=400 * MB, current=110 * MB)
    assert machine.available() == 180 * MB - MARGIN
    machine.group("", max=200 * MB, current=150 * MB)  # what a container sees as the root
    assert machine.available() == 0
    machine.group("", max="max")
    machine.memory(2048 * MB, 170 * MB)
    assert machine.available() == 170 * MB - MARGIN


def test_a_group_that_is_slowed_down(machine: Machine) -> None:
    machine.in_group("0::/a\n")
    machine.group("/a", max="max", high=256 * MB, current=100 * MB)
    assert machine.available() == 156 * MB - MARGIN
    machine.group("/a", max=200 * MB)
    assert machine.available() == 100 * MB - MARGIN
    machine.group("/a", high="max")
    assert machine.available() == 100 * MB - MARGIN


def test_the_first_kind_of_cgroups(machine: Machine) -> None:
    machine.in_group("5:cpu:/x\n4:memory:/box/1\n1:name=systemd:/y\n0::/\n")
    machine.write("/sys/fs/cgroup/memory/box/1/memory.limit_in_bytes", f"{400 * MB}")
    machine.write("/sys/fs/cgroup/memory/box/1/memory.usage_in_bytes", f"{100 * MB}")
    machine.write(
        "/sys/fs/cgroup/memory/box/1/memory.stat",
        f"inactive_file {50 * MB}\ntotal_inactive_file {20 * MB}\n",
    )
    assert machine.available() == 320 * MB - MARGIN
    machine.write("/sys/fs/cgroup/memory/box/1/memory.limit_in_bytes", "9223372036854771712")
    assert machine.available() == 1024 * MB - MARGIN


def test_a_container_that_cannot_see_its_group(machine: Machine) -> None:
    """The path is the host's; only the mounted root is there."""
    machine.in_group("0::/../../kubepods/pod/x\n")
    machine.group("", max=256 * MB, current=6 * MB)
    assert machine.available() == 250 * MB - MARGIN


def test_paths_that_are_too_long(machine: Machine) -> None:
    machine.in_group("0::/" + "x" * 5000 + "\n")
    machine.group("", max=256 * MB, current=6 * MB)
    assert machine.available() == 250 * MB - MARGIN
