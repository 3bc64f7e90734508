"""Buffers of callers, and batches of reads and writes that are under way."""

cdef class Mover


cdef object item_size(typestr):
    """Bytes of one item: of `U` each is four, and a unit of time follows the number."""
    kind, number = typestr[1], typestr[2:].partition("[")[0]
    if kind == "O" or not number.isdecimal():
        raise BufferError(f"items of type {typestr!r} are no plain memory")
    return int(number) * (4 if kind == "U" else 1)


cdef bint objects_in(descr):
    """Whether a list of fields, as in ``__array_interface__``, has objects among them."""
    return any(
        objects_in(field[1]) if isinstance(field[1], list) else field[1][1:2] == "O" for field in descr
    )


cdef bint has_objects(const char *format):
    """Whether items of a format (PEP 3118) are or have objects; names of fields stand between colons."""
    cdef bint name = False
    while format[0]:
        if format[0] == b":":
            name = not name
        elif format[0] == b"O" and not name:
            return True
        format += 1
    return False


cdef bint packed(size, shape, strides):
    """Whether extents, the innermost first, lie one behind the other."""
    for extent, stride in zip(shape, strides):
        if stride != size and extent > 1:
            return False
        size *= extent
    return True


cdef object array_interface(obj, Py_buffer *view, bint writable):
    """Fill `view` from ``__array_interface__``: for objects that have memory but no buffer protocol."""
    about = getattr(obj, "__array_interface__", None)
    if about is None:
        raise TypeError(f"{type(obj).__name__} has neither the buffer protocol nor __array_interface__")
    address, readonly = about["data"]
    shape, strides = tuple(about["shape"]), about.get("strides")
    if any(extent < 0 for extent in shape):
        raise BufferError(f"{type(obj).__name__} has a negative extent")
    item = item_size(about["typestr"])
    if objects_in(about.get("descr") or ()):
        raise BufferError(f"items of {type(obj).__name__} have objects in them and are no plain memory")
    size = item * prod(shape)
    # In the order of C or of Fortran.
    if size and strides and not (packed(item, shape[::-1], strides[::-1]) or packed(item, shape, strides)):
        raise BufferError(f"{type(obj).__name__} is not contiguous")
    if readonly and writable:
        raise BufferError(f"{type(obj).__name__} is read-only")
    if size and not address:
        raise BufferError(f"{type(obj).__name__} has no address")
    PyBuffer_FillInfo(view, obj, <void *><size_t>address, size, readonly, PyBUF_CONTIG_RO)


cdef int acquire_formless(obj, Py_buffer *view, int flags) except -1:
    """Get memory of which no format can be told, as NumPy can of no dates: its dtype says what is in it."""
    PyObject_GetBuffer(obj, view, flags)  # or it was something else that was wrong
    if getattr(getattr(obj, "dtype", None), "hasobject", True):
        PyBuffer_Release(view)
        raise BufferError(f"items of {type(obj).__name__} have objects in them, or who knows what: no plain memory")
    return 0


cdef inline int acquire(obj, Py_buffer *view, bint writable) except -1:
    """Get the contiguous memory of `obj`; whoever acquired it calls `PyBuffer_Release`.

    Arrays in Fortran's order are contiguous, too: what is moved are the bytes as they lie there. Of objects those are
    pointers, which mean nothing elsewhere; and Python would follow whatever is read over them.
    """
    cdef int flags = PyBUF_ANY_CONTIGUOUS | (PyBUF_WRITABLE if writable else 0)
    if not PyObject_CheckBuffer(obj):
        array_interface(obj, view, writable)
        return 0
    try:
        PyObject_GetBuffer(obj, view, flags | PyBUF_FORMAT)
    except ValueError:
        return acquire_formless(obj, view, flags)
    if view.format is not NULL and has_objects(view.format):
        PyBuffer_Release(view)
        raise BufferError(f"items of {type(obj).__name__} are objects, or have some, and are no plain memory")
    return 0


cdef Registration registration_for(libd_domain *domain, obj, Py_buffer *view):
    """The registration of a caller's buffer; None: it is copied, or registered for one operation."""
    if type(obj) is memoryview:
        obj = obj.obj
    if type(obj) is Buffer:
        return (<Buffer>obj).registered(domain)
    if <uint64_t>view.len < REGISTER_FROM:
        return None
    return registration_of(domain, obj, view.buf, view.len)


@cython.final
cdef class Flight:
    """A batch and the buffers that it moves to and from, held until it is done."""

    cdef Py_buffer *views
    cdef libd_batch batch
    cdef Py_ssize_t held
    cdef bint seen, dropped  # how it ended was told to somebody; nobody will ask
    cdef list registered

    def __init__(self):
        raise TypeError("made by Transport.submit")

    cdef int board(self, libd_domain *domain, list reads, list writes) except -1:
        cdef Registration registration
        cdef Py_ssize_t n = len(reads) + len(writes)
        cdef bint writable = True
        self.batch.reads = len(reads)
        if domain is not NULL:
            self.registered = []
        # One at least: messages about an empty batch look at the first.
        self.views = <Py_buffer *>PyMem_Calloc(max(n, 1), sizeof(Py_buffer))
        self.batch.vec = <libd_vec *>PyMem_Calloc(max(n, 1), sizeof(libd_vec))
        if self.views is NULL or self.batch.vec is NULL:
            raise MemoryError
        for segments in (reads, writes):
            for addr, data in segments:
                self.batch.vec[self.held].addr = as_u64(addr, "address")
                acquire(data, &self.views[self.held], writable)
                self.batch.vec[self.held].data = self.views[self.held].buf
                self.batch.vec[self.held].size = self.views[self.held].len
                self.batch.vec[self.held].local = NULL
                self.held += 1
                if domain is not NULL:
                    registration = registration_for(domain, data, &self.views[self.held - 1])
                    if registration is not None:
                        self.batch.vec[self.held - 1].local = registration.local
                        self.registered.append(registration)
            writable = False
        self.batch.count = n
        return 0

    cdef uint64_t total(self):
        cdef uint64_t sum = 0
        cdef Py_ssize_t i
        for i in range(self.held):
            sum += self.batch.vec[i].size
        return sum

    cdef void land(self):
        """Let go of the buffers."""
        cdef Py_ssize_t i, held = self.held
        self.held = 0
        for i in range(held):
            PyBuffer_Release(&self.views[i])
        self.registered = None

    def __dealloc__(self):
        cdef Py_ssize_t i
        for i in range(self.held):
            PyBuffer_Release(&self.views[i])
        PyMem_Free(self.views)
        PyMem_Free(self.batch.vec)


cdef Flight flight(libd_domain *domain, reads, writes):
    cdef Flight made = Flight.__new__(Flight)
    # Lists of their own: buffers are asked for by code that could make the caller's longer meanwhile.
    made.board(domain, list(reads), list(writes))
    return made


@cython.final
cdef class Completion:
    """A batch that was submitted: poll it, wait for it, or await it.

    Its parts are done in any order. The buffers that it reads into have their contents, and those that it writes from may be
    changed, once it is done. A completion may be dropped: the batch goes on, and `Transport.flush`
    waits for it, and says if its writes failed.
    """

    cdef Mover transport
    cdef Flight flight
    cdef readonly object bytes
    """Bytes that the batch moves."""

    def __init__(self):
        raise TypeError("completions are made by Transport.submit")

    def __dealloc__(self):
        if self.flight is not None and self.transport is not None and not self.flight.seen:
            self.flight.dropped = True
            if libd_batch_done(&self.flight.batch):
                self.transport.note_lost(self.flight)

    @property
    def done(self):
        """Whether the batch has ended, well or not. Does not move anything along; `poll` does."""
        return libd_batch_done(&self.flight.batch)

    def poll(self):
        """Move things along without waiting; return whether the batch has ended.

        Over TCP what has arrived is moved, and what the connection takes, but no more than some MiB at a time.
        """
        cdef libd_error err
        cdef int code
        if not libd_batch_done(&self.flight.batch):
            with nogil:
                code = libd_wait(self.transport.t, &self.flight.batch, 0, &err)
            if code == LIBD_ESIGNAL:
                reraise()
            if not libd_batch_done(&self.flight.batch):
                if code and code != LIBD_ETIMEOUT:
                    self.transport.fail(&err, "batch under way")
                return False
        self.transport.landed(self.flight)
        return True

    def wait(self, timeout=None):
        """Wait for the batch to end; return the number of bytes that it moved.

        Parameters
        ----------
        timeout
            Seconds to wait at most; None for as long as it takes.

        Raises
        ------
        TransportTimeoutError
            if `timeout` has passed; the batch goes on.
        LibdError
            whatever the same reads and writes would have raised; the contents of buffers that were read into are undefined.
        """
        cdef libd_error err
        cdef double seconds = -1 if timeout is None else max(<double>timeout, 0.0)
        cdef int code
        with nogil:
            code = libd_wait(self.transport.t, &self.flight.batch, seconds, &err)
        if libd_batch_done(&self.flight.batch):
            self.flight.seen = True
            self.transport.landed(self.flight)
        elif code == LIBD_ETIMEOUT:
            raise errors.TransportTimeoutError(f"{self!r} is not done after {timeout} s; it goes on")
        if code:
            self.transport.fail(
                &err, f"batch of {self.flight.batch.reads} reads and "
                f"{self.flight.batch.count - self.flight.batch.reads} writes, {self.bytes} bytes"
            )
        return self.bytes

    def __await__(self):
        if not self.poll():
            from libd.aio import landing  # asyncio is for those who use it

            yield from landing(self, libd_fd(self.transport.t)).__await__()
        return self.wait()

    def __repr__(self):
        state = "done" if self.done else "under way"
        return f"<libd.Completion of {self.flight.batch.count} parts, {self.bytes} bytes, {state}>"
