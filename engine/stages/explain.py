"""Stages as text for people."""

from __future__ import annotations

from collections.abc import Callable

from engine.stages.model import Exchange, Stage, StagePlan
from libd.units import format_size
from operators.printer import format_plan
from operators.rel import Rel

__all__ = ["explain_stages"]


def explain_stages(plan: StagePlan, show: Callable[[Rel], str] = format_plan) -> str:
    """Every stage with its copies, what it reads, its part of the plan, and what it writes.

    Rows and bytes are estimates.
    """
    heads = f"{len(plan.stages)} stages, {plan.elements} compute elements"
    return "\n\n".join([heads, *(_stage(plan, stage, show) for stage in plan.stages)])


def _stage(plan: StagePlan, stage: Stage, show: Callable[[Rel], str]) -> str:
    copies = "1 copy" if stage.parallelism == 1 else f"{stage.parallelism} copies"
    lines = [f"{stage.name} ({copies})"]
    for needed in stage.inputs:
        share = {"all": "all of", "part": "its partition of", "own": "its own number's frame of"}
        writer = plan.writer(needed.exchange).name
        lines.append(f"  reads {share[needed.mode]} {needed.exchange} from {writer}")
    lines += [f"  reads its part of {p.table}" for p in stage.parts]
    lines += [f"  | {line}" for line in show(stage.plan).splitlines()]
    lines.append(f"  writes {_output(stage.output)}")
    return "\n".join(lines)


def _output(output: Exchange) -> str:
    how = output.kind
    if output.kind == "hash":
        keys = ", ".join(output.schema[k].name for k in output.keys)
        how = f"hash({keys}) into {output.partitions}"  # type: ignore[assignment]
    return f"{output.name}: {how}, about {output.rows:,.0f} rows, {format_size(int(output.bytes))}"
