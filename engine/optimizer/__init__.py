"""What is done to a plan before it is cut into stages."""

from __future__ import annotations

from engine.optimizer.eager import aggregate_early
from engine.optimizer.estimates import Estimates
from engine.optimizer.joinorder import order_joins
from engine.optimizer.pruning import prune
from engine.optimizer.reuse import reuse_similar
from engine.optimizer.rollup import cascade_rollups
from engine.optimizer.sharing import intern
from operators.rel import Rel

__all__ = ["Estimates", "optimize", "whole"]


def whole(plan: Rel, estimates: Estimates) -> Rel:
    plan = reuse_similar(intern(plan), estimates)
    plan = cascade_rollups(aggregate_early(plan, estimates), estimates)
    return prune(plan)


def optimize(plan: Rel, estimates: Estimates) -> Rel:
    """The same answer with less work: joins in a better order, no column that nobody reads."""
    return prune(order_joins(intern(plan), estimates))
