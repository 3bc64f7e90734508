"""Cutting a plan at exchanges into stages."""

from engine.stages.cutter import cut
from engine.stages.fragments import CutSettings, Estimator
from engine.stages.model import Exchange, PartSource, Stage, StageInput, StagePlan

__all__ = [
    "CutSettings",
    "Estimator",
    "Exchange",
    "PartSource",
    "Stage",
    "StageInput",
    "StagePlan",
    "cut",
]
