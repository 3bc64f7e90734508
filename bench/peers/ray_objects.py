"""Ray's object store on this host: ``put`` copies in, ``get`` gives a view of shared memory."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import ray

from bench.work import SPAN, Client, Job, Work, source


@contextmanager
def ray_session(**options: Any) -> Iterator[None]:
    """Ray on two cores, its files in a temporary folder that goes with it."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=folder,
            **options,
        )
        try:
            yield
        finally:
            ray.shutdown()


class PeerClient(Client):
    """A driver."""

    def __init__(self, address: dict[str, Any]) -> None:
        super().__init__(address)
        self.session = ray_session(object_store_memory=8 * SPAN)
        self.session.__enter__()
        self.last: Any = None

    def prepare(self, job: Job) -> Work:
        """Reads are ``get`` and a copy out of it (``map``: ``get`` alone), writes are ``put``."""
        (slot,) = job.slots()
        address = job.addresses()[0]
        if job.kind == "write":

            def put() -> None:
                self.last = ray.put(slot)

            return Work(put, lambda: [(slot, ray.get(self.last))])
        wanted = source(address, job.size)
        self.last = reference = ray.put(wanted)
        if job.way == "map":
            return Work(lambda: ray.get(reference), lambda: [(wanted, ray.get(reference))])
        return Work(lambda: np.copyto(slot, ray.get(reference)), lambda: [(wanted, slot)], [slot])

    def close(self) -> None:
        """End Ray's processes."""
        self.last = None
        self.session.__exit__(None, None, None)
