"""`Executor`: one run of one element in this process, measured and held to its limits."""

from __future__ import annotations

import logging
import resource
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from openwhisk._sampler import Sampler
from openwhisk.app.model import Limits
from openwhisk.runtime import Action, ElementFailure, Outcome, Resources, run_element
from openwhisk.worker.limits import LimitTooSmallError, held_data, may_keep, memory_limit
from openwhisk.worker.messages import GONE, Done, ElementCode, Failed, Metrics, Rested, Run
from openwhisk.worker.scratch import Scratch
from openwhisk.worker.transports import GrantedTransports

log = logging.getLogger(__name__)

Preparation: TypeAlias = Callable[[Resources], None]
"""Makes warm resources that elements may want."""

# Names of exceptions that say that memory ran out; DuckDB is not imported here just to compare
# classes.
_OUT_OF_MEMORY = frozenset(
    {
        "MemoryError",
        "OutOfMemoryException",
        "KernelMemoryError",
        "ArrowMemoryError",
        "_ArrayMemoryError",
    }
)

_pack = msgspec.msgpack.Encoder().encode
_unpack_map = msgspec.msgpack.Decoder(dict[str, Any]).decode


# Names of exceptions that say that a memory server went away under an element.
_GONE = frozenset({"TransportClosedError"})

# Anonymous memory that a worker keeps for the next element beyond what it held when it last rested:
# what allocators have free.
_SLACK = 48 << 20
# Of address space likewise, before it is looked at whether all of it can be given back.
_MOST_DATA = 160 << 20
# A run of so many seconds does not notice what it takes to have that anew, and would be charged for
# it all along: after one like it less is kept.
_LONG, _LITTLE = 0.1, 4 << 20

# What a failure may say; a message may quote whatever an element had in its hands.
MESSAGE_LIMIT, TRACEBACK_LIMIT = 4_000, 64_000


@dataclass(slots=True)
class _Known:
    code: ElementCode
    parameters: dict[str, Any]


class Executor:
    """Runs elements one after the other; keeps their code and warm resources.

    Attributes
    ----------
    restless
        Whether so much is held in advance after a run that `rest` should be next.
    """

    restless = False

    def __init__(self) -> None:
        self._resources = Resources()
        self._known: dict[int, _Known] = {}
        self._sampler = Sampler()
        self._fresh = held_data()
        self._rested: Rested | None = None
        self._gave_back = 0

    def anon(self) -> int:
        """Anonymous memory of this process now, in bytes."""
        return self._sampler.read()

    def run(self, run: Run) -> Done | Failed:
        """Run an element; what goes wrong in it is part of the answer."""
        if held_data() - self._fresh > may_keep(run.mem, self._fresh):
            self.rest()
        known = self._know(run)
        transports = GrantedTransports(
            run.activation, run.grants, known.code.merged, self._resources
        )
        scratch = Scratch()
        began, cpu = time.monotonic(), _cpu_seconds()
        self._sampler.start()
        logs: list[str] = []
        result = b""
        failure: tuple[str, str, str | None] | None = None
        action = self._action(run, known, transports, scratch)
        try:
            with memory_limit(run.mem):
                outcome = self._call(run, known, action)
                logs = outcome.logs
                if outcome.failure is None:
                    result = _pack(outcome.result)
                else:
                    failure = _judge(run, outcome.failure, transports)
                del outcome
        except LimitTooSmallError as error:
            failure = ("minimum", str(error), None)
        except MemoryError:
            failure = ("limit", _exceeded(run), None)
        if failure is None and len(result) > run.result_limit:
            failure = (
                "result",
                f"the result has {len(result)} bytes; the limit is {run.result_limit} "
                "(put data into a memory element)",
                None,
            )
        read, written = transports.moved()
        transports.close()
        scratch.close()
        held, anon = held_data(), self.anon()
        rested = self._rested
        slack = _LITTLE if time.monotonic() - began > _LONG else _SLACK
        self.restless = (
            rested is None or anon > rested.anon + slack or held > rested.data + _MOST_DATA
        )
        metrics = Metrics(
            cpu_seconds=_cpu_seconds() - cpu,
            peak_anon=self._sampler.stop(),
            peak_data=self._sampler.peak_data,
            seconds=self._sampler.seconds,
            byte_seconds=self._sampler.byte_seconds,
            bytes_read=read,
            bytes_written=written,
            spilled=scratch.peak,
            data=held if rested is None else max(min(held, rested.data), held - self._gave_back),
            anon=anon,
            recorded=action.metrics,
            restless=self.restless,
        )
        if failure is not None:
            kind, message, traceback = failure
            traceback = None if traceback is None else shorten(traceback, TRACEBACK_LIMIT)
            return Failed(
                run.number, kind, shorten(message, MESSAGE_LIMIT), traceback, logs, metrics
            )
        return Done(run.number, msgspec.Raw(result), logs, metrics)

    def prepare(self, preparations: Iterable[Preparation]) -> None:
        """Make resources that elements may want. What cannot be made they will have to make."""
        for one in preparations:
            try:
                one(self._resources)
            except Exception as error:
                log.warning("%s.%s failed: %s", one.__module__, one.__name__, error)

    def rest(self) -> Rested:
        """Give back what is held in advance for the next run."""
        before = held_data()
        self._resources.when_idle()
        self._rested = Rested(held_data(), self.anon())
        # A rest that had nothing to give back says nothing of the next one.
        self._gave_back = max(before - self._rested.data, 0) or self._gave_back
        return self._rested

    def _know(self, run: Run) -> _Known:
        if run.forget:
            self._known.clear()
        if run.code is not None:
            self._known[run.code_id] = _Known(run.code, _unpack_map(run.code.parameters))
        return self._known[run.code_id]

    def _action(
        self, run: Run, known: _Known, transports: GrantedTransports, scratch: Scratch
    ) -> Action:
        return Action(
            run.element,
            transports,
            activation_id=run.activation,
            index=run.index,
            count=run.count,
            limits=Limits(cpu=run.cores, mem=run.mem, storage=run.storage, timeout=run.timeout),
            scratch=scratch if run.storage else None,
            memory_elements={
                **{g.element: g.trans for g in run.grants},
                **{name: name for name, _ in known.code.merged},
            },
            resources=self._resources,
        )

    def _call(self, run: Run, known: _Known, action: Action) -> Outcome:
        code = known.code
        return run_element(
            code.code,
            code.main,
            {**known.parameters, **_unpack_map(run.params)},
            action,
            imports=code.imports,
            modules=code.modules,
            file=code.file,
            first_line=code.first_line,
        )

    def close(self) -> None:
        """Close what was kept warm."""
        self._resources.close()
        self._sampler.close()


def shorten(text: str, limit: int) -> str:
    """Return text of about `limit` characters at most: its beginning and its end."""
    # What cannot be encoded could not be sent either.
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"


def _judge(
    run: Run, failure: ElementFailure, transports: GrantedTransports
) -> tuple[str, str, str | None]:
    if failure.type.rpartition(".")[2] in _OUT_OF_MEMORY:
        return "limit", f"{_exceeded(run)}: {failure}", failure.traceback
    if failure.type.rpartition(".")[2] in _GONE or transports.lost():
        return GONE, str(failure), failure.traceback
    kind = "result" if failure.phase == "result" else "element"
    return kind, str(failure), failure.traceback


def _exceeded(run: Run) -> str:
    return f"out of memory: the element may use {run.mem} bytes (limits.mem, or --compute-memory)"


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
