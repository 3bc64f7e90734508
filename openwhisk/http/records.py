"""Activation records in OpenWhisk's JSON form, and back.

OpenWhisk's clients read `activationId`, `start`, `end`, `response` and so on; Scad's own client
also needs what the standard form lacks (elements, memory, usage), which travels under keys that
OpenWhisk does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from openwhisk.api import Activation, ElementRecord, MemoryRecord, Usage

__all__ = ["from_json", "to_json"]

STATUS_CODES = {
    "success": 0,
    "application error": 1,
    "developer error": 2,
    "whisk internal error": 3,
}
# What the scheduler calls an outcome, in OpenWhisk's words.
RESPONSE_STATUS = {
    "success": "success",
    "failed": "application error",
    "cancelled": "application error",
    "running": "running",
}


def to_json(activation: Activation, *, namespace: str, version: str = "0.0.1") -> dict[str, Any]:
    """An activation as OpenWhisk's record, with Scad's `elements`, `memory`, `usage` and
    `state` added.
    """
    status = RESPONSE_STATUS[activation.status]
    succeeded = activation.status == "success"
    result: Any = activation.result if succeeded else {"error": activation.error}
    record: dict[str, Any] = {
        "namespace": namespace,
        "name": activation.name,
        "version": version,
        "subject": namespace,
        "activationId": activation.activation_id,
        "start": round(activation.start * 1000),
        "logs": list(activation.logs),
        "annotations": [
            {"key": "path", "value": f"{namespace}/{activation.name}"},
            {"key": "kind", "value": "application"},
        ],
        "publish": False,
        "state": activation.status,
        "errorKind": activation.error_kind,
        "elements": [msgspec.to_builtins(e) for e in activation.elements],
        "memory": [msgspec.to_builtins(m) for m in activation.memory],
        "usage": msgspec.to_builtins(activation.usage),
    }
    if activation.end is not None:
        record |= {
            "end": round(activation.end * 1000),
            "duration": round((activation.end - activation.start) * 1000),
            "statusCode": STATUS_CODES[status],
            "response": {
                "status": status,
                "success": succeeded,
                "result": result,
                "size": len(msgspec.json.encode(result)),
            },
        }
    return record


def from_json(record: Mapping[str, Any]) -> Activation:
    """The activation that `to_json` wrote."""
    response = record.get("response", {})
    result = response.get("result")
    succeeded = record["state"] == "success"
    end = record.get("end")
    return Activation(
        activation_id=record["activationId"],
        name=record["name"],
        start=record["start"] / 1000,
        end=None if end is None else end / 1000,
        status=record["state"],
        result=result if succeeded else None,
        error=None if succeeded or result is None else result["error"],
        error_kind=record["errorKind"],
        logs=record["logs"],
        elements=msgspec.convert(record["elements"], list[ElementRecord]),
        memory=msgspec.convert(record.get("memory", []), list[MemoryRecord]),
        usage=msgspec.convert(record["usage"], Usage),
    )
