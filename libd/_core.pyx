"""The native core's Python face: buffers, transports, the memory server.

Thin on purpose: what moves bytes is C (`csrc/`), what decides is Python. `raise_error` is the one place where return codes
become exceptions.
"""

import os
import weakref

from cpython.buffer cimport (
    PyBUF_CONTIG,
    PyBUF_CONTIG_RO,
    PyBuffer_FillInfo,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.stdint cimport uint64_t
from libc.string cimport memcpy, memset

from libd import errors
from libd.errors import BoundsError, CapabilityError, StaleRefError
from libd.ref import OFFSET_BITS, Ref
from libd.units import format_size

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept
    object PyErr_Occurred()
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


# ---- errors ----------------------------------------------------------------------------------------------------------

cdef int check_signals() noexcept nogil:
    with gil:
        return PyErr_CheckSignals()


cdef int reraise() except -1:
    return -1  # a signal handler has set the exception


cdef capacity_text(libd_error *err):
    have = format_size(err.have)
    if err.detail == LIBD_CAP_ELEMENT:
        return f"the element's limit has {have} left; raise limits.mem or free regions"
    if err.detail == LIBD_CAP_TENANT:
        return f"the tenant's quota has {have} left; raise the quota or free regions"
    if err.detail == LIBD_CAP_SERVER:
        return f"the memory server has {have} left; start it with a larger --size or free memory"
    if err.detail == LIBD_CAP_MACHINE:
        return f"this machine (or its memory cgroup) can promise {have} more"
    if err.detail == LIBD_CAP_FRAGMENTED:
        return f"the largest free piece is {have}; free or ask for less at a time"
    return "the tenant has no region numbers left; free regions"


cdef closed_text(libd_error *err):
    if err.detail == 0:
        return "the transport is closed"
    if err.detail == 1:
        return "the transport belongs to the parent process; open a new one after fork"
    reason = f" ({os.strerror(err.have)})" if err.have else ""
    if err.detail == 3:
        return f"no memory server can be reached there{reason}"
    return f"the memory server closed the connection or is gone{reason}"


cdef int raise_error(libd_error *err, what) except -1:
    """Raise what `err` means; `what` says which transport, element and addresses were concerned."""
    code = err.code
    if code == LIBD_ESIGNAL:
        return reraise()
    if code == LIBD_ECLOSED:
        raise errors.TransportClosedError(f"{what}: {closed_text(err)}")
    if code == LIBD_ETIMEOUT:
        raise errors.TransportTimeoutError(f"{what}: the memory server does not answer in time")
    if code == LIBD_EAUTH:
        raise errors.AuthError(f"{what}: the memory server refused the token")
    if code == LIBD_EBOUNDS:
        inside = f" of {format_size(err.detail)} ({err.detail} bytes)" if err.detail else ""
        raise BoundsError(f"{what}: outside of the region{inside}")
    if code == LIBD_ECAP:
        raise CapabilityError(f"{what}: this key or connection does not open that element")
    if code == LIBD_ESTALE:
        raise StaleRefError(f"{what}: the region was freed or replaced since (its memory may hold other data now)")
    if code == LIBD_ECAPACITY:
        raise errors.CapacityError(f"{what}: {capacity_text(err)}")
    if code == LIBD_EUNSUPPORTED:
        raise errors.UnsupportedError(f"{what}: this transport cannot do that")
    if code == LIBD_EPROTO:
        raise errors.ProtocolError(f"{what}: the other side does not speak libd's protocol")
    if code == LIBD_EVERSION:
        raise errors.ProtocolError(
            f"{what}: the memory server speaks protocol version {err.detail}, this libd speaks {LIBD_VERSION}"
        )
    if code == LIBD_EEXIST:
        raise errors.LibdError(f"{what}: exists already")
    if code == LIBD_ENOENT:
        raise errors.LibdError(f"{what}: there is no such thing on this memory server")
    if code == LIBD_EINVAL:
        raise errors.LibdError(f"{what}: not possible with these arguments")
    if code == LIBD_ENOMEM:
        raise errors.CapacityError(f"{what}: out of memory")
    if code == LIBD_ESYS:
        raise errors.LibdError(f"{what}: {os.strerror(err.detail)}") from OSError(err.detail, os.strerror(err.detail))
    raise errors.LibdError(f"{what}: error {code}")


libd_check_signals = check_signals


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


# ---- memory ----------------------------------------------------------------------------------------------------------

cdef class Memory:
    """A mapping of this process; unmapped when the last transport and view of it are gone."""

    cdef libd_memory *memory
    cdef object __weakref__

    def __init__(self):
        raise TypeError("mappings are made by transports")

    def __dealloc__(self):
        if self.memory is not NULL:
            libd_memory_destroy(self.memory)

    @property
    def alive(self):
        """Whether the owner of the memory still has this tenant."""
        return libd_memory_alive(self.memory)

    @property
    def size(self):
        """Bytes of address space that the mapping takes."""
        return self.memory.size


cdef class View:
    """A window on a mapping, exported through the buffer protocol."""

    cdef Memory owner
    cdef void *data
    cdef Py_ssize_t size
    cdef bint readonly

    def __init__(self):
        raise TypeError("views are made by Transport.map")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, self.readonly, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass


cdef class Buffer:
    """A local registered buffer of zeros: buffer protocol, slices (memoryviews), assignment.

    Calling it as ``trans.buf(size)`` registers a new buffer with the transport and returns it.
    """

    cdef void *data
    cdef Py_ssize_t size
    cdef object transport
    cdef object __weakref__

    def __cinit__(self, size):
        cdef Py_ssize_t n
        if size < 0 or size >= 1 << 62:
            raise BoundsError(f"a buffer cannot have {size} bytes")
        n = size
        if n:
            self.data = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
            if self.data == MAP_FAILED:
                self.data = NULL
                raise errors.CapacityError(f"no memory for a local buffer of {format_size(n)}")
        self.size = n

    def __dealloc__(self):
        if self.data is not NULL:
            munmap(self.data, self.size)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, 0, flags)

    def __releasebuffer__(self, Py_buffer *buffer):
        pass

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return PyMemoryView_FromObject(self)[index]

    def __setitem__(self, index, value):
        PyMemoryView_FromObject(self)[index] = value

    def __call__(self, size):
        """Register a buffer of `size` bytes with this buffer's transport, and return it."""
        transport = self.transport() if self.transport is not None else None
        if transport is None:
            raise errors.LibdError("this buffer belongs to no transport: call trans.reg(size)")
        return transport.reg(size)

    def __repr__(self):
        return f"<libd.Buffer of {self.size} bytes>"


class Counters:
    """What a transport moved so far: calls (vectored ones count each segment) and bytes.

    `bytes_mapped` counts read-only views, `bytes_mapped_writable` writable ones.
    """

    __slots__ = (
        "bytes_mapped", "bytes_mapped_writable", "bytes_read", "bytes_written", "maps", "reads", "writes",
    )

    def __init__(self, **values):
        for name, value in values.items():
            setattr(self, name, value)

    def __repr__(self):
        return "Counters(" + ", ".join(f"{n}={getattr(self, n)}" for n in self.__slots__) + ")"


class RegionStat:
    """One region, as the owner of the memory knows it: its number, epoch and size in bytes."""

    __slots__ = ("epoch", "region", "size")

    def __init__(self, region, epoch, size):
        self.region = region
        self.epoch = epoch
        self.size = size

    def __repr__(self):
        return f"RegionStat(region={self.region}, epoch={self.epoch}, size={self.size})"


# ---- transports ------------------------------------------------------------------------------------------------------

cdef uint64_t as_u64(value, what) except? 0:
    number = value.__index__()
    if not 0 <= number < 1 << 64:
        raise BoundsError(f"{what} {number} is not a 64-bit number")
    return number


cdef class Transport:
    """A connection to one memory element. Thread-safe; whatever moves bytes or waits releases the GIL.

    Made by `LibdAction.get_transport`, not by hand. Addresses are ``region << 40 | offset``.
    """

    cdef libd_transport *t
    cdef Memory memory
    cdef readonly str name
    cdef readonly str type
    cdef readonly str element
    cdef Buffer buffer
    cdef object __weakref__

    def __init__(self):
        raise TypeError("transports are made by LibdAction.get_transport")

    def __dealloc__(self):
        if self.t is not NULL:
            libd_destroy(self.t)

    cdef fail(self, libd_error *err, what):
        raise_error(err, f"{self.type} transport {self.name!r} to element {self.element!r}: {what}")

    cdef fail_at(self, libd_error *err, operation, uint64_t addr, uint64_t size):
        self.fail(
            err,
            f"{operation} of {size} bytes at region {addr >> OFFSET_BITS} offset {addr & ((1 << OFFSET_BITS) - 1)}",
        )

    # -- the local buffer --

    @property
    def buf(self):
        """The registered buffer; empty until `reg` is called."""
        return self.buffer

    def reg(self, size, share_with=None):
        """Register a local buffer of `size` bytes, which becomes `buf`, and return it.

        Parameters
        ----------
        size
            Bytes.
        share_with
            A transport, or a buffer, whose memory is used instead of new memory; it must have at least `size` bytes.
        """
        cdef Buffer buffer
        if share_with is None:
            buffer = Buffer(size)
            buffer.transport = weakref.ref(self)
        else:
            buffer = share_with.buf if isinstance(share_with, Transport) else share_with
            if size > buffer.size:
                raise BoundsError(f"transport {self.name!r}: the shared buffer has {buffer.size} bytes, not {size}")
        self.buffer = buffer
        return buffer

    cdef void *local(self, Buffer buffer, uint64_t size, Py_ssize_t start, operation) except? NULL:
        if start < 0 or size > <uint64_t>buffer.size or <uint64_t>start > <uint64_t>buffer.size - size:
            raise BoundsError(
                f"transport {self.name!r}: {operation} of {size} bytes at offset {start} is outside of the local "
                f"buffer of {buffer.size} bytes; call trans.reg(size) first"
            )
        return <char *>buffer.data + start

    def read(self, size, addr=0, offset=0):
        """Read `size` bytes at `addr` of the memory element into ``buf[offset:offset + size]``."""
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        cdef Buffer keep = self.buffer
        vec.size = as_u64(size, "size")
        vec.addr = as_u64(addr, "address")
        vec.data = self.local(keep, vec.size, offset, "read")
        with nogil:
            code = libd_readv(self.t, &vec, 1, &err)
        if code:
            self.fail_at(&err, "read", vec.addr, vec.size)

    def write(self, size, addr=0, offset=0):
        """Write ``buf[offset:offset + size]`` to `addr` of the memory element."""
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        cdef Buffer keep = self.buffer
        vec.size = as_u64(size, "size")
        vec.addr = as_u64(addr, "address")
        vec.data = self.local(keep, vec.size, offset, "write")
        with nogil:
            code = libd_writev(self.t, &vec, 1, &err)
        if code:
            self.fail_at(&err, "write", vec.addr, vec.size)

    # -- any buffer --

    def read_into(self, addr, out):
        """Read ``len(out)`` bytes at `addr` into `out`, any writable contiguous buffer; return how many."""
        cdef Py_buffer view
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        vec.addr = as_u64(addr, "address")
        PyObject_GetBuffer(out, &view, PyBUF_CONTIG)
        vec.data = view.buf
        vec.size = view.len
        with nogil:
            code = libd_readv(self.t, &vec, 1, &err)
        PyBuffer_Release(&view)
        if code:
            self.fail_at(&err, "read", vec.addr, vec.size)
        return vec.size

    def write_from(self, addr, data):
        """Write `data`, any contiguous buffer, to `addr`; return the number of bytes."""
        cdef Py_buffer view
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        vec.addr = as_u64(addr, "address")
        PyObject_GetBuffer(data, &view, PyBUF_CONTIG_RO)
        vec.data = view.buf
        vec.size = view.len
        with nogil:
            code = libd_writev(self.t, &vec, 1, &err)
        PyBuffer_Release(&view)
        if code:
            self.fail_at(&err, "write", vec.addr, vec.size)
        return vec.size

    cdef vectored(self, segments, bint reading):
        cdef list pairs = list(segments)
        cdef Py_ssize_t n = len(pairs), held = 0, i
        cdef Py_buffer *views
        cdef libd_vec *vec
        cdef libd_error err
        cdef int code = 0
        cdef uint64_t total = 0
        if n == 0:
            return 0
        views = <Py_buffer *>PyMem_Malloc(n * sizeof(Py_buffer))
        vec = <libd_vec *>PyMem_Malloc(n * sizeof(libd_vec))
        try:
            if views is NULL or vec is NULL:
                raise MemoryError
            for addr, data in pairs:
                vec[held].addr = as_u64(addr, "address")
                PyObject_GetBuffer(data, &views[held], PyBUF_CONTIG if reading else PyBUF_CONTIG_RO)
                vec[held].data = views[held].buf
                vec[held].size = views[held].len
                total += vec[held].size
                held += 1
            with nogil:
                if reading:
                    code = libd_readv(self.t, vec, n, &err)
                else:
                    code = libd_writev(self.t, vec, n, &err)
            if code:
                what = "vectored read" if reading else "vectored write"
                self.fail_at(&err, f"{what} of {n} segments,", vec[0].addr, total)
        finally:
            for i in range(held):
                PyBuffer_Release(&views[i])
            PyMem_Free(views)
            PyMem_Free(vec)
        return total

    def readv(self, segments):
        """Read all ``(addr, out)`` of `segments`, in one round trip per 4096 of them; return the number of bytes.

        Every segment of a round trip is checked before its first byte moves.
        """
        return self.vectored(segments, True)

    def writev(self, segments):
        """Write all ``(addr, data)`` of `segments`, in one round trip per 4096 of them; return the number of bytes."""
        return self.vectored(segments, False)

    def map(self, addr, size, writable=False):
        """Return a memoryview of `size` bytes at `addr`, without copying.

        The view keeps the mapping alive, also after `close`. What it shows after its region was freed is undefined.

        Raises
        ------
        UnsupportedError
            if this transport cannot map (see `mappable`).
        """
        cdef libd_error err
        cdef void *data
        cdef uint64_t at = as_u64(addr, "address"), n = as_u64(size, "size")
        cdef View view
        if libd_map(self.t, at, n, writable, &data, &err):
            self.fail_at(&err, "map", at, n)
        view = View.__new__(View)
        view.owner = self.memory
        view.data = data
        view.size = n
        view.readonly = not writable
        return PyMemoryView_FromObject(view)

    # -- regions --

    def alloc(self, size, align=64):
        """Allocate a region of `size` bytes and return its address. The contents are undefined.

        In a fixed element the region is a window carved out of region 0 (address 0 … size), so use either flat addresses
        or regions; in an elastic element it is fresh bytes, charged to the element until they are freed.

        Raises
        ------
        CapacityError
            if the element, the tenant, the server or the machine has no room; nothing was reserved then.
        """
        cdef libd_error err
        cdef uint64_t addr, n = as_u64(size, "size"), a = as_u64(align, "alignment")
        cdef int code
        with nogil:
            code = libd_alloc(self.t, n, a, &addr, &err)
        if code:
            self.fail(&err, f"alloc of {n} bytes aligned to {a}")
        return addr

    def free(self, addr):
        """Give a region back. Its address and refs to it are refused from now on."""
        cdef libd_error err
        cdef uint64_t at = as_u64(addr, "address")
        cdef int code
        with nogil:
            code = libd_free(self.t, at, &err)
        if code:
            self.fail_at(&err, "free", at, 0)

    def extend(self, addr, new_size):
        """Grow a region to `new_size` bytes and return its address.

        In place where the bytes behind it are free, and then the address is the same; otherwise the bytes move to a new
        region, whose address is returned, and the old one is freed.
        """
        cdef libd_error err
        cdef uint64_t at = as_u64(addr, "address"), n = as_u64(new_size, "size"), out
        cdef int code
        with nogil:
            code = libd_extend(self.t, at, n, &out, &err)
        if code:
            self.fail_at(&err, "extend", at, n)
        return out

    def region(self, addr):
        """Return the `RegionStat` of the region that `addr` is in."""
        cdef libd_error err
        cdef uint64_t at = as_u64(addr, "address"), epoch, size
        cdef int code
        with nogil:
            code = libd_region(self.t, at, &epoch, &size, &err)
        if code:
            self.fail_at(&err, "region", at, 0)
        return RegionStat(at >> OFFSET_BITS, epoch, size)

    def ref(self, extents):
        """Return the `Ref` of ``(addr, size)`` pairs, which must lie in one region."""
        pairs = [(as_u64(a, "address"), as_u64(n, "size")) for a, n in extents]
        if not pairs:
            raise BoundsError(f"transport {self.name!r}: a ref needs at least one extent")
        numbers = {a >> OFFSET_BITS for a, _ in pairs}
        if len(numbers) != 1:
            raise BoundsError(f"transport {self.name!r}: the extents of a ref must lie in one region, not {len(numbers)}")
        stat = self.region(pairs[0][0])
        mask = (1 << OFFSET_BITS) - 1
        for a, n in pairs:
            if (a & mask) + n > stat.size:
                raise BoundsError(
                    f"transport {self.name!r}: extent of {n} bytes at offset {a & mask} is outside of region "
                    f"{stat.region} of {stat.size} bytes"
                )
        return Ref(self.element, stat.region, stat.epoch, [(a & mask, n) for a, n in pairs])

    def resolve(self, ref):
        """Return the ``(addr, size)`` pairs of a `Ref`, checked against the owner of the memory.

        Raises
        ------
        StaleRefError
            if the region was freed, or freed and allocated again, since the ref was made.
        CapabilityError
            if the ref names another element.
        BoundsError
            if an extent is outside of the region.
        """
        cdef libd_error err
        cdef uint64_t size, epoch = ref.epoch
        cdef uint32_t region = ref.region
        cdef int code
        if ref.element != self.element:
            raise CapabilityError(
                f"transport {self.name!r} reaches element {self.element!r}, but the ref is to {ref.element!r}"
            )
        with nogil:
            code = libd_resolve(self.t, region, epoch, &size, &err)
        if code:
            self.fail(&err, f"ref to region {region}, epoch {epoch}")
        base = ref.region << OFFSET_BITS
        for offset, length in ref.extents:
            if offset + length > size:
                raise BoundsError(
                    f"ref to element {self.element!r}: extent of {length} bytes at offset {offset} is outside of region "
                    f"{region} of {size} bytes"
                )
        return [(base | offset, length) for offset, length in ref.extents]

    # -- about --

    def flush(self):
        """Return once everything written before is visible to every other reader of the element."""
        cdef libd_error err
        cdef int code
        with nogil:
            code = libd_flush(self.t, &err)
        if code:
            self.fail(&err, "flush")

    def stat(self):
        """Return the element's statistics: reserved bytes now and at most, byte·seconds, regions, bytes moved."""
        cdef libd_error err
        cdef libd_element_stats s
        cdef int code
        with nogil:
            code = libd_stat(self.t, &s, &err)
        if code:
            self.fail(&err, "stat")
        return {
            "element": self.element,
            "elastic": bool(self.t.who.elastic),
            "reserved": s.reserved,
            "peak": s.peak,
            "limit": s.limit,
            "regions": s.regions,
            "byte_seconds": s.byte_seconds,
            "bytes_read": s.bytes_read,
            "bytes_written": s.bytes_written,
            "age": s.age,
        }

    @property
    def counters(self):
        """What this transport moved so far (a snapshot)."""
        return Counters(
            reads=self.t.counters.reads,
            writes=self.t.counters.writes,
            maps=self.t.counters.maps,
            bytes_read=self.t.counters.bytes_read,
            bytes_written=self.t.counters.bytes_written,
            bytes_mapped=self.t.counters.bytes_mapped,
            bytes_mapped_writable=self.t.counters.bytes_mapped_writable,
        )

    @property
    def size(self):
        """Bytes of region 0, or the most that an elastic element may hold: its limit, or its tenant's quota."""
        return self.t.who.size

    @property
    def elastic(self):
        """Whether the element has no region 0 and grows by `alloc`."""
        return bool(self.t.who.elastic)

    @property
    def mappable(self):
        """Whether `map` works: the memory is reachable with loads and stores."""
        return self.t.ops.map is not NULL

    @property
    def closed(self):
        """Whether `close` was called."""
        return bool(self.t.closed)

    def close(self):
        """Close the connection. Calls in other threads fail at once; live views stay valid. May be called twice."""
        with nogil:
            libd_shutdown(self.t)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        state = "closed" if self.closed else "open"
        return f"<libd.Transport {self.name!r} ({self.type}) to element {self.element!r}, {state}>"


cdef Transport wrap(libd_transport *t, Memory memory, str name, str element):
    cdef Transport transport = Transport.__new__(Transport)
    transport.t = t
    transport.memory = memory
    transport.name = name
    transport.type = t.ops.type.decode()
    try:
        transport.element = element or (<bytes>t.name).decode() or name
    except UnicodeDecodeError:
        raise errors.ProtocolError(f"transport {name!r}: the server's name for the element is no text") from None
    transport.buffer = Buffer(0)
    transport.buffer.transport = weakref.ref(transport)
    return transport


def open_local(str name, size, bint elastic=False, str element=""):
    """Open a memory element of `size` bytes in this process."""
    cdef libd_transport *t
    cdef libd_error err
    cdef uint64_t n = as_u64(size, "size")
    cdef Memory memory = Memory.__new__(Memory)
    cdef int code
    with nogil:
        code = libd_open_local(n, elastic, &memory.memory, &t, &err)
    if code:
        memory.memory = NULL
        raise_error(&err, f"rdma_local transport {name!r} of {format_size(n)}")
    return wrap(t, memory, name, element)


cdef class Endpoint:
    """Where a memory server is and what to show it; not printable, it holds secrets."""

    cdef readonly bytes host, port, path
    cdef bytes token, key
    cdef readonly int kind
    cdef readonly object tenant, eid
    cdef readonly double timeout

    def __init__(self, *, str host="", str port="", str path="", int kind=LIBD_KIND_DEFAULT, str token="",
                 tenant=0, eid=0, bytes key=b"", double timeout=5.0):
        self.host = host.encode()
        self.port = port.encode()
        self.path = path.encode()
        self.kind = kind
        self.token = token.encode()
        self.tenant = tenant
        self.eid = eid
        self.key = key.ljust(LIBD_KEY_BYTES, b"\0")
        self.timeout = timeout
        if len(self.key) != LIBD_KEY_BYTES:
            raise errors.DurlError("a key has 32 hexadecimal digits")
        if len(self.token) > LIBD_MAX_TOKEN or b"\0" in self.token:
            raise errors.AuthError("a token has at most 255 bytes and no NUL")

    def __reduce__(self):
        raise TypeError("an endpoint holds secrets and is not pickled")

    @property
    def url(self):
        """The address as text."""
        return f"unix://@{self.path.decode()}" if self.path else f"tcp://{self.host.decode()}:{self.port.decode()}"

    cdef libd_transport *open(self, what) except NULL:
        cdef libd_address address
        cdef libd_transport *t
        cdef libd_error err
        cdef int code
        memset(&address, 0, sizeof(address))
        address.host = self.host
        address.port = self.port
        address.path = <const char *>self.path if self.path else NULL
        address.kind = self.kind
        address.token = self.token
        address.tenant = self.tenant
        address.element = self.eid
        memcpy(address.key, <const char *>self.key, LIBD_KEY_BYTES)
        address.timeout = self.timeout
        with nogil:
            code = libd_open_stream(&address, &t, &err)
        if code:
            raise_error(&err, f"{what} at {self.url}")
        return t


def open_tcp(str name, Endpoint endpoint, str element=""):
    """Connect to a memory element over TCP."""
    return wrap(endpoint.open(f"rdma_tcp transport {name!r}"), None, name, element)


def open_shm(str name, Endpoint endpoint, cache, str element=""):
    """Connect to a memory element on this host and map its tenant's arena.

    `cache` is a mapping-like object with ``get(key)`` and ``add(key, memory) -> memory``: attached arenas by server
    incarnation and tenant.
    """
    cdef libd_transport *t = endpoint.open(f"rdma_shm transport {name!r}")
    cdef Memory memory
    cdef libd_error err
    cdef int code
    try:
        key = ((<char *>t.who.incarnation)[:16], t.who.tenant)
        memory = cache.get(key)
        if memory is None:
            memory = Memory.__new__(Memory)
            with nogil:
                code = libd_attach(t, &memory.memory, &err)
            if code:
                memory.memory = NULL
                raise_error(&err, f"rdma_shm transport {name!r} at {endpoint.url}: attaching the arena")
            memory = cache.add(key, memory)
    except BaseException:
        libd_destroy(t)
        raise
    libd_use_memory(t, memory.memory)
    return wrap(t, memory, name, element)


# ---- administration --------------------------------------------------------------------------------------------------

cdef class Admin:
    """The administrator's connection: plain requests; `libd.control` gives them names."""

    cdef libd_transport *t

    def __cinit__(self, Endpoint endpoint):
        self.t = endpoint.open("administration of the memory server")

    def __dealloc__(self):
        if self.t is not NULL:
            libd_destroy(self.t)

    def request(self, int op, bytes payload=b"", addr=0, epoch=0, size=0, int flags=0, str what=""):
        """Do one request; return ``(a, b, payload)`` of its reply."""
        cdef libd_call call
        cdef libd_error err
        cdef char room[512]
        cdef int code
        memset(&call, 0, sizeof(call))
        call.request.op = op
        call.request.flags = flags
        call.request.addr = as_u64(addr, "number")
        call.request.epoch = as_u64(epoch, "number")
        call.request.size = as_u64(size, "size")
        call.request.length = len(payload)
        call.payload = <const char *>payload
        call.payload_size = len(payload)
        call.reply_payload = room
        call.reply_room = sizeof(room)
        with nogil:
            code = libd_stream_call(self.t, &call, &err)
        if code:
            raise_error(&err, f"memory server: {what}")
        return call.reply.a, call.reply.b, room[:call.reply.length]

    @property
    def incarnation(self):
        """16 bytes that no other start of a server has."""
        return (<char *>self.t.who.incarnation)[:16]

    def close(self):
        """Close the connection."""
        with nogil:
            libd_shutdown(self.t)


cdef class Server:
    """The native memory server in this process: its own thread, which never takes the GIL."""

    cdef server *s
    cdef readonly int port

    def __init__(self, *, size, default_region, host, int port, path, token, admin_token):
        cdef server_options opts
        cdef libd_error err
        cdef int code
        cdef bytes host_b, path_b, token_b, admin_b
        if not 0 <= port <= 65535:
            raise errors.LibdError(f"memory server: {port} is no TCP port")
        for secret in (token, admin_token):
            if secret is not None and (len(secret.encode()) > LIBD_MAX_TOKEN or "\0" in secret):
                raise errors.AuthError("a token has at most 255 bytes and no NUL")
        for where in (host, path):
            if where is not None and "\0" in where:
                raise errors.LibdError(f"memory server: the address {where!r} holds a NUL")
        memset(&opts, 0, sizeof(opts))
        opts.size = as_u64(size, "size")
        opts.default_region = as_u64(default_region, "size")
        opts.port = port
        if host is not None:
            host_b = host.encode()
            opts.host = host_b
        if path is not None:
            path_b = path.encode()
            opts.path = path_b
        if token is not None:
            token_b = token.encode()
            opts.token = token_b
        if admin_token is not None:
            admin_b = admin_token.encode()
            opts.admin_token = admin_b
        with nogil:
            code = server_start(&opts, &self.s, &err)
        if code:
            self.s = NULL
            where = [f"{host}:{port}"] if host is not None else []
            where += [f"@{path}"] if path is not None else []
            raise_error(&err, f"memory server of {format_size(size)} at {' and '.join(where)}")
        self.port = server_port(self.s)

    def stop(self):
        """Stop the thread, close all connections, give the memory back. May be called twice."""
        cdef server *s = self.s
        self.s = NULL
        if s is not NULL:
            with nogil:
                server_stop(s)

    def __dealloc__(self):
        if self.s is not NULL:
            server_stop(self.s)
