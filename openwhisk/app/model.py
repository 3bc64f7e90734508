"""The application model: plain frozen data, independent of the formats that it is read from and
written to.

An `Application` is a set of elements. *Compute elements* run code; *memory elements* hold bytes.
Two relationships connect them. *Dependence* (``parents``, ``dependents``): an element starts when
all copies of all its parents are done and receives their results. *Corunning*: the elements exist
at the same time and may communicate.

Objects made by hand may declare a relationship on one side only; `openwhisk.app.complete` adds the
other side. Everything that consumes applications (scheduler, JSON) expects a completed one. Nothing
here validates: see `openwhisk.app.validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

Access = Literal["shared", "exchange"]
Lifetime = Literal["application", "session"]

MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Location:
    """Where something was declared: a line of a file, or a path (``$.functions[0].name``) inside a
    JSON document.
    """

    file: str
    line: int | None = None
    path: str | None = None

    def __str__(self) -> str:
        if self.line is not None:
            return f"{self.file}:{self.line}"
        return f"{self.file}: {self.path}" if self.path is not None else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong; printed as ``file:line: message``."""

    message: str
    location: Location | None = None

    def __str__(self) -> str:
        return self.message if self.location is None else f"{self.location}: {self.message}"


@dataclass(frozen=True, slots=True)
class AppWarning(Problem):
    """Something that was put right, or that is legal but hardly intended."""


@dataclass(frozen=True, slots=True)
class Corunning:
    """One corunning relationship, seen from a compute element.

    Attributes
    ----------
    element
        Name of the other element in the application.
    trans
        Name by which the compute element's code knows the transport; by default the element's name.
    type
        Interface of the transport: ``rdma`` (one-sided reads and writes), or its old name ``mem``.
    """

    element: str
    trans: str = ""
    type: str = "rdma"

    def __post_init__(self) -> None:
        if not self.trans:
            object.__setattr__(self, "trans", self.element)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one copy of an element reserves, and may use at most.

    Attributes
    ----------
    cpu
        Cores; fractions are allowed.
    mem
        Bytes. Of a compute element: its anonymous memory. Of a memory element: its size (or most,
        where it is elastic).
    storage
        Bytes of local disk; 0 for none.
    timeout
        Seconds that one run may take; held to the millisecond.
    """

    cpu: float = 1.0
    mem: int = 256 * MiB
    storage: int = 0
    timeout: float = 300.0


@dataclass(frozen=True, slots=True)
class Merged:
    """A memory element that lives inside the compute element's own process (``withMerged``)."""

    name: str
    limits: Limits
    namespace: str = "whisk.system"


@dataclass(frozen=True, slots=True)
class ComputeElement:
    """Code that runs in a worker.

    Attributes
    ----------
    code
        Python source without the ``#@`` header.
    main
        Name of the function in it that is called as ``main(params, action)``.
    parents, dependents
        Names of elements. A memory element may be a dependent (it starts when this element is
        done), never a parent.
    corunning
        By the other element's name.
    parallelism
        Number of copies.
    imports
        Modules that are imported before the code runs. Those in `modules` come with the element.
    modules
        Source text of helper modules that lay beside the element file, by module name.
    parameters
        Defaults for ``params``; invocation parameters and parents' results take precedence.
    annotations
        Anything else that the JSON said, kept for OpenWhisk's clients.
    first_line
        Line of the element file on which `code` begins, so that tracebacks fit the file.
    checked
        Whether whoever wrote `code` and `parameters`, a program, answers for them: that the one is
        Python and defines `main`, and that the others are JSON. They are not looked through once
        more to be told so early, then.
    """

    name: str
    code: str
    _: KW_ONLY
    main: str = "main"
    parents: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()
    corunning: Mapping[str, Corunning] = field(default_factory=dict)
    parallelism: int = 1
    limits: Limits = field(default_factory=Limits)
    with_merged: tuple[Merged, ...] = ()
    imports: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "python:3"
    location: Location | None = field(default=None, compare=False)
    places: Mapping[str, Location] = field(default_factory=dict, compare=False, repr=False)
    first_line: int = field(default=1, compare=False)
    checked: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class MemoryElement:
    """Bytes that compute elements reach through transports.

    Attributes
    ----------
    corunning
        Names of the compute elements that use it.
    limits
        ``limits.mem`` is its size in bytes.
    parents
        Compute elements after which it starts. Without any it starts with its first corunning
        element.
    dependents
        Always empty in a valid application: a memory element has no result that anything could wait
        for.
    access
        ``shared``: anyone writes at any time. ``exchange``: written once through committed handles,
        immutable afterwards.
    lifetime
        ``application``, or ``session``: it belongs to the caller's session and outlives the
        application.
    elastic
        ``limits.mem`` is the most that it may grow to; it holds and is charged for what was
        allocated.
    """

    name: str
    _: KW_ONLY
    corunning: tuple[str, ...] = ()
    limits: Limits = field(default_factory=lambda: Limits(cpu=0.0))
    parents: tuple[str, ...] = ()
    dependents: tuple[str, ...] = ()
    parallelism: int = 1
    access: Access = "shared"
    lifetime: Lifetime = "application"
    elastic: bool = False
    parameters: Mapping[str, Any] = field(default_factory=dict)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    location: Location | None = field(default=None, compare=False)
    places: Mapping[str, Location] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Size in bytes; of an elastic element the most that it may grow to."""
        return self.limits.mem


Element = ComputeElement | MemoryElement


def place(element: Element, *path: str) -> Location | None:
    """Return where part of an element was declared, or else the closest part around it.

    ``place(e, "parents", "compute1")`` is the line of that entry of its parents; objects made by
    hand have no places.
    """
    for end in range(len(path), 0, -1):
        if (found := element.places.get(".".join(path[:end]))) is not None:
            return found
    return element.location


@dataclass(frozen=True, slots=True)
class Application:
    """A named set of elements, in the order in which they were declared.

    ``app["compute1"]`` finds an element by name (`KeyError` if there is none),
    ``"compute1" in app`` asks for one, iteration yields elements. `warnings` says what was put
    right while reading; it does not take part in comparisons.
    """

    name: str
    elements: tuple[Element, ...]
    warnings: tuple[AppWarning, ...] = field(default=(), compare=False)
    _index: Mapping[str, Element] = field(init=False, repr=False, compare=False)

    def __init__(
        self, name: str, elements: Iterable[Element], warnings: Iterable[AppWarning] = ()
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "elements", tuple(elements))
        object.__setattr__(self, "warnings", tuple(warnings))
        # Of elements with one name the first is found; `validate` reports the others.
        object.__setattr__(self, "_index", {e.name: e for e in reversed(self.elements)})

    def __getitem__(self, name: str) -> Element:
        return self._index[name]

    def get(self, name: str) -> Element | None:
        """Return the element of that name, or ``None``."""
        return self._index.get(name)

    def __contains__(self, name: object) -> bool:
        return name in self._index

    def __iter__(self) -> Iterator[Element]:
        return iter(self.elements)

    def __len__(self) -> int:
        return len(self.elements)

    @property
    def compute(self) -> dict[str, ComputeElement]:
        """The compute elements by name, in declaration order."""
        return {e.name: e for e in self.elements if isinstance(e, ComputeElement)}

    @property
    def memory(self) -> dict[str, MemoryElement]:
        """The memory elements by name, in declaration order."""
        return {e.name: e for e in self.elements if isinstance(e, MemoryElement)}

    @classmethod
    def from_json(
        cls,
        document: Mapping[str, Any] | str | bytes,
        *,
        name: str | None = None,
        file: str = "application",
    ) -> Application:
        """Read the application JSON, complete and validate it.

        Parameters
        ----------
        document
            A parsed JSON object or its text.
        name
            Name of the application (a ``PUT`` takes it from the URL); by default the name of the
            first function.
        file
            What to call the document in messages.

        Raises
        ------
        ApplicationError
            With the JSON path of every problem.
        """
        from openwhisk.app.jsonform import from_json

        return from_json(document, name=name, file=file)

    def to_json(self) -> dict[str, Any]:
        """Return the application JSON as plain objects; `from_json` gives an equal application
        back.
        """
        from openwhisk.app.jsonform import to_json

        return to_json(self)

    def write_directory(self, path: str | Path) -> list[Path]:
        """Write one element file per element into `path`; see `openwhisk.app.write_directory`."""
        from openwhisk.app.directory import write_directory

        return write_directory(self, path)
