"""Writing: rows to partitions, straight into one block."""

cdef class Scatter:
    """Rows into partitions: batches are added, measured, and written together into one block of memory.

    Parameters
    ----------
    kinds, widths
        Per column: one of the ``KIND_`` numbers, and bytes per value of fixed-width kinds.
    partitions
        1 to 65535.
    keys
        Columns to partition by; may be empty only if `partitions` is 1.
    boundaries
        None: by hash. Else a capsule (``arrow_array``) of ``partitions - 1`` sorted rows of the key columns, and
        `descending` and `nulls_first` say in which order they stand.
    """

    cdef int n_columns, n_keys, n_batches, room
    cdef int64_t partitions, total, room_rows, seen
    cdef scad_type *types
    cdef scad_type *key_types
    cdef int *keys
    cdef int64_t *lengths
    cdef scad_piece *pieces
    cdef uint16_t *pid
    cdef int64_t *rows      # [partition]
    cdef int64_t *starts    # [partition + 1], in the block
    cdef scad_cell *cells   # [column][partition]
    cdef scad_sketch *sketches
    cdef int64_t *sampled   # [column]
    cdef scad_ranges ranges
    cdef scad_piece *range_keys
    cdef uint8_t *range_flags
    cdef int64_t *ranks
    cdef list held
    cdef object boundaries

    def __cinit__(self, kinds, widths, int64_t partitions, keys=(), boundaries=None, descending=(), nulls_first=()):
        cdef int k
        if not 1 <= partitions <= 65535:
            raise ValueError(f"partitions must be 1 to 65535, not {partitions}")
        if partitions > 1 and not len(keys):
            raise ValueError("several partitions need keys")
        self.n_columns, self.n_keys, self.partitions = len(kinds), len(keys), partitions
        self.types = _types(kinds, widths)
        self.keys = <int *>_alloc(self.n_keys, sizeof(int))
        self.key_types = <scad_type *>_alloc(self.n_keys, sizeof(scad_type))
        for k in range(self.n_keys):
            if not 0 <= keys[k] < self.n_columns:
                raise IndexError(f"key {keys[k]} of {self.n_columns} columns")
            self.keys[k] = keys[k]
            self.key_types[k] = self.types[self.keys[k]]
        self.rows = <int64_t *>_alloc(partitions, sizeof(int64_t))
        self.starts = <int64_t *>_alloc(partitions + 1, sizeof(int64_t))
        self.cells = <scad_cell *>_alloc(self.n_columns * partitions, sizeof(scad_cell))
        self.sketches = <scad_sketch *>_alloc(self.n_columns, sizeof(scad_sketch))
        self.sampled = <int64_t *>_alloc(self.n_columns, sizeof(int64_t))
        if boundaries is not None:
            self._bound(boundaries, descending, nulls_first)
        self.clear()

    def _bound(self, boundaries, descending, nulls_first):
        cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(boundaries, "arrow_array")
        cdef int k
        cdef int64_t i
        if array.length != self.partitions - 1 or not len(descending) == len(nulls_first) == self.n_keys:
            raise ValueError(f"{self.partitions} ranges of {self.n_keys} keys have one boundary less, and flags for each key")
        self.boundaries = boundaries
        self.range_keys = <scad_piece *>_alloc(self.n_keys, sizeof(scad_piece))
        self.range_flags = <uint8_t *>_alloc(2 * self.n_keys, 1)
        self.ranks = <int64_t *>_alloc(array.length, sizeof(int64_t))
        _pieces(array, self.key_types, self.n_keys, self.range_keys)
        for k in range(self.n_keys):
            self.range_flags[k], self.range_flags[self.n_keys + k] = bool(descending[k]), bool(nulls_first[k])
        self.ranges.count = array.length
        self.ranges.keys = self.range_keys
        self.ranges.descending, self.ranges.nulls_first = self.range_flags, self.range_flags + self.n_keys
        self.ranges.ranks = self.ranks
        for i in range(array.length):
            self.ranks[i] = scad_rank(self.key_types, self.range_keys, i, self.range_flags[0], self.range_flags[self.n_keys])
            if i and self.ranks[i] < self.ranks[i - 1]:
                raise ValueError(f"boundary {i} stands before boundary {i - 1}")

    def __dealloc__(self):
        free(self.types)
        free(self.key_types)
        free(self.keys)
        free(self.lengths)
        free(self.pieces)
        free(self.pid)
        free(self.rows)
        free(self.starts)
        free(self.cells)
        free(self.sketches)
        free(self.sampled)
        free(self.range_keys)
        free(self.range_flags)
        free(self.ranks)

    def clear(self):
        """Forget the batches, and keep the sketches."""
        cdef int64_t i
        self.n_batches = 0
        self.total = 0
        self.held = []
        memset(self.rows, 0, <size_t>self.partitions * sizeof(int64_t))
        memset(self.cells, 0, <size_t>(self.n_columns * self.partitions) * sizeof(scad_cell))
        for i in range(self.n_columns * self.partitions):
            self.cells[i].least, self.cells[i].most = INT64_MAX, INT64_MIN

    def add(self, capsule):
        """Add a batch (a capsule ``arrow_array`` of a struct), which is held until `clear`. Sizes its parts."""
        cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
        cdef int64_t n = array.length, p
        cdef int c, k
        cdef scad_piece *pieces
        cdef uint16_t *pid = NULL
        cdef const scad_piece **keys = NULL
        if not n:
            return
        if self.n_batches == self.room:
            self.pieces = <scad_piece *>_grown(self.pieces, <size_t>(2 * self.room + 1) * self.n_columns * sizeof(scad_piece))
            self.lengths = <int64_t *>_grown(self.lengths, <size_t>(2 * self.room + 1) * sizeof(int64_t))
            self.room = 2 * self.room + 1
        pieces = self.pieces + <int64_t>self.n_batches * self.n_columns
        _pieces(array, self.types, self.n_columns, pieces)
        if self.partitions > 1:
            if self.total + n > self.room_rows:
                p = max(self.total + n, self.room_rows + self.room_rows // 2)
                self.pid = <uint16_t *>_grown(self.pid, <size_t>p * sizeof(uint16_t))
                self.room_rows = p
            pid = self.pid + self.total
            keys = <const scad_piece **>_alloc(self.n_keys, sizeof(void *))
            for k in range(self.n_keys):
                keys[k] = &pieces[self.keys[k]]
        with nogil:
            if pid == NULL:
                self.rows[0] += n
            elif self.ranks == NULL:
                scad_assign_hash(self.key_types, keys, self.n_keys, n, self.partitions, pid, self.rows)
            else:
                scad_assign_ranges(self.key_types, keys, self.n_keys, n, self.partitions, &self.ranges, pid,
                                   self.rows)
            for c in range(self.n_columns):
                if not scad_measure(&self.types[c], &pieces[c], n, pid, self.cells + c * self.partitions):
                    pieces[c].validity = NULL
        free(keys)
        self.held.append(capsule)
        self.lengths[self.n_batches] = n
        self.n_batches += 1
        self.total += n

    @property
    def staged(self):
        """Rows that were added."""
        return self.total

    def size(self):
        """Bytes of the block that `write` fills."""
        cdef int64_t p, at = 0
        cdef int c
        cdef scad_cell *cell
        cdef scad_place place
        for c in range(self.n_columns):
            if self.types[c].kind == C_NULL:
                for p in range(self.partitions):
                    self.cells[c * self.partitions + p].nulls = self.rows[p]
        for p in range(self.partitions):
            self.starts[p] = at
            for c in range(self.n_columns):
                cell = &self.cells[c * self.partitions + p]
                at = c_place(&self.types[c], self.rows[p], cell.nulls, cell.bytes, at, &place)
        self.starts[self.partitions] = at
        return at

    def widest(self):
        """The column of 32-bit offsets whose strings are longest in one partition, and their bytes; (-1, 0) if none."""
        cdef int c, column = -1
        cdef int64_t p, most = 0
        for c in range(self.n_columns):
            if self.types[c].kind == C_VAR32:
                for p in range(self.partitions):
                    if self.cells[c * self.partitions + p].bytes > most:
                        column, most = c, self.cells[c * self.partitions + p].bytes
        return column, most

    def write(self, block, bint stream):
        """Scatter all rows into `block`, a writable buffer of at least `size()` bytes; `stream` bypasses the caches."""
        cdef Py_buffer view
        cdef int64_t p, at
        cdef int c
        cdef int64_t size = self.size()
        cdef scad_cell *cell
        cdef scad_place place
        cdef uint8_t *base
        cdef int64_t *done = NULL
        cdef uint16_t *order = NULL
        cdef uint32_t *starts = NULL
        PyObject_GetBuffer(block, &view, PyBUF_WRITABLE)
        try:
            if view.len < size:
                raise ValueError(f"{size} bytes are needed, {view.len} given")
            base = <uint8_t *>view.buf
            for p in range(self.partitions):
                at = self.starts[p]
                for c in range(self.n_columns):
                    cell = &self.cells[c * self.partitions + p]
                    at = c_place(&self.types[c], self.rows[p], cell.nulls, cell.bytes, at, &place)
                    cell.validity = base + place.validity if place.validity_size else NULL
                    cell.offsets = base + place.offsets
                    cell.data = base + place.data
                    cell.used = 0
            done = <int64_t *>_alloc(self.partitions, sizeof(int64_t))
            order = <uint16_t *>_alloc(scad_block_rows(self.partitions), sizeof(uint16_t))
            starts = <uint32_t *>_alloc(5 * self.partitions + 1, sizeof(uint32_t))
            with nogil:
                self._write(done, order, starts, stream)
        finally:
            PyBuffer_Release(&view)
            free(done)
            free(order)
            free(starts)

    cdef void _write(self, int64_t *done, uint16_t *order, uint32_t *starts, bint stream) noexcept nogil:
        cdef int64_t most = scad_block_rows(self.partitions), row = 0, at, n, p
        cdef int b, c
        cdef bint several = self.partitions > 1
        cdef const scad_piece *pieces
        cdef scad_ahead ahead
        for b in range(self.n_batches):
            pieces = self.pieces + <int64_t>b * self.n_columns
            at = 0
            while at < self.lengths[b]:
                n = min(most, self.lengths[b] - at)
                if several:
                    scad_sort_block(self.pid + row, <int>n, self.partitions, order, starts)
                for c in range(self.n_columns):
                    self._look_ahead(&ahead, pieces, b, c, at, n)
                    scad_put(&self.types[c], &pieces[c], at, <int>n, self.partitions, order if several else NULL, starts,
                             done, self.cells + c * self.partitions, stream, &ahead)
                    self.sampled[c] += c_sketch(&self.types[c], &pieces[c], at, <int>n, self.seen < SKETCH_ALL,
                                                &self.sketches[c])
                self.seen += n
                if several:
                    for p in range(self.partitions):
                        done[p] += starts[p + 1] - starts[p]
                else:
                    done[0] += n
                at += n
                row += n
        scad_fence()

    cdef void _look_ahead(self, scad_ahead *ahead, const scad_piece *pieces, int b, int c, int64_t at,
                          int64_t n) noexcept nogil:
        """The next column of this block, or the first one of the next."""
        ahead.data = NULL
        if c + 1 < self.n_columns:
            c += 1
        elif at + 2 * n <= self.lengths[b]:
            c = 0
            at += n
        else:
            return
        if self.types[c].width:
            ahead.width = self.types[c].width
            ahead.data = pieces[c].data + (pieces[c].offset + at) * ahead.width

    def parts(self):
        """Per partition, after `write`: offset in the block, bytes, rows, nulls and string bytes per column, and least
        and greatest values per column (as ordered integers; None where there are none).
        """
        cdef int64_t p
        cdef int c
        cdef scad_cell *cell
        found = []
        for p in range(self.partitions):
            nulls, strings, least, most = [], [], [], []
            for c in range(self.n_columns):
                cell = &self.cells[c * self.partitions + p]
                nulls.append(cell.nulls)
                if scad_is_variable(self.types[c].kind):
                    strings.append(cell.bytes)
                known = cell.least <= cell.most
                least.append(cell.least if known else None)
                most.append(cell.most if known else None)
            found.append((self.starts[p], self.starts[p + 1] - self.starts[p], self.rows[p], nulls, strings, least, most))
        return found

    def distinct(self):
        """Per column the registers of its sketch, and how many rows entered it."""
        cdef int c
        return [((<const uint8_t *>self.sketches[c].registers)[:SCAD_REGISTERS], self.sampled[c])
                for c in range(self.n_columns)]
