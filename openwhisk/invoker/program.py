"""`Program`: an application as it is run: the scheduler's plan and what workers have to be told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import msgspec

from openwhisk.app.model import Application, ComputeElement
from openwhisk.scheduler.plan import Plan, compile_plan
from openwhisk.worker.messages import ElementCode

_code_ids = itertools.count(1)
_pack = msgspec.msgpack.Encoder().encode


class ElementProgram(msgspec.Struct, frozen=True):
    """One compute element: its code under a number that no other code of this process has, and its
    transports' names.
    """

    code_id: int
    code: ElementCode
    count: int
    timeout: float
    storage: int
    transports: Mapping[str, str]


class Program(msgspec.Struct, frozen=True):
    """A runnable application. `plain` says that it stands for a plain action: its one element's
    result is its result.
    """

    name: str
    plan: Plan
    elements: Mapping[str, ElementProgram]
    plain: bool = False

    @classmethod
    def compile(cls, app: Application, *, plain: bool = False) -> Program:
        """Prepare a valid, completed application. Raises what `compile_plan` raises."""
        return cls(
            app.name,
            compile_plan(app),
            {name: _element(app, element) for name, element in app.compute.items()},
            plain,
        )


def _element(app: Application, element: ComputeElement) -> ElementProgram:
    location = element.location
    return ElementProgram(
        code_id=next(_code_ids),
        code=ElementCode(
            code=element.code,
            main=element.main,
            imports=list(element.imports),
            modules=dict(element.modules),
            parameters=msgspec.Raw(_pack(dict(element.parameters))),
            merged=[(m.name, m.limits.mem) for m in element.with_merged],
            file=location.file if location is not None else f"{element.name}.o.py",
            first_line=element.first_line,
        ),
        count=element.parallelism,
        timeout=element.limits.timeout,
        storage=element.limits.storage,
        transports={name: c.trans for name, c in element.corunning.items() if name in app.memory},
    )
