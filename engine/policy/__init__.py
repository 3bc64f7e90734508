"""How finely a query is cut, and what its elements may hold."""

from engine.policy.ladder import POLICIES, Grain, Ladder, Policy, spilling
from engine.policy.need import decoding_need, stage_need
from engine.policy.sizes import Sizes

__all__ = [
    "POLICIES",
    "Grain",
    "Ladder",
    "Policy",
    "Sizes",
    "decoding_need",
    "spilling",
    "stage_need",
]
