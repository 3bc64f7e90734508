"""How finely a query is cut, and what its elements may hold."""

from engine.policy.kernels import KernelChoice, RowsOfWork, kernels_to_try
from engine.policy.ladder import POLICIES, Grain, Ladder, Policy, spilling
from engine.policy.need import converted_need, decoding_need, stage_need
from engine.policy.sizes import KEPT_BY_WORKERS, Sizes

__all__ = [
    "KEPT_BY_WORKERS",
    "POLICIES",
    "Grain",
    "KernelChoice",
    "Ladder",
    "Policy",
    "RowsOfWork",
    "Sizes",
    "converted_need",
    "decoding_need",
    "kernels_to_try",
    "spilling",
    "stage_need",
]
