"""`Pending`: a run on its way to or on a worker, and what the worker is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from openwhisk.invoker.program import Program
from openwhisk.invoker.workers import KNOWN_CODES, Worker
from openwhisk.scheduler.messages import MemoryId, StartTask
from openwhisk.scheduler.reservations import Reservation
from openwhisk.worker.messages import Grant, Run, encode

__all__ = ["Durl", "Pending"]

Durl = Callable[[MemoryId, str, str], str]
"""Address of a memory element, for a transport's name and type. Raises `LookupError` where its
server has died."""


@dataclass(slots=True)
class Pending:
    """One run.

    Attributes
    ----------
    number
        Never comes again.
    """

    number: int
    start: StartTask
    program: Program
    transport: str
    reserved: Reservation

    def message(self, worker: Worker, durl: Durl, result_limit: int) -> Run:
        """What `worker` is told, which keeps the element's code from then on.

        Raises
        ------
        LookupError
            If a memory element is gone with its server.
        """
        start, run = self.start, self.start.run
        element = self.program.elements[run.element]
        forget = False
        code = None
        if element.code_id not in worker.known:
            if len(worker.known) >= KNOWN_CODES:
                worker.known.clear()
                forget = True
            worker.known.add(element.code_id)
            code = element.code
        params: Mapping[str, object] = start.inputs if start.inputs is not None else start.params
        return Run(
            number=self.number,
            activation=run.activation,
            application=self.program.name,
            element=run.element,
            index=run.index,
            count=element.count,
            code_id=element.code_id,
            code=code,
            forget=forget,
            params=msgspec.Raw(encode(params)),
            grants=[
                Grant(name, trans, durl(start.memories[name], trans, self.transport))
                for name, trans in element.transports.items()
            ],
            mem=start.mem,
            storage=element.storage,
            cores=start.cores,
            timeout=element.timeout,
            result_limit=result_limit,
        )
