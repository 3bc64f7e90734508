"""How finely a query is cut, and what its elements may hold."""

from engine.policy.ladder import POLICIES, Grain, Ladder, Policy, spilling
from engine.policy.need import decoding_need, stage_need
from engine.policy.sizes import KEPT_BY_WORKERS, Sizes

__all__ = [
    "KEPT_BY_WORKERS",
    "POLICIES",
    "Grain",
    "Ladder",
    "Policy",
    "Sizes",
    "decoding_need",
    "spilling",
    "stage_need",
]
