"""What a plan becomes when it is cut: stages (compute elements) and the exchanges between them
(memory elements).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from operators.rel import ParquetSource, Rel
from operators.schema import Schema

__all__ = ["Exchange", "ExchangeKind", "ReadMode", "Stage", "StageInput", "StagePlan"]

ExchangeKind = Literal["hash", "gather", "broadcast", "forward", "result"]
"""How a stage's output is laid out: scattered by keys, or one frame per copy of the writer.
`gather` (one
reader), `broadcast` (several, each reads all) and `forward` (reader *i* reads what writer *i*
wrote) differ only in who reads; `result` is the query's answer."""

ReadMode = Literal["part", "all", "own"]
"""What reader *i* opens of an exchange: partition *i* of a hash exchange, everything, or the frame
of writer *i*."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Data on its way between stages, in one memory element.

    Attributes
    ----------
    name
        The memory element's name, `x3`; `result` for the answer.
    schema
        Columns as they are written.
    keys
        Positions that rows are scattered by; empty unless `kind` is `hash`.
    partitions
        How many partitions each writer makes; 1 unless `kind` is `hash`.
    rows, bytes
        Estimates over all writers.
    """

    name: str
    kind: ExchangeKind
    schema: Schema
    keys: tuple[int, ...] = ()
    partitions: int = 1
    rows: float = 0.0
    bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class StageInput:
    """One exchange that a stage reads. `name` is the `InputSource` of the scan in the stage's
    plan.
    """

    name: str
    exchange: str
    mode: ReadMode


@dataclass(frozen=True, slots=True)
class Stage:
    """A piece of the plan that runs without talking to anybody: one compute element in
    `parallelism` copies.

    `parts` are the base tables of which each copy reads a share; in `plan` their `part` is share 0,
    which stands for the copy's own.
    """

    id: int
    what: str
    plan: Rel
    parallelism: int
    inputs: tuple[StageInput, ...]
    parts: tuple[ParquetSource, ...]
    output: Exchange

    @property
    def name(self) -> str:
        """The compute element's name."""
        return f"s{self.id}_{self.what}"


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Stages in an order in which each stands after those that it reads from; the last one writes
    the result.
    """

    stages: tuple[Stage, ...]
    schema: Schema

    @property
    def result(self) -> Stage:
        """The stage that writes the answer."""
        return self.stages[-1]

    @property
    def elements(self) -> int:
        """Compute elements, each parallel copy counted."""
        return sum(s.parallelism for s in self.stages)

    def writer(self, exchange: str) -> Stage:
        """The stage that writes `exchange`."""
        return next(s for s in self.stages if s.output.name == exchange)

    def readers(self, exchange: str) -> tuple[Stage, ...]:
        """The stages that read `exchange`."""
        return tuple(s for s in self.stages if any(i.exchange == exchange for i in s.inputs))

    def parents(self, stage: Stage) -> tuple[Stage, ...]:
        """The stages that `stage` waits for, in order, without repetition."""
        names = {i.exchange for i in stage.inputs}
        return tuple(s for s in self.stages if s.output.name in names)
