"""The one element that a tool runs."""

from __future__ import annotations

from pathlib import Path

from openwhisk.app.codecheck import check_code
from openwhisk.app.elementfile import COMPUTE_SUFFIX, load_element
from openwhisk.app.model import ComputeElement
from openwhisk.app.source import Report
from openwhisk.cli.common import ToolError


def load_compute(path: Path) -> ComputeElement:
    """Read a compute element's file and check its code, without regard to other elements.

    Raises
    ------
    ToolError
        If it is not a compute element's file.
    ApplicationError
        With the line of every problem in it.
    """
    if not path.name.endswith(COMPUTE_SUFFIX):
        raise ToolError(f"{path}: only compute elements (NAME{COMPUTE_SUFFIX}) can be run")
    element = load_element(path)
    assert isinstance(element, ComputeElement)
    report = Report()
    check_code(element, report)
    report.check()
    return element
