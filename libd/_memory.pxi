"""Mappings, views of them, local buffers; buffers of callers."""

cdef class Memory:
    """A mapping of this process; unmapped when the last transport and view of it are gone."""

    cdef libd_memory *memory
    cdef object __weakref__

    def __init__(self):
        raise TypeError("mappings are made by transports")

    def __dealloc__(self):
        if self.memory is not NULL:
            with nogil:  # the pages of a large one take their time
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
    cdef libd_domain *domain
    cdef Registration registration
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
            with nogil:
                munmap(self.data, self.size)

    cdef Registration registered(self, libd_domain *domain):
        """The registration with a device, from the first use on; None if the device takes no more."""
        cdef Registration made
        if self.registration is None:
            if not self.size:
                return None
            made = register(domain, self.data, self.size)
            if made is None:
                return None
            # Another thread may have come first, and transfer by its registration already: that one stays.
            if self.registration is None:
                self.registration = made
                self.domain = domain
        if self.domain is domain:
            return self.registration
        return registration_of(domain, self, self.data, self.size)

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
        "atomics", "bytes_mapped", "bytes_mapped_writable", "bytes_read", "bytes_written",
        "maps", "reads", "writes",
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
