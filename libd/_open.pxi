"""Opening transports: where a memory server is, and what to show it."""

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
    cdef readonly double timeout, stall
    cdef readonly int stripes

    def __init__(self, *, str host="", str port="", str path="", int kind=LIBD_KIND_DEFAULT, str token="",
                 tenant=0, eid=0, bytes key=b"", double timeout=5.0, double stall=60.0, int stripes=1):
        self.host = host.encode()
        self.port = port.encode()
        self.path = path.encode()
        self.kind = kind
        self.token = token.encode()
        self.tenant = tenant
        self.eid = eid
        self.key = key.ljust(LIBD_KEY_BYTES, b"\0")
        self.timeout = timeout
        self.stall = stall
        self.stripes = stripes
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

    cdef libd_transport *open(self, what, bytes device=None, Memory attached=None) except NULL:
        """Connect; through an RDMA device, or with `attached`, which holds the tenant's arena then."""
        cdef libd_memory *memory = NULL
        cdef bint attach = attached is not None
        cdef libd_address address
        cdef libd_transport *t
        cdef libd_error err
        cdef const char *name = NULL
        cdef int code
        if device is not None:
            name = <const char *>device
        memset(&address, 0, sizeof(address))
        address.host = <const char *>self.host if self.host else NULL
        address.port = <const char *>self.port if self.port else NULL
        address.path = <const char *>self.path if self.path else NULL
        address.kind = self.kind
        address.token = self.token
        address.tenant = self.tenant
        address.element = self.eid
        memcpy(address.key, <const char *>self.key, LIBD_KEY_BYTES)
        address.timeout = self.timeout
        address.stall = self.stall
        address.stripes = self.stripes
        with nogil:
            if attach:
                code = libd_open_attached(&address, &memory, &t, &err)
            elif name is NULL:
                code = libd_open_stream(&address, &t, &err)
            else:
                code = libd_open_verbs(&address, name, &t, &err)
        if code:
            raise_error(&err, f"{what} at {self.url}")
        if attach:
            attached.memory = memory
        return t


def open_tcp(str name, Endpoint endpoint, str element=""):
    """Connect to a memory element over TCP."""
    return wrap(endpoint.open(f"rdma_tcp transport {name!r}"), None, name, element)


def open_verbs(str name, Endpoint endpoint, str device=None, str element=""):
    """Connect to a memory element over TCP, and then through an RDMA device.

    `device` is ``NAME[:PORT[:GID INDEX]]``; None: the first that has an active port.
    """
    what = f"rdma_uverbs transport {name!r}" + (f" (device {device})" if device else "")
    return wrap(endpoint.open(what, (device or "").encode()), None, name, element)


def open_shm(str name, Endpoint endpoint, cache, str element=""):
    """Connect to a memory element on this host and map its tenant's arena.

    `cache` holds attached arenas by server incarnation and tenant: ``get(key)``, ``add(key, memory) -> memory``,
    ``holds(tenant)``, whether there is one of that tenant, of whichever server, and ``sweep()``, which forgets those of servers
    that are gone. Where there is none the arena comes with the connection.
    """
    what = f"rdma_shm transport {name!r}"
    cdef Memory attached = None if cache.holds(endpoint.tenant) else Memory.__new__(Memory)
    cdef Memory memory
    cdef Transport transport
    cdef libd_transport *t = endpoint.open(what, None, attached)
    cdef libd_error err
    cdef int code
    try:
        key = ((<char *>t.who.incarnation)[:16], t.who.tenant)
        memory = cache.get(key) if attached is None else None
        if memory is None:
            if attached is None:
                attached = Memory.__new__(Memory)
                with nogil:
                    code = libd_attach(t, &attached.memory, &err)
                if code:
                    attached.memory = NULL
                    raise_error(&err, f"{what} at {endpoint.url}: attaching the arena")
            memory = cache.add(key, attached)
    except BaseException:
        libd_destroy(t)
        raise
    libd_use_memory(t, memory.memory)
    transport = wrap(t, memory, name, element)
    transport.arenas = cache
    return transport
