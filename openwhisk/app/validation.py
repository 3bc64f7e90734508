"""Validating applications, whatever they were made from: `validate`."""

from __future__ import annotations

import math
from collections.abc import Iterable

from openwhisk.app.codecheck import check_code
from openwhisk.app.completion import complete
from openwhisk.app.fields import NAME
from openwhisk.app.gangs import conflicts
from openwhisk.app.graph import depends_on, find_cycle
from openwhisk.app.model import (
    Application,
    AppWarning,
    ComputeElement,
    Element,
    Limits,
    MemoryElement,
    place,
)
from openwhisk.app.plain import NotPlainError, plain_json
from openwhisk.app.source import Report

MAX_PARALLELISM = 10_000
INTERFACES = ("rdma", "mem")
COMPUTE_ANNOTATIONS = ("import", "modules")
MEMORY_ANNOTATIONS = ("access", "lifetime", "elastic")


def validate(app: Application) -> list[AppWarning]:
    """Check everything about an application that can be checked without running it.

    Returns
    -------
    list of AppWarning
        ``app.warnings``, and what else is legal but hardly intended. Relationships that only one
        side declares are among it; use `complete` to add the other side.

    Raises
    ------
    ApplicationError
        With all problems, and the place of each where it is known.
    """
    report = Report(warnings=list(app.warnings))
    if not NAME.fullmatch(app.name):
        report.error(f"{app.name!r} is no application name (letters, digits, '_', '.', '-')", None)
    if not app.compute:
        report.error(f"application {app.name} has no compute element", None)
    seen: dict[str, Element] = {}
    for element in app:
        if (first := seen.setdefault(element.name, element)) is not element:
            at = f", also declared at {first.location}" if first.location else ""
            report.error(f"two elements are called {element.name!r}{at}", element.location)
        _check_element(app, element, report)
    if not report.problems:
        # The graph can only be looked at when its names make sense.
        whole = complete(app)
        report.warnings += whole.warnings[len(app.warnings) :]
        _check_graph(whole, report)
    report.check()
    return list(dict.fromkeys(report.warnings))


def _check_element(app: Application, element: Element, report: Report) -> None:
    name = element.name
    if not NAME.fullmatch(name):
        report.error(f"{name!r} is no element name", element.location)
    _check_limits(element, element.limits, "limits", report)
    if not 1 <= element.parallelism <= MAX_PARALLELISM:
        report.error(
            f"{name}: parallelism must be 1 to {MAX_PARALLELISM}, not {element.parallelism}",
            place(element, "parallelism"),
        )
    for key in ("parents", "dependents", "corunning"):
        for other in getattr(element, key):
            where = place(element, key, other)
            if other == name:
                report.error(f"{name}: {key} names the element itself", where)
            elif other not in app:
                report.error(f"{name}: {key} names {other}, but there is no such element", where)
    answered_for = isinstance(element, ComputeElement) and element.checked
    for key in ("annotations",) if answered_for else ("parameters", "annotations"):
        try:
            plain_json(getattr(element, key), key)
        except NotPlainError as error:
            report.error(f"{name}: {error}", place(element, key))
    if isinstance(element, ComputeElement):
        _check_compute(app, element, report)
    else:
        _check_memory(app, element, report)


def _check_limits(element: Element, limits: Limits, key: str, report: Report) -> None:
    def error(field: str, message: str) -> None:
        where = place(element, *key.split("."), field)
        report.error(f"{element.name}: {key}.{field} {message}", where)

    if isinstance(element, ComputeElement) and key == "limits":
        if not (math.isfinite(limits.cpu) and limits.cpu > 0):
            error("cpu", f"must be more than 0 cores, not {limits.cpu}")
    elif not (math.isfinite(limits.cpu) and limits.cpu >= 0):
        error("cpu", f"must not be negative: {limits.cpu}")
    if not 0 < limits.mem < 1 << 63:
        error("mem", f"must be at least 1 byte and below 2**63, not {limits.mem}")
    if not 0 <= limits.storage < 1 << 63:
        error("storage", f"must be at least 0 bytes and below 2**63, not {limits.storage}")
    if not 0.001 <= limits.timeout <= 1e9:
        error("timeout", f"must be 0.001 to 1e9 seconds, not {limits.timeout}")


def _check_compute(app: Application, element: ComputeElement, report: Report) -> None:
    name = element.name
    for other in element.parents:
        if isinstance(app.get(other), MemoryElement):
            report.error(
                f"{name}: parents names memory element {other}, which has no result to wait for; "
                "name it in corunning",
                place(element, "parents", other),
            )
    transports: dict[str, str] = {}
    for other, corun in element.corunning.items():
        where = place(element, "corunning", other)
        if corun.type not in INTERFACES:
            report.error(
                f"{name}: corunning.{other}.type must be {' or '.join(INTERFACES)}, "
                f"not {corun.type!r}",
                where,
            )
        if not NAME.fullmatch(corun.trans):
            report.error(
                f"{name}: corunning.{other}.trans {corun.trans!r} is no transport name", where
            )
        if (first := transports.setdefault(corun.trans, other)) != other:
            report.error(
                f"{name}: transport {corun.trans!r} stands for both {first} and {other}", where
            )
    merged_names: set[str] = set()
    for merged in element.with_merged:
        key = f"withMerged.{merged.name}"
        where = place(element, key)
        if not NAME.fullmatch(merged.name):
            report.error(f"{name}: withMerged: {merged.name!r} is no element name", where)
        elif merged.name in app:
            report.error(f"{name}: withMerged: {merged.name} is also an element", where)
        elif merged.name in merged_names:
            report.error(f"{name}: withMerged names {merged.name} twice", where)
        elif merged.name in transports:
            report.error(f"{name}: withMerged: {merged.name} is also a transport", where)
        merged_names.add(merged.name)
        _check_limits(element, merged.limits, key, report)
    _reserved(element, COMPUTE_ANNOTATIONS, report)
    for module in element.modules:
        if not module.isidentifier():
            report.error(f"{name}: {module!r} is no module name", place(element, "import"))
    if element.kind.partition(":")[0] != "python":
        report.error(
            f"{name}: kind {element.kind!r} cannot be run, only python", place(element, "kind")
        )
    elif not element.checked:
        check_code(element, report)


def _check_memory(app: Application, element: MemoryElement, report: Report) -> None:
    name = element.name
    for other in element.dependents:
        report.error(
            f"{name}: a memory element has no result that {other} could wait for; "
            f"name it in {other}'s corunning",
            place(element, "dependents", other),
        )
    for key in ("parents", "corunning"):
        for other in getattr(element, key):
            if other != name and isinstance(app.get(other), MemoryElement):
                report.error(
                    f"{name}: {key} names {other}, which is a memory element too",
                    place(element, key, other),
                )
    if element.parallelism > 1:
        report.error(
            f"{name}: a memory element cannot have copies; declare several elements",
            place(element, "parallelism"),
        )
    for key, choices in (
        ("access", ("shared", "exchange")),
        ("lifetime", ("application", "session")),
    ):
        if (value := getattr(element, key)) not in choices:
            report.error(
                f"{name}: {key} must be {' or '.join(choices)}, not {value!r}", place(element, key)
            )
    _reserved(element, MEMORY_ANNOTATIONS, report)


def _reserved(element: Element, keys: Iterable[str], report: Report) -> None:
    for key in keys:
        if key in element.annotations:
            report.error(
                f"{element.name}: annotation {key!r} is reserved; set the field of that name",
                place(element, "annotations"),
            )


def _check_graph(app: Application, report: Report) -> None:
    compute = app.compute
    if cycle := find_cycle({n: e.dependents for n, e in compute.items()}):
        first = compute[cycle[0]]
        report.error(
            f"elements depend on one another: {' -> '.join(cycle)}",
            place(first, "dependents", cycle[1]),
        )
        return
    contradictions = False
    for name, element in compute.items():
        for other in element.corunning:
            if other not in compute:
                continue
            if depends_on(app, name, other):
                contradictions = True
                report.error(
                    f"{name} coruns with {other} and depends on it: they cannot both start "
                    "together and one after the other",
                    place(element, "corunning", other),
                )
    if not contradictions:
        for conflict in conflicts(app):
            report.error(conflict, None)
    for name, memory in app.memory.items():
        if not memory.corunning:
            report.warn(f"{name}: no compute element coruns with it", memory.location)
