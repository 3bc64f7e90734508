"""The application JSON, as the prototype's clients send it.

``{functions: [{name, objects: [{name, exec, limits, porusParams, parameters, annotations, …}]}],
publish}``. The older flat form, in which ``porusParams``' fields stand directly in the object and
limits are not under ``resources``, is read as well; the newer one is written. A reader ignores
keys that it does not know, as OpenWhisk's do.

Timeouts are milliseconds here. Sizes are OpenWhisk's texts (``256 MB``, powers of 1024) or bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from openwhisk.app.completion import complete
from openwhisk.app.elementfile import (
    COMPUTE_LIMITS,
    MEMORY_LIMITS,
    clean_code,
    format_bytes,
    whole,
)
from openwhisk.app.fields import Fields, describe, read_resources
from openwhisk.app.model import (
    Application,
    ComputeElement,
    Element,
    Limits,
    MemoryElement,
    Problem,
)
from openwhisk.app.plain import NotPlainError, plain_json
from openwhisk.app.source import JsonSource, Path, Report
from openwhisk.app.validation import validate
from openwhisk.errors import ApplicationError

MEMORY_KIND = "memory:default"


def from_json(
    document: Mapping[str, Any] | str | bytes,
    *,
    name: str | None = None,
    file: str = "application",
) -> Application:
    """Read an application; see `Application.from_json`."""
    if isinstance(document, (str, bytes)):
        source = JsonSource.parse(document, file)
    else:
        source = JsonSource(document, file)
    report = Report()
    reader = _Reader(source, report)
    elements = list(reader.application())
    report.check()
    app = complete(Application(name if name is not None else reader.name, elements))
    return Application(app.name, app.elements, (*report.warnings, *validate(app)))


class _Reader:
    def __init__(self, source: JsonSource, report: Report) -> None:
        self.source = source
        self.report = report
        self.name = ""

    def application(self) -> Iterator[Element]:
        """Yield the elements of all functions."""
        data = self.source.data
        if not isinstance(data, Mapping):
            self._error((), f"an application is an object, not {describe(data)}")
            return
        for i, function in self._objects(data, (), "functions"):
            path: Path = ("functions", i)
            name = function.get("name")
            if not isinstance(name, str) or not name:
                self._missing((*path, "name"), name, "text")
            self.name = self.name or str(name)
            for j, item in self._objects(function, path, "objects"):
                element = self._element(item, (*path, "objects", j))
                if element is not None:
                    yield element

    def _objects(
        self, parent: Mapping[str, Any], path: Path, key: str
    ) -> Iterator[tuple[int, Mapping[str, Any]]]:
        items = parent.get(key)
        if not isinstance(items, list) or not items:
            self._missing((*path, key), items, "a list that is not empty")
            return
        for i, item in enumerate(items):
            if isinstance(item, Mapping):
                yield i, item
            else:
                self._error((*path, key, i), f"must be an object, not {describe(item)}")

    def _element(self, item: Mapping[str, Any], path: Path) -> Element | None:
        name = item.get("name")
        if not isinstance(name, str) or not name:
            self._missing((*path, "name"), name, "text")
            return None
        fields = Fields(self.source, self.report, item, path, name)
        porus = fields.inner("porusParams") if fields.has("porusParams") else fields
        relationships = porus.inner("relationships") if porus.has("relationships") else porus
        annotations = self._pairs(fields, "annotations")
        common: dict[str, Any] = {
            "parents": relationships.names("parents"),
            "dependents": relationships.names("dependents"),
            "parallelism": porus.count("parallelism", 1),
            "parameters": self._pairs(fields, "parameters"),
            "location": fields.locate(),
        }
        kind = porus.choice("runtimeType", "", ("compute", "memory"))
        if not kind:
            kind = porus.choice("type", "compute", ("compute", "memory"))
        element: Element
        if kind == "memory":
            extras = Fields(self.source, self.report, annotations, (*path, "annotations"), name)
            element = MemoryElement(
                name,
                corunning=relationships.corunning_names(),
                limits=self._limits(fields, MEMORY_LIMITS),
                access=extras.choice("access", "shared", ("shared", "exchange")),
                lifetime=extras.choice("lifetime", "application", ("application", "session")),
                elastic=extras.boolean("elastic", False),
                annotations=_without(annotations, "access", "lifetime", "elastic"),
                places=_places(fields, porus, relationships),
                **common,
            )
        else:
            element = self._compute(fields, porus, relationships, annotations, common)
        return element

    def _compute(
        self,
        fields: Fields,
        porus: Fields,
        relationships: Fields,
        annotations: dict[str, Any],
        common: dict[str, Any],
    ) -> ComputeElement:
        name = fields.what
        extras = Fields(self.source, self.report, annotations, (*fields.path, "annotations"), name)
        modules = {}
        for module, text in extras.json("modules").items():
            if isinstance(text, str):
                modules[module] = clean_code(text)
            else:
                extras.error(["modules"], f"must hold text, not {describe(text)}")
        if not fields.has("exec"):
            self._missing((*fields.path, "exec"), None, "an object")
        code = fields.inner("exec")
        if fields.has("exec") and not isinstance(code.data.get("code"), str):
            self._missing((*code.path, "code"), code.data.get("code"), "text")
        if code.boolean("binary", False):
            code.error(["binary"], "must be false: an element's code is text")
        limits = self._limits(fields, COMPUTE_LIMITS)
        main, kind = code.text("main", "main") or "main", code.text("kind", "python:3")
        places = {**_places(fields, porus, relationships), **code.places}
        places["code"] = code.locate("code")
        text = code.data.get("code")
        return ComputeElement(
            name,
            clean_code(text) if isinstance(text, str) else "",
            main=main,
            corunning=relationships.corunning_map(),
            limits=limits,
            with_merged=porus.merged("withMerged"),
            imports=extras.names("import"),
            modules=modules,
            annotations=_without(annotations, "import", "modules"),
            kind=kind,
            places=places,
            **common,
        )

    def _limits(self, fields: Fields, default: Limits) -> Limits:
        if not fields.has("limits"):
            self._missing((*fields.path, "limits"), None, "an object")
            return default
        outer = fields.inner("limits")
        resources = outer.inner("resources") if outer.has("resources") else outer
        if not resources.has("mem"):
            self._missing((*resources.path, "mem"), None, "a size")
        timeout = outer.number("timeout", default.timeout * 1000) / 1000
        limits = read_resources(resources, default, timeout)
        for inner in (outer, resources):
            fields.places.update({f"limits.{k}": v for k, v in inner.places.items()})
        return limits

    def _pairs(self, fields: Fields, key: str) -> dict[str, Any]:
        """Read OpenWhisk's ``[{key, value}]``, or a plain object."""
        value = fields.data.get(key)
        if not isinstance(value, list):
            return fields.json(key)
        found: dict[str, Any] = {}
        for i, pair in enumerate(value):
            if not isinstance(pair, Mapping) or not isinstance(pair.get("key"), str):
                fields.error([key, i], "must be an object with key and value")
                continue
            try:
                found[pair["key"]] = plain_json(pair.get("value"), pair["key"])
            except NotPlainError as error:
                self._error((*fields.path, key, i), str(error))
        return found

    def _missing(self, path: Path, value: Any, wanted: str) -> None:
        if value is None:
            self._error(path, f"is missing; it must be {wanted}")
        else:
            self._error(path, f"must be {wanted}, not {describe(value)}")

    def _error(self, path: Path, message: str) -> None:
        self.report.error(message, self.source.locate(path))


def _places(fields: Fields, porus: Fields, relationships: Fields) -> dict[str, Any]:
    return {**fields.places, **porus.places, **relationships.places}


def _without(annotations: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {k: v for k, v in annotations.items() if k not in keys}


def to_json(app: Application) -> dict[str, Any]:
    """Return the application JSON as plain objects; see `Application.to_json`.

    Raises
    ------
    ApplicationError
        If a limit is not a number that JSON can express.
    """
    try:
        objects = [_object(element) for element in app]
    except (ValueError, OverflowError) as error:
        raise ApplicationError([Problem(f"application {app.name}: {error}")]) from None
    return {"functions": [{"name": app.name, "objects": objects}], "publish": False}


def _object(element: Element) -> dict[str, Any]:
    annotations: dict[str, Any] = {}
    corunning: Any
    if isinstance(element, ComputeElement):
        runtime = "compute"
        corunning = {
            name: {"trans": c.trans, "type": c.type} for name, c in element.corunning.items()
        }
        code = {
            "kind": element.kind,
            "code": element.code,
            "main": element.main,
            "binary": False,
        }
        merged = [
            {
                "action": {"namespace": m.namespace, "name": m.name},
                "resources": _resources(m.limits),
                "elem": "Memory",
            }
            for m in element.with_merged
        ]
        if element.imports:
            annotations["import"] = list(element.imports)
        if element.modules:
            annotations["modules"] = dict(element.modules)
    else:
        runtime = "memory"
        corunning = list(element.corunning)
        code = {"kind": MEMORY_KIND, "code": "", "main": "", "binary": False}
        merged = []
        if element.access != "shared":
            annotations["access"] = element.access
        if element.lifetime != "application":
            annotations["lifetime"] = element.lifetime
        if element.elastic:
            annotations["elastic"] = True
    return {
        "name": element.name,
        "exec": code,
        "limits": {
            "timeout": round(element.limits.timeout * 1000),
            "concurrency": 1,
            "resources": _resources(element.limits),
        },
        "porusParams": {
            "runtimeType": runtime,
            "relationships": {
                "corunning": corunning,
                "dependents": list(element.dependents),
                "parents": list(element.parents),
            },
            "parallelism": element.parallelism,
            "withMerged": merged,
        },
        "parameters": _pairs(element.parameters),
        "annotations": _pairs(annotations | dict(element.annotations)),
        "version": "0.0.1",
        "publish": False,
    }


def _resources(limits: Limits) -> dict[str, Any]:
    return {
        "cpu": whole(limits.cpu),
        "mem": format_bytes(limits.mem),
        "storage": format_bytes(limits.storage),
    }


def _pairs(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]
