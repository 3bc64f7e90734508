"""The invoker: processes on this host. Workers that run elements, and the memory server that holds
memory elements.

It carries out the scheduler's commands and reports what happens as the scheduler's events. It
decides nothing about order, capacity or retries. It does not run elements itself
(``openwhisk.worker``) and does not move their data (``libd``).
"""

from __future__ import annotations

from openwhisk.invoker.invoker import Invoker
from openwhisk.invoker.program import Program
from openwhisk.invoker.settings import PATIENCE, InvokerSettings

__all__ = ["PATIENCE", "Invoker", "InvokerSettings", "Program"]
