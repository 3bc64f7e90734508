"""`limit_stacks`: how much address space a native thread's stack takes."""

from __future__ import annotations

import ctypes

__all__ = ["STACK", "limit_stacks"]

STACK = 1 << 20
"""Bytes of a thread's stack: twice what macOS gives."""

# No pthread_attr_t is larger (aarch64: 64 bytes, x86-64: 56).
_ATTRIBUTES = 256


def limit_stacks(size: int = STACK) -> bool:
    """Give threads that say nothing else stacks of `size` bytes, from now on.

    The C library takes the limit of the main thread's stack for that, 8 MiB mostly, and RLIMIT_DATA
    counts all of it, touched or not: the threads of the libraries that a zygote imports cost each
    worker 40 MiB, long after they are gone. The main thread's own stack grows as before.

    Returns
    -------
    bool
        Whether this C library can be told (glibc can).
    """
    libc = ctypes.CDLL(None)
    set_default = getattr(libc, "pthread_setattr_default_np", None)
    if set_default is None:
        return False
    attributes = ctypes.create_string_buffer(_ATTRIBUTES)
    libc.pthread_attr_init(attributes)
    try:
        libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(size))
        return bool(set_default(attributes) == 0)
    finally:
        libc.pthread_attr_destroy(attributes)
