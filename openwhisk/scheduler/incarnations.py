"""`Incarnations`: the lives of memory elements, and the bytes that they take of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from openwhisk.scheduler.ledger import Ledger
from openwhisk.scheduler.messages import Command, CreateMemory, DropMemory, MemoryId, RunId
from openwhisk.scheduler.state import ActivationState, Gang, Incarnation, Life

__all__ = ["Incarnations"]


class Incarnations:
    """Memory elements that exist, are being made, or are on their way out.

    Parameters
    ----------
    ledger
        What their bytes are taken from.
    emit
        Takes the commands that follow.
    """

    def __init__(self, ledger: Ledger, emit: Callable[[Command], None]) -> None:
        self._ledger = ledger
        self._emit = emit
        self._all: dict[MemoryId, Incarnation] = {}
        self._lost_servers: set[int] = set()

    def need(self, gang: Gang) -> int:
        """Bytes of the memory elements that have to be made for a gang."""
        act = gang.activation
        return sum(
            act.plan.memories[name].size
            for name in gang.plan.memories
            if (found := act.memory.get(name)) is None or not found.alive
        )

    def of(self, act: ActivationState, name: str) -> Incarnation:
        """The living incarnation of a memory element, which is begun if there is none."""
        current = act.memory.get(name)
        if current is not None and current.alive:
            return current
        generation = act.generations.get(name, 0) + 1
        act.generations[name] = generation
        plan = act.plan.memories[name]
        made = Incarnation(MemoryId(act.id, name, generation), plan)
        act.memory[name] = made
        act.incarnations[made.id] = made
        self._all[made.id] = made
        self._ledger.take(0.0, plan.size)
        self._create(made)
        return made

    def creating(self, memory: MemoryId) -> Incarnation | None:
        """The incarnation of that name, if it is being made."""
        found = self._all.get(memory)
        return found if found is not None and found.life is Life.CREATING else None

    def created(self, incarnation: Incarnation, server: int) -> bool:
        """An incarnation exists, on that memory server. False if that has died since: nobody has
        used it, so that it is simply made again.
        """
        if server in self._lost_servers:
            self._create(incarnation)
            return False
        incarnation.life = Life.READY
        incarnation.server = server
        return True

    def server_lost(self, server: int) -> Iterator[Incarnation]:
        """Give up all that a memory server had; yield what that is."""
        self._lost_servers.add(server)
        for incarnation in list(self._all.values()):
            if incarnation.server == server and incarnation.alive:
                self.doom(incarnation)
                yield incarnation

    def left(self, incarnation: Incarnation, run: RunId) -> None:
        """A run touches an incarnation no more."""
        incarnation.users.discard(run)
        self._drop_if_unused(incarnation)

    def doom(self, incarnation: Incarnation) -> None:
        """Give an incarnation up; its bytes go when nobody can touch them any more."""
        if incarnation.alive:
            incarnation.life = Life.DOOMED
            self._drop_if_unused(incarnation)

    def dropped(self, memory: MemoryId) -> Incarnation | None:
        """Its bytes are back; return what it was. None if that was known."""
        incarnation = self._all.pop(memory, None)
        if incarnation is not None:
            incarnation.life = Life.GONE
            self._ledger.give_back(0.0, incarnation.plan.size)
        return incarnation

    def any_in(self, *lives: Life) -> bool:
        """Whether one is in one of these stages of its life."""
        return any(i.life in lives for i in self._all.values())

    def _create(self, incarnation: Incarnation) -> None:
        plan = incarnation.plan
        self._emit(CreateMemory(incarnation.id, plan.limit, plan.elastic))

    def _drop_if_unused(self, incarnation: Incarnation) -> None:
        if incarnation.life is Life.DOOMED and not incarnation.users:
            incarnation.life = Life.DROPPING
            self._emit(DropMemory(incarnation.id))
