"""The scheduler: a sans-IO state machine.

`Scheduler.handle` takes one event and returns the commands that follow from it. Events carry the
time; there is no clock, no socket and no thread here, so that every interleaving can be tested. It
covers gangs, joins, admission by cores and bytes, the lives of memory elements, retry by lineage,
cancellation, timeouts and sessions. It does not cover how an element is run or where bytes lie
(``openwhisk.invoker``), nor what anything costs (``openwhisk.control``).
"""

from __future__ import annotations

from openwhisk.scheduler.machine import Scheduler
from openwhisk.scheduler.plan import Plan, compile_plan

__all__ = ["Plan", "Scheduler", "compile_plan"]
