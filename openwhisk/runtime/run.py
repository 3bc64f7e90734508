"""One run of one element: `run_element`.

What user code does wrong is a value here (`Outcome.failure`), never an exception: only the
interrupt of the person at the terminal passes through.
"""

from __future__ import annotations

import inspect
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from libd.errors import ScadError
from openwhisk.errors import ElementError
from openwhisk.runtime.action import Action
from openwhisk.runtime.capture import LogCapture
from openwhisk.runtime.loader import LoadedElement, load_code
from openwhisk.runtime.result import check_result

Phase = Literal["load", "run", "result"]


@dataclass(frozen=True, slots=True)
class ElementFailure:
    """Why an element did not yield a result.

    Attributes
    ----------
    type, message
        Name of the exception's class, and what it says.
    traceback
        As Python prints it, beginning with the element's own code.
    ours
        Whether it is one of our own exceptions, whose message says everything: `str` leaves the
        class out.
    phase
        ``load`` (importing, compiling and executing the module), ``run`` (inside ``main``) or
        ``result`` (what it returned).
    """

    type: str
    message: str
    traceback: str
    phase: Phase
    ours: bool = False

    def __str__(self) -> str:
        if self.ours and self.message:
            return self.message
        return f"{self.type}: {self.message}" if self.message else self.type


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: a result or a failure, and the log lines in either case."""

    result: Any = None
    failure: ElementFailure | None = None
    logs: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is a result."""
        return self.failure is None


def run_element(
    code: str,
    main: str,
    params: Mapping[str, Any],
    action: Action,
    *,
    imports: Iterable[str] = (),
    modules: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    file: str | None = None,
    first_line: int = 1,
    on_log: Callable[[str, str], None] | None = None,
) -> Outcome:
    """Load an element's code, call ``main(params, action)`` and check its result.

    Parameters
    ----------
    code, main
        The element's source text and the name of its main function.
    params
        What the function gets: ``{parent: [result of each copy]}``, or an invocation's parameters.
    action
        Its second argument. It stays open: whoever made it closes it.
    imports, modules
        See `openwhisk.app.ComputeElement`.
    env
        Environment variables for the run, besides ``__OW_PAR`` (index of the copy), ``__OW_PAR_N``
        (number of copies), ``__OW_ACTION_NAME`` and ``__OW_ACTIVATION_ID``. The environment is
        restored afterwards.
    file, first_line
        What tracebacks call the source, and where in it `code` begins.
    on_log
        Called with ``(stream, text)`` for every printed line at once.

    Notes
    -----
    Environment, ``sys.stdout`` and ``sys.modules`` belong to the process: one run at a time.
    """
    phase: Phase = "load"
    with _environment(action, env), LogCapture(on_log) as capture:
        try:
            with load_code(
                code,
                main,
                action.name,
                imports=imports,
                modules=modules,
                file=file,
                first_line=first_line,
            ) as element:
                phase = "run"
                value = element(params, action)
                phase = "result"
                outcome = Outcome(_checked(value, allow_array=False), logs=capture.lines)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome = Outcome(failure=failure_of(error, phase), logs=capture.lines)
    return outcome


def call_element(
    element: LoadedElement,
    params: Mapping[str, Any],
    action: Action,
    *,
    env: Mapping[str, str] | None = None,
    on_log: Callable[[str, str], None] | None = None,
    allow_array: bool = False,
) -> Outcome:
    """Call an element that stays loaded between runs, as OpenWhisk's plain actions do. See
    `run_element`.
    """
    phase: Phase = "run"
    with _environment(action, env), LogCapture(on_log) as capture:
        try:
            value = element(params, action)
            phase = "result"
            outcome = Outcome(_checked(value, allow_array=allow_array), logs=capture.lines)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            outcome = Outcome(failure=failure_of(error, phase), logs=capture.lines)
    return outcome


def _checked(value: Any, *, allow_array: bool) -> Any:
    if inspect.iscoroutine(value):
        value.close()
        raise ElementError("main is asynchronous; elements are called synchronously")
    return check_result(value, allow_array=allow_array)


def failure_of(error: BaseException, phase: Phase) -> ElementFailure:
    """Return what to tell the element's author about `error`."""
    if isinstance(error, SystemExit):
        message = f"the element called exit({'' if error.code is None else repr(error.code)})"
    elif isinstance(error, SyntaxError):
        message = f"{error.msg} ({error.filename}, line {error.lineno})"
    else:
        message = str(error)
    return ElementFailure(
        type=type(error).__qualname__,
        message=message,
        traceback=_own_traceback(error),
        phase=phase,
        ours=isinstance(error, ScadError),
    )


_RUNTIME = os.path.dirname(os.path.abspath(__file__)) + os.sep


def _own_traceback(error: BaseException) -> str:
    """Format `error`, leaving out the frames of this package and of the import machinery that lead
    to the element's code.
    """
    summary = traceback.TracebackException.from_exception(error)
    frames = list(summary.stack)
    skipped = 0
    while skipped < len(frames) and frames[skipped].filename.startswith((_RUNTIME, "<frozen ")):
        skipped += 1
    summary.stack = traceback.StackSummary.from_list(frames[skipped:])
    return "".join(summary.format())


@contextmanager
def _environment(action: Action, extra: Mapping[str, str] | None) -> Iterator[None]:
    wanted = {
        "__OW_ACTION_NAME": action.name,
        "__OW_ACTIVATION_ID": action.activation_id,
        "__OW_PAR": str(action.index),
        "__OW_PAR_N": str(action.count),
        **(extra or {}),
    }
    before = {key: os.environ.get(key) for key in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value
