"""`release_buffers`: give back what a library holds in advance, and a worker may never need."""

from __future__ import annotations

import ctypes

__all__ = ["release_buffers"]

# NumPy's wheels bring it under names of their own.
_LIBRARY = "openblas"
_RELEASE = "blas_shutdown"


def release_buffers() -> int:
    """Have OpenBLAS unmap the buffers that it made when it was loaded; it makes new ones when it is
    next called.

    RLIMIT_DATA counts them (32 MiB with NumPy's wheels), and no element of SQL multiplies matrices.
    For a process that ends without running destructors, as a worker does: OpenBLAS would unmap them
    once more.

    Returns
    -------
    int
        In how many libraries it did.
    """
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
        paths = {line.split(maxsplit=5)[-1].rstrip() for line in maps if _LIBRARY in line}
    released = 0
    for path in paths:
        try:
            release = getattr(ctypes.CDLL(path), _RELEASE)
        except (OSError, AttributeError):  # no library, or one of another kind
            continue
        release.restype = None
        release()
        released += 1
    return released
