"""The server under a fuzzer that follows what its inputs reach (`fuzz_harness.c`).

The fuzzer and the server are one program, without Python, under AddressSanitizer, LeakSanitizer and
UndefinedBehaviorSanitizer; gcc's own instrumentation tells it which edges an input took.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "libd" / "csrc"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

pytestmark = pytest.mark.skipif(
    "SCAD_SANITIZE" in os.environ, reason="brings sanitizers of its own"
)


def is_gcc(compiler: str) -> bool:
    """Whether it is gcc, and the sanitizers' libraries are there."""
    probe = "#ifdef __clang__\n#error\n#endif\nint main(void) { return 0; }\n"
    command = [*compiler.split(), "-x", "c", "-", *SANITIZERS, "-o", os.devnull]
    return subprocess.run(command, input=probe.encode(), capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = os.environ.get("CC") or shutil.which("gcc")
    if compiler is None or not is_gcc(compiler):
        pytest.skip("no gcc with sanitizers: apt-get install gcc")
    folder = tmp_path_factory.mktemp("fuzzer")
    flags = ["-std=gnu11", "-O1", "-g", "-w", "-pthread", f"-I{CSRC}", *SANITIZERS]
    sources = [str(path) for path in CSRC.glob("*.c")]
    server = [*compiler.split(), *flags, "-fsanitize-coverage=trace-pc", "-c", *sources]
    subprocess.run(server, cwd=folder, check=True)
    objects = [str(path) for path in folder.glob("*.o")]
    harness = [str(HERE / "fuzz_harness.c"), *objects, "-ldl", "-o", "fuzz"]
    subprocess.run([*compiler.split(), *flags, *harness], cwd=folder, check=True)
    return folder / "fuzz"


def fuzz(program: Path, seed: int, frames: int) -> dict[str, int]:
    print("seed", seed)
    done = subprocess.run([program, str(seed), str(frames)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    said: dict[str, int] = json.loads(done.stdout)
    print(said)
    return said


def test_what_is_reached_leads_further(fuzzer: Path) -> None:
    said = fuzz(fuzzer, 2333, 60_000)
    assert said["frames"] >= 60_000
    assert said["edges"] > 1.2 * said["seed_edges"]  # it is guided, not merely random
    assert said["corpus"] > 100


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(4))
def test_a_million_guided_frames(fuzzer: Path, number: int) -> None:
    fuzz(fuzzer, random.SystemRandom().getrandbits(32), 1_000_000)
