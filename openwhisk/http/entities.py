"""What is stored under an action's name: an application, or OpenWhisk's plain action (one
function).

A plain action runs as an application of one compute element, so that there is one execution path.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import msgspec

from openwhisk.app import validate
from openwhisk.app.model import Application, ComputeElement, Limits
from openwhisk.http.errors import ApiError

__all__ = [
    "builtins",
    "describe",
    "is_plain",
    "parameters",
    "parse",
    "without_code",
]

DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_MS = 256, 60_000
PYTHON_KINDS = ("python", "python:default", "python:3", "python:3.11")
MIB = 1 << 20


def is_plain(body: Mapping[str, Any]) -> bool:
    """Whether a stored body is a plain action: it has code of its own instead of functions."""
    return "functions" not in body and "objects" not in body and "exec" in body


def parse(name: str, body: Mapping[str, Any]) -> Application:
    """The application that a body of a PUT describes.

    Raises
    ------
    openwhisk.errors.ApplicationError
        It is an application with something wrong; every problem is named with its JSON path.
    ApiError
        It is neither an application nor a plain Python action.
    """
    if not is_plain(body):
        return Application.from_json(body, name=name, file=name)
    execution = body["exec"]
    if not isinstance(execution, Mapping) or not isinstance(execution.get("code"), str):
        raise ApiError(400, f"action {name!r}: exec.code must be the text of a Python program")
    kind = execution.get("kind", "python:default")
    if kind not in PYTHON_KINDS:
        raise ApiError(
            400, f"action {name!r}: kind {kind!r} is not supported; use {PYTHON_KINDS[1]!r}"
        )
    if execution.get("binary"):
        raise ApiError(400, f"action {name!r}: binary (zip) actions are not supported yet")
    limits = body.get("limits") or {}
    element = ComputeElement(
        name,
        execution["code"],
        main=execution.get("main") or "main",
        limits=Limits(
            mem=number(name, limits, "memory", DEFAULT_MEMORY_MB) * MIB,
            timeout=number(name, limits, "timeout", DEFAULT_TIMEOUT_MS) / 1000,
        ),
    )
    application = Application(name, [element])
    validate(application)
    return application


def number(name: str, limits: Mapping[str, Any], key: str, default: int) -> int:
    """A positive whole number among an action's limits."""
    value = limits.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ApiError(
            400, f"action {name!r}: limits.{key} must be a positive whole number, not {value!r}"
        )
    return value


def parameters(body: Mapping[str, Any]) -> dict[str, Any]:
    """Default parameters of an entity, from OpenWhisk's `[{key, value}]`."""
    return {p["key"]: p["value"] for p in body.get("parameters") or [] if "key" in p}


def without_code(body: Mapping[str, Any]) -> dict[str, Any]:
    """A body whose programs are left out."""
    bare = copy.deepcopy(dict(body))
    functions = bare.get("functions") or []
    objects = [o for f in functions for o in f.get("objects") or []]
    for holder in (bare, *objects, *(bare.get("objects") or [])):
        if isinstance(execution := holder.get("exec"), dict):
            execution.pop("code", None)
    return bare


def describe(
    namespace: str, name: str, body: Mapping[str, Any], version: str, updated: int | None = None
) -> dict[str, Any]:
    """An entity as the API shows it."""
    shown = {**body, "namespace": namespace, "name": name, "version": version}
    shown.setdefault("publish", False)
    shown.setdefault("annotations", [])
    if updated is not None:
        shown["updated"] = updated
    return shown


def builtins(value: Any) -> Any:
    """A struct or dataclass as JSON-able data."""
    return msgspec.to_builtins(value)
