"""DataFusion as the planner, and its plans, as Substrait, read into the IR."""

from __future__ import annotations

from engine.substrait.consumer import PlanReader, TableSource
from engine.substrait.planner import Planner

__all__ = ["PlanReader", "Planner", "TableSource"]
