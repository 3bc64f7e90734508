"""Messages between the invoker, its zygote and its workers: msgpack, arrays with a tag.

Messages with workers travel over ZeroMQ; those with the zygote, which must not have threads, over a
socket pair.
"""

from __future__ import annotations

import msgspec


class ElementCode(msgspec.Struct, frozen=True, array_like=True):
    """What of an element stays the same from run to run; a worker is told once. `parameters` is a
    packed map.
    """

    code: str
    main: str
    imports: list[str]
    modules: dict[str, str]
    parameters: msgspec.Raw
    merged: list[tuple[str, int]]
    file: str
    first_line: int


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """Access to one memory element. `durl` holds a key."""

    element: str
    trans: str
    durl: str


class Run(msgspec.Struct, frozen=True, array_like=True, tag="run"):
    """Invoker to worker: run one copy of an element.

    `params` is a packed map: parameters, or results of the parents. `code` is ``None`` where the
    worker knows `code_id`; `forget` empties what it knows first.
    """

    number: int
    activation: str
    application: str
    element: str
    index: int
    count: int
    code_id: int
    code: ElementCode | None
    forget: bool
    params: msgspec.Raw
    grants: list[Grant]
    mem: int
    storage: int
    cores: float
    timeout: float
    result_limit: int


class Quit(msgspec.Struct, frozen=True, array_like=True, tag="quit"):
    """Invoker to worker: end."""


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """Worker to invoker: here I am. `data` and `anon` as in `Metrics`."""

    token: str
    data: int
    anon: int


class Rested(msgspec.Struct, frozen=True, array_like=True, tag="rested"):
    """Worker to invoker: I gave back what I could. `data` and `anon` as in `Metrics`."""

    data: int
    anon: int


class Metrics(msgspec.Struct, frozen=True, array_like=True):
    """What a run took.

    Attributes
    ----------
    peak_anon, peak_data
        The most RssAnon and VmData (what RLIMIT_DATA limits) that the worker held, in bytes.
    seconds, byte_seconds
        How long the run took, and RssAnon over that time.
    spilled
        The most bytes that its scratch directory was seen to hold.
    data, anon
        What it holds after it; `data` without what it would give back to an element that needs it,
        as far as it has given back as much before.
    recorded
        What the element's code counted itself.
    restless
        Whether the worker gives back what it can before it does anything else; `Rested` follows.
    """

    cpu_seconds: float = 0.0
    peak_anon: int = 0
    peak_data: int = 0
    seconds: float = 0.0
    byte_seconds: float = 0.0
    bytes_read: int = 0
    bytes_written: int = 0
    spilled: int = 0
    data: int = 0
    anon: int = 0
    recorded: dict[str, float] = {}
    restless: bool = False


class Done(msgspec.Struct, frozen=True, array_like=True, tag="done"):
    """Worker to invoker: the run's result, a packed map."""

    number: int
    result: msgspec.Raw
    logs: list[str]
    metrics: Metrics


GONE = "gone"


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """Worker to invoker: the run failed; `kind` is one of the scheduler's `FailureKind`, or `GONE`
    where its memory went away under it: that is nothing that the element did.
    """

    number: int
    kind: str
    message: str
    traceback: str | None
    logs: list[str]
    metrics: Metrics


class Configure(msgspec.Struct, frozen=True, array_like=True, tag="configure"):
    """Invoker to zygote, first of all. Comes through the socket pair: the token is never in argv or
    the environment.
    """

    endpoint: str
    token: str
    preimport: list[str]
    environment: dict[str, str | None]


class Fork(msgspec.Struct, frozen=True, array_like=True, tag="fork"):
    """Invoker to zygote: make a worker that calls itself `worker`."""

    worker: str


class Kill(msgspec.Struct, frozen=True, array_like=True, tag="kill"):
    """Invoker to zygote: SIGKILL a worker (the zygote knows that its pid is still its own)."""

    worker: str


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    """Zygote to invoker: everything is imported, but for `missing`."""

    missing: list[str]


class Forked(msgspec.Struct, frozen=True, array_like=True, tag="forked"):
    """Zygote to invoker: the worker's pid; ``pid`` 0 says that it could not be made, and why."""

    worker: str
    pid: int
    error: str = ""


class Exited(msgspec.Struct, frozen=True, array_like=True, tag="exited"):
    """Zygote to invoker: a worker is dead. `status` as `os.waitstatus_to_exitcode` gives it."""

    worker: str
    status: int


ToWorker = Run | Quit
FromWorker = Hello | Rested | Done | Failed
ToZygote = Configure | Fork | Kill
FromZygote = Ready | Forked | Exited

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
decode_to_zygote = msgspec.msgpack.Decoder(ToZygote).decode
decode_from_zygote = msgspec.msgpack.Decoder(FromZygote).decode

# What one message between invoker and zygote may be long (SOCK_SEQPACKET keeps boundaries).
ZYGOTE_MESSAGE = 1 << 16
