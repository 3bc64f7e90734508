"""The administrator's connection, and the memory server in this process."""

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
        cdef bytearray room = bytearray(1 << 16)  # as much as a page of a list has
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
        call.reply_payload = <char *>room
        call.reply_room = len(room)
        with nogil:
            code = libd_stream_call(self.t, &call, &err)
        if code:
            raise_error(&err, f"memory server: {what}")
        return call.reply.a, call.reply.b, bytes(memoryview(room)[:call.reply.length])

    @property
    def connection(self):
        """How often this has connected."""
        return libd_stream_connections(self.t)

    @property
    def rdma(self):
        """Whether the server has an RDMA device."""
        return bool(self.t.who.features & LIBD_FEATURE_VERBS)

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

    def __init__(self, *, size, default_region, host, int port, path, token, admin_token, rdma=None, double keep_warm):
        cdef server_options opts
        cdef libd_error err
        cdef int code
        cdef bytes host_b, path_b, token_b, admin_b, device_b
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
        opts.keep_warm = keep_warm
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
        if rdma is not None:
            device_b = b"" if rdma in ("any", "auto") else rdma.encode()
            opts.device = device_b
            opts.device_optional = rdma == "auto"
        with nogil:
            code = server_start(&opts, &self.s, &err)
        if code:
            self.s = NULL
            where = [f"{host}:{port}"] if host is not None else []
            where += [f"@{path}"] if path is not None else []
            where += [f"RDMA device {rdma}"] if rdma not in (None, "auto") else []
            raise_error(&err, f"memory server of {format_size(size)} at {' and '.join(where)}")
        self.port = server_port(self.s)

    def drain(self, double seconds):
        """Take no more connections and requests, let those that have begun end for `seconds`, and end. Does not wait."""
        if self.s is not NULL:
            server_drain(self.s, <uint64_t>(seconds * 1000))

    def over(self, double seconds):
        """Whether the thread has ended, waiting for that for `seconds`."""
        cdef bint ended = True
        if self.s is not NULL:
            with nogil:
                ended = server_over(self.s, seconds)
        return bool(ended)

    @property
    def rdma_device(self):
        """Name of the RDMA device that it serves, or None."""
        cdef const char *name = server_device(self.s) if self.s is not NULL else NULL
        return None if name is NULL else (<bytes>name).decode()

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
