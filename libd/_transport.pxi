"""`Transport`: a connection to one memory element. What moves its bytes is in `_moving.pxi`."""

@cython.no_gc_clear
cdef class Transport(Mover):
    """A connection to one memory element. Thread-safe; whatever moves bytes or waits releases the GIL.

    Made by `LibdAction.get_transport`, not by hand. Addresses are ``region << 40 | offset``.
    """

    # -- regions --

    def alloc(self, size, align=64, *, lease=None, atomics="cpu"):
        """Allocate a region of `size` bytes and return its address. The contents are undefined.

        In a fixed element the region is a window carved out of region 0 (address 0 … size), so use either flat addresses
        or regions; in an elastic element it is fresh bytes, charged to the element until they are freed.

        Parameters
        ----------
        size, align
            Bytes; `align` is a power of two.
        lease
            Seconds for which the region survives the connection that allocated it: if this process vanishes, its memory
            comes back. None keeps it until it is freed. See `renew`. A connection that is lost is made again, and the lease
            taken up, when the transport is used next: let it be longer than you are idle.
        atomics
            Who changes the region's 64-bit words atomically: ``"cpu"`` (local, shm and tcp transports, and RDMA
            transports by way of the server) or ``"nic"`` (RDMA transports, without the server's CPU).

        Raises
        ------
        CapacityError
            if the element, the tenant, the server or the machine has no room; nothing was reserved then.
        UnsupportedError
            if the memory server has no RDMA device for ``atomics="nic"``, or the element is not elastic.
        """
        cdef libd_error err
        cdef libd_wanted wanted
        cdef uint64_t addr
        cdef int code
        if atomics not in ("cpu", "nic"):
            raise errors.LibdError(f"atomics is 'cpu' or 'nic', not {atomics!r}")
        wanted.size = as_u64(size, "size")
        wanted.align = as_u64(align, "alignment")
        wanted.lease_ms = as_lease(lease)
        wanted.flags = LIBD_ALLOC_NIC if atomics == "nic" else 0
        with nogil:
            code = libd_alloc(self.t, &wanted, &addr, &err)
        if code:
            self.fail(&err, f"alloc of {wanted.size} bytes aligned to {wanted.align}")
        return addr

    def renew(self, addr, lease=None):
        """Hold a region by a lease of this connection, or (`lease` None) keep it until it is freed.

        The lease of a connection that lives does not run out; after its end the region stays for `lease` seconds, in which
        another connection may renew it.
        """
        cdef libd_error err
        cdef uint64_t at = as_u64(addr, "address"), ms = as_lease(lease)
        cdef int code
        with nogil:
            code = libd_renew(self.t, at, ms, &err)
        if code:
            self.fail_at(&err, "renew", at, 0)

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
        """Return once everything written before is visible to every other reader of the element.

        Raises
        ------
        LibdError
            if writes of batches failed whose completions were dropped since the last flush: what the last of them raised.
        """
        cdef libd_error err
        cdef int code
        with nogil:
            code = libd_flush(self.t, &err)
        self.sweep()
        if code:
            self.fail(&err, "flush")
        if self.lost_count:
            count, self.lost_count = self.lost_count, 0
            self.fail(&self.lost, f"flush: {count} batches of writes that nobody waited for have failed, the last of them")

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
            "free": s.free,
            "free_blocks": s.free_blocks,
            "largest_free": s.largest_free,
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
            atomics=self.t.counters.atomics,
            bytes_read=self.t.counters.bytes_read,
            bytes_written=self.t.counters.bytes_written,
            bytes_mapped=self.t.counters.bytes_mapped,
            bytes_mapped_writable=self.t.counters.bytes_mapped_writable,
        )

    @property
    def registrations(self):
        """`Registrations`: what was registered with this transport's device; None if it has none."""
        cdef libd_local_counts c
        if self.t.domain is NULL:
            return None
        libd_local_counts_of(self.t, &c)
        return Registrations(
            live=c.live, bytes=c.bytes, made=c.made, used=c.used, passing=c.passing, staged=c.staged
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
