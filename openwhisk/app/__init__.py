"""Applications: DAGs of compute and memory elements.

Covers the model, element files (``NAME.o.py``, ``NAME.o.yaml``), the application JSON, validation,
and the graph questions that a scheduler asks (order, gangs). It does not cover running anything:
see ``openwhisk.runtime`` and ``openwhisk.scheduler``.
"""

from __future__ import annotations

from openwhisk.app.completion import complete
from openwhisk.app.directory import load_directory, write_directory
from openwhisk.app.elementfile import format_element, load_element
from openwhisk.app.gangs import Gang, gangs
from openwhisk.app.graph import ancestors, depends_on, sinks, sources, topological_order
from openwhisk.app.model import (
    Access,
    Application,
    AppWarning,
    ComputeElement,
    Corunning,
    Element,
    Lifetime,
    Limits,
    Location,
    MemoryElement,
    Merged,
    Problem,
)
from openwhisk.app.validation import validate
from openwhisk.errors import ApplicationError

__all__ = [
    "Access",
    "AppWarning",
    "Application",
    "ApplicationError",
    "ComputeElement",
    "Corunning",
    "Element",
    "Gang",
    "Lifetime",
    "Limits",
    "Location",
    "MemoryElement",
    "Merged",
    "Problem",
    "ancestors",
    "complete",
    "depends_on",
    "format_element",
    "gangs",
    "load_directory",
    "load_element",
    "sinks",
    "sources",
    "topological_order",
    "validate",
    "write_directory",
]
