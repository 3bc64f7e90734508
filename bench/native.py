"""Small C programs of the benchmarks, compiled when they are needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.harness import Timer

__all__ = ["CORE", "NO_COMPILER", "ProgramTimer", "compiled"]

ROOT = Path(__file__).parent.parent
CORE = sorted((ROOT / "libd/csrc").glob("*.c"))
"""libd's native sources, for programs that use them without Python."""
NO_COMPILER = "C loop (not there: apt-get install gcc)"


@contextmanager
def compiled(
    source: str,
    more: Sequence[Path] = (),
    libraries: Sequence[Sequence[str]] = ((),),
) -> Iterator[Path | None]:
    """Compile ``bench/SOURCE`` and `more` as libd's extension is; None without a compiler.

    Parameters
    ----------
    libraries
        Sets of linker options, of which the first that works is taken.

    Raises
    ------
    RuntimeError
        if it does not compile.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        errors = ""
        for some in libraries:
            command = [
                *compiler.split(), "-O3", "-std=gnu11", "-w", "-pthread",
                f"-I{ROOT / 'libd/csrc'}", str(ROOT / "bench" / source), *map(str, more),
                "-o", str(program), *some,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                break
            errors = done.stderr
        else:
            raise RuntimeError(f"bench/{source} does not compile:\n{errors}")
        yield program


class ProgramTimer(Timer):
    """A program that takes a number of operations last and prints the nanoseconds they took.

    Parameters
    ----------
    command
        The program and what it gets before that number.
    environment
        Set for it beside what this process has.
    """

    def __init__(
        self, *command: str | Path | int, environment: Mapping[str, str] | None = None
    ) -> None:
        self.command = [str(part) for part in command]
        self.environment = None if environment is None else {**os.environ, **environment}

    def seconds(self, repeat: int) -> float:
        """Seconds for `repeat` operations."""
        done = subprocess.run(
            [*self.command, str(repeat)],
            capture_output=True,
            text=True,
            check=False,
            env=self.environment,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{Path(self.command[0]).name}: {done.stderr.strip()[-500:]}")
        return int(done.stdout) * 1e-9
