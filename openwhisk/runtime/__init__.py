"""What runs inside an element: loading its code, calling ``main(params, action)``, judging the
result.

Used by the worker process of the invoker and, without any control plane, by ``rundisagg`` and
``wskruntime``. It covers one element in this process; processes, limits and messages are the
worker's job.
"""

from __future__ import annotations

from openwhisk.runtime.action import Action, Resources, TransportSource
from openwhisk.runtime.capture import LogCapture
from openwhisk.runtime.loader import LoadedElement, load_code
from openwhisk.runtime.run import ElementFailure, Outcome, call_element, run_element

__all__ = [
    "Action",
    "ElementFailure",
    "LoadedElement",
    "LogCapture",
    "Outcome",
    "Resources",
    "TransportSource",
    "call_element",
    "load_code",
    "run_element",
]
