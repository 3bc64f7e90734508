"""`Mover`: reads, writes, batches and atomic words of a transport."""

@cython.no_gc_clear  # the buffers of what is under way must outlive the connection
cdef class Mover:
    """The half of a transport that moves bytes: reads and writes, batches, atomic words, views."""

    cdef libd_transport *t
    cdef Memory memory
    cdef object arenas  # the cache that holds `memory`, too; None: there is none
    cdef readonly str name
    cdef readonly str type
    cdef readonly str element
    cdef Buffer buffer
    cdef set flights
    cdef Py_ssize_t flights_limit, lost_count
    cdef libd_error lost
    cdef object __weakref__

    def __cinit__(self):
        self.flights = set()
        self.flights_limit = 64

    def __init__(self):
        raise TypeError("transports are made by LibdAction.get_transport")

    def __dealloc__(self):
        if self.t is not NULL:
            libd_destroy(self.t)

    cdef fail(self, libd_error *err, what):
        # The memory of a server that is gone stays resident for as long as it is mapped anywhere.
        if self.arenas is not None and (err.code == LIBD_ECLOSED or (err.code == LIBD_ESTALE and err.have == 1)):
            self.arenas.sweep()
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
            buffer = share_with.buf if isinstance(share_with, Mover) else share_with
            if size > buffer.size:
                raise BoundsError(f"transport {self.name!r}: the shared buffer has {buffer.size} bytes, not {size}")
        self.buffer = buffer
        return buffer

    cdef void *local(self, void *data, Py_ssize_t have, uint64_t size, Py_ssize_t start, operation) except? NULL:
        if start < 0 or size > <uint64_t>have or <uint64_t>start > <uint64_t>have - size:
            raise BoundsError(
                f"transport {self.name!r}: {operation} of {size} bytes at offset {start} is outside of the local "
                f"buffer of {have} bytes; call trans.reg(size) first"
            )
        return <char *>data + start

    def read(self, size, addr=0, offset=0, *, out=None):
        """Read `size` bytes at `addr` of the memory element into ``buf[offset:offset + size]``.

        Parameters
        ----------
        size, addr
            Bytes, and where they are.
        offset
            Where they go in `buf`, or in `out`.
        out
            A writable contiguous buffer to read into instead of `buf`.
        """
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        cdef Buffer keep = self.buffer
        cdef Registration registration
        cdef Py_buffer view
        vec.size = as_u64(size, "size")
        vec.addr = as_u64(addr, "address")
        vec.local = NULL
        if out is None:
            vec.data = self.local(keep.data, keep.size, vec.size, offset, "read")
            if self.t.domain is not NULL:
                registration = keep.registered(self.t.domain)
                vec.local = local_of(registration)
            with nogil:
                code = libd_readv(self.t, &vec, 1, &err)
        else:
            acquire(out, &view, True)
            try:
                vec.data = self.local(view.buf, view.len, vec.size, offset, "read")
                if self.t.domain is not NULL:
                    registration = registration_for(self.t.domain, out, &view)
                    vec.local = local_of(registration)
                with nogil:
                    code = libd_readv(self.t, &vec, 1, &err)
            finally:
                PyBuffer_Release(&view)
        if code:
            self.fail_at(&err, "read", vec.addr, vec.size)

    def write(self, size, addr=0, offset=0):
        """Write ``buf[offset:offset + size]`` to `addr` of the memory element."""
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        cdef Buffer keep = self.buffer
        cdef Registration registration
        vec.size = as_u64(size, "size")
        vec.addr = as_u64(addr, "address")
        vec.data = self.local(keep.data, keep.size, vec.size, offset, "write")
        vec.local = NULL
        if self.t.domain is not NULL:
            registration = keep.registered(self.t.domain)
            vec.local = local_of(registration)
        with nogil:
            code = libd_writev(self.t, &vec, 1, &err)
        if code:
            self.fail_at(&err, "write", vec.addr, vec.size)

    # -- any buffer --

    def read_into(self, addr, out):
        """Read ``len(out)`` bytes at `addr` into `out`, any writable contiguous buffer; return how many."""
        cdef Py_buffer view
        cdef Registration registration = None
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        vec.addr = as_u64(addr, "address")
        acquire(out, &view, True)
        vec.data = view.buf
        vec.size = view.len
        vec.local = NULL
        if self.t.domain is not NULL:
            registration = registration_for(self.t.domain, out, &view)
            vec.local = local_of(registration)
        with nogil:
            code = libd_readv(self.t, &vec, 1, &err)
        PyBuffer_Release(&view)
        if code:
            self.fail_at(&err, "read", vec.addr, vec.size)
        return vec.size

    def write_from(self, addr, data):
        """Write `data`, any contiguous buffer, to `addr`; return the number of bytes."""
        cdef Py_buffer view
        cdef Registration registration = None
        cdef libd_vec vec
        cdef libd_error err
        cdef int code
        vec.addr = as_u64(addr, "address")
        acquire(data, &view, False)
        vec.data = view.buf
        vec.size = view.len
        vec.local = NULL
        if self.t.domain is not NULL:
            registration = registration_for(self.t.domain, data, &view)
            vec.local = local_of(registration)
        with nogil:
            code = libd_writev(self.t, &vec, 1, &err)
        PyBuffer_Release(&view)
        if code:
            self.fail_at(&err, "write", vec.addr, vec.size)
        return vec.size

    cdef vectored(self, segments, bint reading):
        cdef Flight f = flight(self.t.domain, segments, []) if reading else flight(self.t.domain, [], segments)
        cdef libd_error err
        cdef uint64_t total = f.total()
        cdef int code
        with nogil:
            if reading:
                code = libd_readv(self.t, f.batch.vec, f.batch.count, &err)
            else:
                code = libd_writev(self.t, f.batch.vec, f.batch.count, &err)
        if code:
            what = "vectored read" if reading else "vectored write"
            self.fail_at(&err, f"{what} of {f.batch.count} segments,", f.batch.vec[0].addr, total)
        return total

    def readv(self, segments):
        """Read all ``(addr, out)`` of `segments`, in one round trip per 2048 of them; return the number of bytes.

        Every segment of a round trip is checked before its first byte moves.
        """
        return self.vectored(segments, True)

    def writev(self, segments):
        """Write all ``(addr, data)`` of `segments`, in one round trip per 2048 of them; return the number of bytes."""
        return self.vectored(segments, False)

    # -- batches --

    def submit(self, reads=(), writes=()):
        """Start a batch of reads and writes, and return its `Completion` at once.

        Parameters
        ----------
        reads
            ``(addr, out)`` pairs.
        writes
            ``(addr, data)`` pairs.

        Returns
        -------
        Completion
            Poll it, wait for it, or await it. There is no order among the parts of a batch, nor among batches: what
            must come after something waits for it.

        Raises
        ------
        BoundsError, StaleRefError, TransportClosedError
            where that is known at once; everything else is raised by the completion.

        Notes
        -----
        Memory that can be mapped is copied here and now: such a batch is done when `submit` returns, which takes as long as the
        bytes do. An event loop that has others to see to asks for some MiB at a time.
        The first batch to a region asks the server for its epoch, and one after a lost connection connects: those wait.
        Nothing runs in the background: a batch is moved along by calls on the same transport from any thread (`poll`,
        `wait`, other reads and writes), or by the event loop while it is awaited.
        """
        cdef Flight f = flight(self.t.domain, reads, writes)
        cdef Completion completion
        cdef libd_error err
        cdef int code
        completion = Completion.__new__(Completion)
        completion.transport = self
        completion.flight = f
        completion.bytes = f.total()
        self.depart(f)
        with nogil:
            code = libd_submit(self.t, &f.batch, &err)
        if code:
            self.flights.discard(f)
            self.fail_at(&err, f"batch of {f.batch.count} parts,", f.batch.vec[0].addr, completion.bytes)
        if libd_batch_done(&f.batch):
            self.landed(f)
        return completion

    cdef int depart(self, Flight f) except -1:
        # Whoever drops completions without looking at them must not make this set grow for ever.
        if len(self.flights) >= self.flights_limit:
            with nogil:
                libd_poll(self.t)
            self.sweep()
            self.flights_limit = max(64, 2 * len(self.flights))
        self.flights.add(f)
        return 0

    cdef int sweep(self) except -1:
        for f in list(self.flights):
            if libd_batch_done(&(<Flight>f).batch):
                if (<Flight>f).dropped:
                    self.note_lost(<Flight>f)
                self.landed(<Flight>f)
        return 0

    cdef void note_lost(self, Flight f):
        # Writes that nobody will ask about: the next flush tells.
        if f.batch.err.code and f.batch.count > f.batch.reads:
            self.lost = f.batch.err
            self.lost_count += 1

    cdef int landed(self, Flight f) except -1:
        self.flights.discard(f)
        f.land()
        return 0

    # -- atomic words --

    def fetch_add(self, addr, delta=1):
        """Add `delta` to the 64-bit word at `addr`, modulo 2**64, and return what it was before.

        Parameters
        ----------
        addr
            A multiple of 8.
        delta
            Between -2**63 and 2**64 - 1.

        Raises
        ------
        UnsupportedError
            if words of that region change in another atomicity domain (`alloc`).
        LibdError
            if `addr` is not a multiple of 8.
        """
        return self.atomic(LIBD_FETCH_ADD, addr, as_word(delta), 0)

    def compare_swap(self, addr, expected, desired):
        """Set the 64-bit word at `addr` to `desired` if it is `expected`, and return what it was before.

        It was set if the result equals `expected`. Raises what `fetch_add` raises.
        """
        return self.atomic(LIBD_COMPARE_SWAP, addr, as_word(expected), as_word(desired))

    cdef atomic(self, libd_atomic_op op, addr, uint64_t a, uint64_t b):
        cdef libd_error err
        cdef uint64_t at = as_u64(addr, "address"), old
        cdef int code
        with nogil:
            code = libd_atomic(self.t, op, at, a, b, &old, &err)
        if code:
            self.fail_at(&err, "fetch_add" if op == LIBD_FETCH_ADD else "compare_swap", at, 8)
        return old

    # -- mapping --

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
        cdef bint writes = writable
        cdef int code
        cdef View view
        if self.t.ops.map is NULL:
            raise errors.UnsupportedError(
                f"{self.type} transport {self.name!r} cannot map: the memory is elsewhere; use read_into or submit"
            )
        with nogil:  # it may have to connect again
            code = libd_map(self.t, at, n, writes, &data, &err)
        if code:
            self.fail_at(&err, "map", at, n)
        view = View.__new__(View)
        view.owner = self.memory
        view.data = data
        view.size = n
        view.readonly = not writable
        return PyMemoryView_FromObject(view)
