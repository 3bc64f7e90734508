"""Cutting a plan at exchanges into stages."""

from engine.stages.cutter import cut
from engine.stages.fragments import CutSettings, Estimator
from engine.stages.model import Exchange, Stage, StageInput, StagePlan

__all__ = [
    "CutSettings",
    "Estimator",
    "Exchange",
    "Stage",
    "StageInput",
    "StagePlan",
    "cut",
]
