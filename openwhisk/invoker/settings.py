"""Settings of an invoker."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

# Workers share nothing but pages, so that a library's own thread pool or allocator must not
# multiply with them: one thread each, whatever `limits.cpu` says, because the libraries read this
# when the zygote loads them. An element that has several cores (`action.limits.cpu`) starts its
# threads itself, or lets a loaded library have them with `threadpoolctl.threadpool_limits`.
WORKER_ENVIRONMENT: dict[str, str] = {
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # Stacks count against RLIMIT_DATA whether they were touched or not. Threads of Rust ask for
    # 2 MiB each; expressions nested 1500 deep, on Polars' threads, need no more
    # than this, and who needs more ends the process, which is an answer.
    "RUST_MIN_STACK": str(512 << 10),
}


def scaled_environment(cores: float) -> dict[str, str]:
    """What depends on the threads that an element may have.

    Of jemalloc, the allocator that libraries bring, each arena takes 2 MiB of address space for its
    books and keeps freed memory for itself: one for each thread.
    """
    threads = max(2, math.ceil(cores))
    arenas = f"narenas:{threads}"
    return {
        # Row groups that Polars fetches ahead of its decoder, 8 by default.
        "POLARS_ROW_GROUP_PREFETCH_SIZE": str(threads),
        # DuckDB's keeps the address space of what it freed, which RLIMIT_DATA counts: a worker that
        # ran a query would be too fat for most other elements.
        "DUCKDB_JE_MALLOC_CONF": f"retain:false,{arenas}",
        # Libraries written in Rust: likewise. A forked process has no threads that purge: it would
        # give large blocks back, and touch them anew, each time. That took a quarter of the time of
        # elements that decode decimals.
        "_RJEM_MALLOC_CONF": (
            f"retain:false,{arenas},dirty_decay_ms:1000,muzzy_decay_ms:0,oversize_threshold:0"
        ),
    }


# Seconds that a worker may wait beyond one per core: a new one takes 10 ms.
PATIENCE = 0.5


@dataclass(frozen=True, kw_only=True)
class InvokerSettings:
    """What an invoker may do.

    Attributes
    ----------
    memory
        Bytes that memory elements may take.
    preimport
        Names of modules that workers should find imported. Those that do not exist are left out.
        Of one that has a function ``prepare_worker(resources)`` (`openwhisk.runtime.Resources`),
        workers call that while they wait for their first run.
    prewarm, max_idle
        How many workers are made before anything asks for one, and how many may wait for work.
    patience
        Seconds without work after which those beyond `prewarm` end, if they hold no more than a
        fresh one; see `WorkerPool`.
    result_limit
        Bytes that an element's result may have.
    environment
        Environment variables of workers; ``None`` unsets one.
    """

    cores: float
    memory: int
    preimport: tuple[str, ...] = ()
    prewarm: int | None = None
    max_idle: int | None = None
    patience: float = PATIENCE
    result_limit: int = 16_000_000
    environment: dict[str, str | None] = field(default_factory=dict)

    @property
    def warm_workers(self) -> int:
        """`prewarm`, by default one per core."""
        return math.ceil(self.cores) if self.prewarm is None else self.prewarm

    @property
    def idle_workers(self) -> int:
        """`max_idle`, by default two per core and at least eight: a fan of small elements runs on
        warm workers.
        """
        return max(8, 2 * math.ceil(self.cores)) if self.max_idle is None else self.max_idle
