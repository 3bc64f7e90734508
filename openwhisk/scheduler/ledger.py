"""`Ledger`: the cores and bytes that there are, and who may have them."""

from __future__ import annotations

from openwhisk.scheduler.messages import Failure
from openwhisk.scheduler.plan import GangPlan, Plan

_EPSILON = 1e-9


class Ledger:
    """Counts what is reserved.

    Bytes are hard: what is reserved never exceeds `memory`. Cores are too, but for a gang that
    wants more of them than there are: it is let in when it is alone.

    Attributes
    ----------
    claims
        Bytes of all memory elements of the applications that were let in.
    kept
        Bytes that sessions hold.
    """

    def __init__(self, cores: float, memory: int) -> None:
        self.cores = cores
        self.memory = memory
        self.used_cores = 0.0
        self.used_bytes = 0
        self.claims = 0
        self.kept = 0
        self._plans: list[Plan] = []

    @property
    def applications(self) -> int:
        """How many were let in."""
        return len(self._plans)

    def fits(self, cores: float, size: int) -> bool:
        """Whether a gang may have this now."""
        if self.used_bytes + size > self.memory:
            return False
        return self.used_cores + cores <= self.cores + _EPSILON or self.used_cores <= _EPSILON

    def take(self, cores: float, size: int) -> None:
        """Reserve."""
        self.used_cores += cores
        self.used_bytes += size

    def give_back(self, cores: float, size: int) -> None:
        """Undo `take`."""
        self.used_cores -= cores
        self.used_bytes -= size
        if abs(self.used_cores) < _EPSILON:
            self.used_cores = 0.0

    def admits(self, plan: Plan) -> bool:
        """Whether an application may begin.

        All that were let in can have all their memory elements, and besides the largest gang of
        any of them fits: what they run ends, or yields (`Growth`), and then every gang has its
        turn, whatever the others do. One that is larger than what there is is let in alone, and
        runs its gangs one by one.
        """
        if not self._plans:
            return plan.serial_peak + self.kept <= self.memory
        gang = max(p.largest_gang for p in (plan, *self._plans))
        return self.claims + plan.all_memory + gang + self.kept <= self.memory

    def is_tight(self, plan: Plan) -> bool:
        """Whether an application can only run its gangs one by one."""
        return plan.all_memory + plan.largest_gang + self.kept > self.memory

    def enter(self, plan: Plan) -> None:
        """Let an application in."""
        self._plans.append(plan)
        self.claims += plan.all_memory

    def leave(self, plan: Plan) -> None:
        """An application that was let in is over."""
        self._plans.remove(plan)
        self.claims -= plan.all_memory

    def objection(self, plan: Plan) -> Failure | None:
        """Say why an application can never run here, if so."""
        for gang in plan.gangs:
            if failure := self._objection_to_gang(plan, gang):
                return failure
        if plan.serial_peak > self.memory:
            return Failure(
                "capacity",
                f"application {plan.name} holds {plan.serial_peak} bytes when it reaches element "
                f"{plan.peak_element}, even if its elements run one by one; "
                f"the control plane has {self.memory} bytes",
                element=plan.peak_element,
            )
        return None

    def _objection_to_gang(self, plan: Plan, gang: GangPlan) -> Failure | None:
        memory = {m: plan.memories[m].size for m in gang.memories}
        need = gang.mem + sum(memory.values())
        if need <= self.memory:
            return None
        needs = {f"memory element {m}": size for m, size in memory.items()}
        for name, _ in gang.members:
            needs[f"element {name}"] = needs.get(f"element {name}", 0) + plan.elements[name].mem
        parts = ", ".join(f"{who} {size}" for who, size in needs.items())
        name = gang.members[0][0]
        return Failure(
            "capacity",
            f"element {name} can never start: it needs {need} bytes at once ({parts}), "
            f"the control plane has {self.memory} bytes",
            element=name,
        )
