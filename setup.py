"""Extension modules. Everything else about the build is in pyproject.toml.

``SCAD_EXT=libd,operators`` builds only those rooms' extensions (a developer's short cut).
``SCAD_SANITIZE=address,undefined`` adds ``-fsanitize=…`` (used by ``make sanitize``).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
CFLAGS = ["-O3", "-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
LDFLAGS: list[str] = []

if sanitizers := os.environ.get("SCAD_SANITIZE"):
    CFLAGS += [f"-fsanitize={sanitizers}", "-O1", "-g", "-fno-omit-frame-pointer"]
    LDFLAGS += [f"-fsanitize={sanitizers}"]


# A Python module and a DuckDB extension in one file, so that they share their memory. The file is
# called as DuckDB wants it, which loads nothing else; `operators.duckdb.extension` imports it.
DUCKDB_EXTENSION = "operators.duckdb._scan"


def duckdb_footer() -> bytes:
    """What DuckDB wants at the end of an extension: 8 fields of 32 bytes, last things first, and
    room for a signature (there is none).
    """
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    fields = ("", "", "", "C_STRUCT", "1", "v1.2.0", f"linux_{machine}", "4")
    return b"".join(f.encode().ljust(32, b"\0") for f in fields) + bytes(256)


def has_verbs() -> bool:
    """Whether libibverbs' headers are here. The library itself is loaded when it is needed."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return False
    with tempfile.TemporaryDirectory() as tmp:
        source = Path(tmp, "probe.c")
        source.write_text("#include <infiniband/verbs.h>\nint n = IBV_WR_RDMA_READ;\n")
        command = [*compiler.split(), "-c", str(source), "-o", str(Path(tmp, "probe.o"))]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def extensions() -> list[Extension]:
    """Every extension module of the distribution, in the order of the rooms."""

    def ext(name: str, sources: list[str], **kwargs: object) -> Extension:
        csrc = Path(name.partition(".")[0], "csrc")
        return Extension(
            name,
            sources,
            include_dirs=[str(csrc)],
            depends=[str(p) for p in sorted(csrc.glob("*.h"))],
            extra_compile_args=CFLAGS,
            extra_link_args=["-pthread", *LDFLAGS],
            **kwargs,
        )

    found = []
    if Path("libd/_core.pyx").exists():
        csrc = [str(p) for p in sorted(Path("libd/csrc").glob("*.c"))]
        macros: list[tuple[str, str | None]] = []
        if has_verbs():
            macros.append(("LIBD_HAVE_VERBS", None))
        else:
            print("scad: no libibverbs headers: building without verbs", file=sys.stderr)
        core = ["libd/_core.pyx", *csrc]
        found.append(ext("libd._core", core, define_macros=macros, libraries=["dl"]))
    for module in ("operators._partition", "openwhisk._sampler", "openwhisk._watcher"):
        pyx = module.replace(".", "/") + ".pyx"
        if Path(pyx).exists():
            csrc = sorted(Path(pyx).parent.glob("csrc/*.c"))
            found.append(ext(module, [pyx, *map(str, csrc)]))
    scan = ["operators/duckdb/_scan.pyx"]
    scan += [str(p) for p in sorted(Path("operators/duckdb/csrc").glob("*.c"))]
    if Path(scan[0]).exists():
        found.append(ext(DUCKDB_EXTENSION, scan, libraries=["dl"]))
    if only := os.environ.get("SCAD_EXT"):
        rooms = set(only.split(","))
        found = [e for e in found if e.name.split(".")[0] in rooms]
    return found


class BuildExtensions(build_ext):
    """Gives the module that DuckDB loads too the name and the footer that DuckDB expects."""

    def get_ext_filename(self, fullname: str) -> str:
        """Path of a module, relative to the packages' root."""
        package, _, name = fullname.rpartition(".")
        if name == DUCKDB_EXTENSION.rpartition(".")[2]:  # setuptools asks for the last part, too
            return str(Path(*package.split("."), f"{name}.duckdb_extension"))
        return str(super().get_ext_filename(fullname))

    def build_extension(self, ext: Extension) -> None:
        """Build one module."""
        super().build_extension(ext)
        if ext.name == DUCKDB_EXTENSION:
            path, footer = Path(self.get_ext_fullpath(ext.name)), duckdb_footer()
            if not path.read_bytes().endswith(footer):
                with path.open("ab") as file:
                    file.write(footer)


os.chdir(ROOT)
setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=cythonize(
        extensions(),
        build_dir="build/cython",
        compiler_directives={"language_level": 3, "embedsignature": True},
    ),
)
