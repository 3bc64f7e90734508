"""Stages become applications: readable element files around SQL fragments."""

from engine.codegen.application import CodegenSettings, build_application
from engine.codegen.fragment import Kernel, lower_stage
from engine.codegen.reduction import ReductionSettings
from engine.codegen.text import element_code, quoted_text, runs_in_polars

__all__ = [
    "CodegenSettings",
    "Kernel",
    "ReductionSettings",
    "build_application",
    "element_code",
    "lower_stage",
    "quoted_text",
    "runs_in_polars",
]
