"""The native core's Python face: buffers, transports, the memory server.

Thin on purpose: what moves bytes is C (`csrc/`), what decides is Python. `raise_error` is the one place where return codes
become exceptions.
"""

import os
import sys
import weakref
from ipaddress import IPv6Address
from math import prod
from operator import index

cimport cython
from cpython.buffer cimport (
    PyBUF_ANY_CONTIGUOUS,
    PyBUF_CONTIG_RO,
    PyBUF_FORMAT,
    PyBUF_WRITABLE,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_CheckBuffer,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Calloc, PyMem_Free
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from libd import errors
from libd.errors import BoundsError, CapabilityError, StaleRefError
from libd.ref import OFFSET_BITS, Ref
from libd.units import format_size, lease_ms

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    object PyErr_Occurred()
    long long PyLong_AsLongLongAndOverflow(object, int *) except? -1
    object PyMemoryView_FromObject(object)

cdef extern from "<sys/prctl.h>" nogil:
    int prctl(int, unsigned long)
    int PR_SET_PDEATHSIG

cdef extern from "<signal.h>" nogil:
    int SIGKILL

cdef extern from "sys/mman.h" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS
    void *MAP_FAILED

PROTOCOL_VERSION = LIBD_VERSION
KIND_DEFAULT = LIBD_KIND_DEFAULT
KIND_ELEMENT = LIBD_KIND_ELEMENT
KIND_ADMIN = LIBD_KIND_ADMIN

include "_errors.pxi"
include "_numbers.pxi"
include "_registration.pxi"
include "_memory.pxi"
include "_completion.pxi"
include "_moving.pxi"
include "_transport.pxi"
include "_open.pxi"
include "_server.pxi"
include "_verbs.pxi"


def available_memory():
    """Bytes that this machine and its memory cgroup can still promise, less a margin that stays free."""
    return libd_available()


def is_loopback(host: str) -> bool:
    """Whether every address of `host` is a loopback address; False if it does not resolve."""
    return net_is_loopback(host.encode())


def die_with_parent(int parent):
    """Have the kernel kill this process when the parent's thread that started it ends; False: it has ended already."""
    prctl(PR_SET_PDEATHSIG, SIGKILL)
    return os.getppid() == parent
