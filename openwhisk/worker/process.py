"""The worker process: waits for a run, runs it on the main thread, reports, waits again."""

from __future__ import annotations

from collections.abc import Sequence

import zmq

from openwhisk.worker.execute import Executor, Preparation
from openwhisk.worker.limits import held_data
from openwhisk.worker.messages import Hello, Quit, decode_to_worker, encode

# Milliseconds without work after which a worker gives back what it keeps for the next run, or, if
# it has had none yet, makes what that will want. A program that runs one query after the other asks
# again sooner.
_PATIENCE = 25


def work(
    endpoint: str,
    token: str,
    worker: str,
    lifeline: int,
    preparations: Sequence[Preparation] = (),
) -> None:
    """Serve an invoker until it says so, or is gone.

    Parameters
    ----------
    endpoint
        ZeroMQ address of the invoker.
    token
        What the invoker recognizes its own workers by.
    worker
        This worker's routing id.
    lifeline
        Read end of a pipe that becomes readable when the invoker's process ends.
    preparations
        Make resources while the worker waits for its first run.
    """
    context = zmq.Context(io_threads=1)
    link = context.socket(zmq.DEALER)
    link.setsockopt(zmq.IDENTITY, worker.encode())
    link.setsockopt(zmq.LINGER, 0)
    link.connect(endpoint)
    executor = Executor()
    poller = zmq.Poller()
    poller.register(link, zmq.POLLIN)
    poller.register(lifeline, zmq.POLLIN)
    try:
        link.send(encode(Hello(token, held_data(), executor.anon())))
        patience = _PATIENCE if preparations else None
        while True:
            ready = dict(poller.poll(patience))
            if not ready:
                executor.prepare(preparations)
                preparations = ()
                link.send(encode(executor.rest()))
                patience = None
                continue
            if lifeline in ready:
                return
            message = decode_to_worker(link.recv())
            if isinstance(message, Quit):
                return
            preparations = ()
            link.send(encode(executor.run(message)))
            patience = _PATIENCE
            if executor.restless:  # whoever waits for the answer need not wait for this
                link.send(encode(executor.rest()))
                patience = None
    finally:
        executor.close()
        link.close()
        context.term()
