"""The worker process: waits for a run, runs it on the main thread, reports, waits again."""

from __future__ import annotations

import zmq

from openwhisk.worker.execute import Executor
from openwhisk.worker.limits import held_data
from openwhisk.worker.messages import Hello, Quit, decode_to_worker, encode


def work(endpoint: str, token: str, worker: str, lifeline: int) -> None:
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
        while True:
            ready = dict(poller.poll())
            if lifeline in ready:
                return
            message = decode_to_worker(link.recv())
            if isinstance(message, Quit):
                return
            link.send(encode(executor.run(message)))
    finally:
        executor.close()
        link.close()
        context.term()
