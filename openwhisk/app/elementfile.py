"""Element files: ``NAME.o.py`` (compute) and ``NAME.o.yaml`` (memory).

A compute element's file begins with its metadata: the first block of lines that start with ``#@``,
read as YAML. What remains is its code. Keys are those of the prototype, and further ``main``,
``kind``, ``parameters``, ``annotations``, and for memory elements ``access``, ``lifetime``,
``elastic``. Sizes are written as in ``64 MB``; a timeout is in seconds.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from openwhisk.app.fields import NAME, Fields
from openwhisk.app.model import (
    ComputeElement,
    Corunning,
    Element,
    Limits,
    Location,
    MemoryElement,
    Problem,
)
from openwhisk.app.source import Report, YamlSource
from openwhisk.errors import ApplicationError

COMPUTE_SUFFIX = ".o.py"
MEMORY_SUFFIXES = (".o.yaml", ".o.yml")
HEADER = "#@"
# What formatters of Python code make of a metadata line.
_REFORMATTED = re.compile(r"#[ \t]+@(?:[ \t]|$|[ \t]*[\w-]+[ \t]*:)")

COMPUTE_LIMITS = Limits()
MEMORY_LIMITS = Limits(cpu=0.0)


def element_name(path: Path) -> str | None:
    """Return the name of the element that a file of this name defines, or ``None`` if it defines
    none.
    """
    for suffix in (COMPUTE_SUFFIX, *MEMORY_SUFFIXES):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return None


def split_header(text: str) -> tuple[str, int, str]:
    """Split a compute element's text into metadata, the line it begins on, and code.

    Comments and blank lines may stand before the metadata; they stay with the code.
    """
    lines = text.split("\n")
    start = 0
    while start < len(lines) and (
        not lines[start].strip()
        or (lines[start].startswith("#") and not lines[start].startswith(HEADER))
    ):
        start += 1
    end = start
    while end < len(lines) and lines[end].startswith(HEADER):
        end += 1
    header = "\n".join(line.removeprefix(HEADER) for line in lines[start:end])
    return header, start + 1, "\n".join(lines[:start] + lines[end:])


def clean_code(text: str) -> str:
    """Return code as it is held: without byte-order mark and metadata, lines ended by a newline
    character.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    while (code := split_header(text)[2]) != text:
        text = code
    return code


def load_element(path: str | Path) -> Element:
    """Read one element file. Its relationships are as it says them, see `openwhisk.app.complete`.

    Raises
    ------
    ApplicationError
        With the line of every problem.
    """
    report = Report()
    element = read_element(Path(path), report)
    report.check()
    assert element is not None
    return element


def read_element(path: Path, report: Report) -> Element | None:
    """Read one element file; problems go to `report`, and ``None`` comes back if nothing can be
    read.
    """
    file = str(path)
    name = element_name(path)
    if name is None:
        report.error("not an element: its name must end in .o.py or .o.yaml", Location(file))
        return None
    if not NAME.fullmatch(name):
        report.error(
            f"{name!r} is no element name: letters, digits, '_', '.' and '-', at most 128",
            Location(file),
        )
        return None
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        report.error(f"not UTF-8 text: byte {error.start} is wrong", Location(file))
        return None
    except OSError as error:
        report.error(f"cannot be read: {error.strerror}", Location(file))
        return None
    try:
        if name + COMPUTE_SUFFIX == path.name:
            return _read_compute(name, path, text, report)
        return _read_memory(name, file, text, report)
    except ApplicationError as error:
        report.problems += error.problems
        return None


def _read_compute(name: str, path: Path, text: str, report: Report) -> ComputeElement | None:
    header, line, _ = split_header(text)
    code = clean_code(text)
    file = str(path)
    if spoilt := _reformatted(text):
        report.error(
            "metadata begins with '#@', here it is '# @', which is a comment: write '#@', and "
            "exclude *.o.py from the formatter that added the space",
            Location(file, spoilt),
        )
        return None
    source = YamlSource(header, file, line)
    fields = Fields(source, report, source.data, (), name)
    fields.choice("type", "compute", ("compute",))
    imports = fields.names("import")
    before = text.count("\n") - code.count("\n")
    element = ComputeElement(
        name,
        code,
        main=fields.text("main", "main"),
        parents=fields.names("parents"),
        dependents=fields.names("dependents"),
        corunning=fields.corunning_map(),
        parallelism=fields.count("parallelism", 1),
        limits=fields.limits(COMPUTE_LIMITS),
        with_merged=fields.merged("withMerged"),
        imports=imports,
        modules=_helpers(path, imports, report),
        parameters=fields.json("parameters"),
        annotations=fields.json("annotations"),
        kind=fields.text("kind", "python:3"),
        location=Location(file, line),
        places=fields.places,
        first_line=before + 1,
    )
    fields.finish()
    return element


def _reformatted(text: str) -> int | None:
    """Return the number of the first line of metadata that a formatter turned into a comment."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            return None
        if _REFORMATTED.match(line):
            return number
    return None


def _helpers(path: Path, imports: tuple[str, ...], report: Report) -> dict[str, str]:
    """Return the text of those imports that are files beside the element; they travel with it."""
    found = {}
    for module in imports:
        helper = path.with_name(f"{module}.py")
        if module.isidentifier() and helper.is_file():
            try:
                found[module] = clean_code(helper.read_text(encoding="utf-8-sig"))
            except (OSError, UnicodeDecodeError) as error:
                report.error(f"cannot be read: {error}", Location(str(helper)))
    return found


def _read_memory(name: str, file: str, text: str, report: Report) -> MemoryElement:
    source = YamlSource(text, file)
    fields = Fields(source, report, source.data, (), name)
    fields.choice("type", "memory", ("memory",))
    element = MemoryElement(
        name,
        corunning=fields.corunning_names(),
        limits=fields.limits(MEMORY_LIMITS, required_mem=True),
        parents=fields.names("parents"),
        dependents=fields.names("dependents"),
        parallelism=fields.count("parallelism", 1),
        access=fields.choice("access", "shared", ("shared", "exchange")),
        lifetime=fields.choice("lifetime", "application", ("application", "session")),
        elastic=fields.boolean("elastic", False),
        parameters=fields.json("parameters"),
        annotations=fields.json("annotations"),
        location=Location(file, 1),
        places=fields.places,
    )
    fields.finish()
    return element


def format_element(element: Element) -> str:
    """Return the text of an element's file; reading it gives an equal element.

    Helper modules are not part of it; see `openwhisk.app.write_directory`.
    """
    if isinstance(element, MemoryElement):
        return _dump(_memory_metadata(element))
    header = _dump(_compute_metadata(element))
    lines = "".join(f"{HEADER} {line}".rstrip() + "\n" for line in header.splitlines())
    return lines + element.code


def _dump(metadata: dict[str, Any]) -> str:
    text: str = yaml.safe_dump(metadata, sort_keys=False, width=1 << 30, default_flow_style=False)
    return text


def _compute_metadata(element: ComputeElement) -> dict[str, Any]:
    corunning = {
        n: {"trans": c.trans, "type": c.type} if c != Corunning(n) else {"trans": n, "type": "rdma"}
        for n, c in element.corunning.items()
    }
    merged = [
        {
            "action": {"namespace": m.namespace, "name": m.name},
            "resources": _limits(m.limits, None),
            "elem": "Memory",
        }
        for m in element.with_merged
    ]
    return _without_defaults(
        {
            "type": "compute",
            "corunning": corunning,
            "parents": list(element.parents),
            "dependents": list(element.dependents),
            "parallelism": (element.parallelism, 1),
            "limits": _limits(element.limits, COMPUTE_LIMITS),
            "withMerged": merged,
            "import": list(element.imports),
            "main": (element.main, "main"),
            "kind": (element.kind, "python:3"),
            "parameters": dict(element.parameters),
            "annotations": dict(element.annotations),
        }
    )


def _memory_metadata(element: MemoryElement) -> dict[str, Any]:
    return _without_defaults(
        {
            "type": "memory",
            "corunning": list(element.corunning),
            "limits": _limits(element.limits, MEMORY_LIMITS)
            | {"mem": format_bytes(element.limits.mem)},
            "parents": list(element.parents),
            "dependents": list(element.dependents),
            "parallelism": (element.parallelism, 1),
            "access": (element.access, "shared"),
            "lifetime": (element.lifetime, "application"),
            "elastic": (element.elastic, False),
            "parameters": dict(element.parameters),
            "annotations": dict(element.annotations),
        }
    )


def _without_defaults(metadata: dict[str, Any]) -> dict[str, Any]:
    """Drop what is empty; a tuple is a value and the default that makes it superfluous."""
    found = {}
    for key, value in metadata.items():
        if isinstance(value, tuple):
            if value[0] != value[1]:
                found[key] = value[0]
        elif value not in ([], {}):
            found[key] = value
    return found


def _limits(limits: Limits, default: Limits | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if default is None or limits.cpu != default.cpu:
        values["cpu"] = whole(limits.cpu)
    if default is None or limits.mem != default.mem:
        values["mem"] = format_bytes(limits.mem)
    if default is None or limits.storage != default.storage:
        values["storage"] = format_bytes(limits.storage)
    if default is not None and limits.timeout != default.timeout:
        values["timeout"] = whole(limits.timeout)
    return values


def whole(number: float) -> float | int:
    """Return a number without a fraction as an integer, which reads better."""
    return int(number) if number == int(number) else number


def format_bytes(size: int) -> str:
    """Return a size exactly, in OpenWhisk's units (powers of 1024): ``256 MB``."""
    for shift, unit in ((20, "MB"), (10, "KB")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift} {unit}"
    return f"{size} B"


def unreadable(problem: str, file: str) -> ApplicationError:
    """Return the error for a path that cannot be used at all."""
    return ApplicationError([Problem(problem, Location(file))])
