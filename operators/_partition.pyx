# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The native half of `operators.partition`: the scatter, and the layout of what it writes.

Batches come and go through the Arrow C data interface: no Python object is made per column or buffer. What is
expensive runs without the GIL, in C (``operators/csrc``).
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cdef extern from "columns.h" nogil:
    int C_NULL "KIND_NULL"
    int C_BOOL "KIND_BOOL"
    int C_SIGNED "KIND_SIGNED"
    int C_UNSIGNED "KIND_UNSIGNED"
    int C_FLOAT "KIND_FLOAT"
    int C_BYTES "KIND_BYTES"
    int C_VAR32 "KIND_VAR32"
    int C_VAR64 "KIND_VAR64"
    struct scad_type:
        int kind
        int width
    struct scad_piece:
        const uint8_t *validity
        const uint8_t *offsets
        const uint8_t *data
        int64_t offset
        int64_t size
    bint scad_is_variable(int kind)

cdef extern from "layout.h" nogil:
    struct scad_place:
        int64_t validity, offsets, data
        int64_t validity_size, offsets_size, data_size
    int64_t scad_align(int64_t n)
    int64_t c_place "scad_place"(const scad_type *, int64_t, int64_t, int64_t, int64_t, scad_place *)
    struct ArrowArray:
        int64_t length, null_count, offset, n_buffers, n_children
        const void **buffers
        ArrowArray **children
        ArrowArray *dictionary
        void (*release)(ArrowArray *) noexcept nogil
        void *private_data

cdef extern from *:
    """
    static inline int scad_drop(int *count) { return __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL); }
    """
    int scad_drop(int *count) nogil

cdef extern from "scatter.h" nogil:
    int SCAD_REGISTERS
    struct scad_cell:
        uint8_t *validity
        uint8_t *offsets
        uint8_t *data
        int64_t nulls, bytes, used, least, most
    struct scad_sketch:
        uint8_t registers[128]
    struct scad_ranges:
        int64_t count
        const scad_piece *keys
        const uint8_t *descending
        const uint8_t *nulls_first
        const int64_t *ranks
    struct scad_ahead:
        const uint8_t *data
        int width
    int64_t scad_block_rows(int64_t partitions)
    void scad_assign_hash(const scad_type *, const scad_piece *const *, int, int64_t, int64_t, uint16_t *, int64_t *)
    void scad_assign_ranges(const scad_type *, const scad_piece *const *, int, int64_t, const scad_ranges *, uint16_t *,
                            int64_t *)
    int64_t scad_rank(const scad_type *, const scad_piece *, int64_t, bint, bint)
    int64_t scad_measure(const scad_type *, const scad_piece *, int64_t, const uint16_t *, scad_cell *)
    void scad_sort_block(const uint16_t *, int, int64_t, uint16_t *, uint32_t *)
    void scad_put(const scad_type *, const scad_piece *, int64_t, int, int64_t, const uint16_t *, const uint32_t *,
                  const int64_t *, scad_cell *, bint, const scad_ahead *)
    int64_t c_sketch "scad_sketch"(const scad_type *, const scad_piece *, int64_t, int, bint, scad_sketch *)
    void scad_fence()

KIND_NULL, KIND_BOOL, KIND_SIGNED, KIND_UNSIGNED = C_NULL, C_BOOL, C_SIGNED, C_UNSIGNED
KIND_FLOAT, KIND_BYTES, KIND_VAR32, KIND_VAR64 = C_FLOAT, C_BYTES, C_VAR32, C_VAR64

cdef int64_t _no_strings = 0  # The offsets of a column of strings without rows.
cdef int64_t INT64_MAX = 0x7fffffffffffffff
cdef int64_t INT64_MIN = -INT64_MAX - 1
# Until so many rows were seen, all of them enter the sketches; then a sample.
cdef int64_t SKETCH_ALL = 16384


cdef void *_alloc(size_t count, size_t size) except NULL:
    cdef void *p = calloc(count if count else 1, size)
    if p == NULL:
        raise MemoryError(f"{count * size} bytes for partitioning")
    return p


cdef void *_grown(void *old, size_t size) except NULL:
    cdef void *p = realloc(old, size if size else 1)
    if p == NULL:
        raise MemoryError(f"{size} bytes for partitioning")
    return p


cdef scad_type *_types(kinds, widths) except NULL:
    cdef int c
    cdef scad_type *types = <scad_type *>_alloc(len(kinds), sizeof(scad_type))
    for c, (kind, width) in enumerate(zip(kinds, widths)):
        types[c].kind, types[c].width = kind, width
    return types


cdef int _pieces(ArrowArray *array, const scad_type *types, int n_columns, scad_piece *pieces) except -1:
    """The buffers of a struct array's children."""
    cdef int c
    cdef int64_t n = array.length, at
    cdef ArrowArray *child
    cdef scad_piece *piece
    if array.n_children != n_columns:
        raise ValueError(f"{n_columns} columns, but a batch of {array.n_children}")
    for c in range(n_columns):
        child, piece = array.children[c], &pieces[c]
        memset(piece, 0, sizeof(scad_piece))
        if types[c].kind == C_NULL or not n:
            continue
        if child.n_buffers != (3 if scad_is_variable(types[c].kind) else 2):
            raise ValueError(f"column {c}: {child.n_buffers} buffers are not those of its type")
        at = piece.offset = child.offset + array.offset
        piece.validity = <const uint8_t *>child.buffers[0] if child.null_count else NULL
        if scad_is_variable(types[c].kind):
            piece.offsets, piece.data = <const uint8_t *>child.buffers[1], <const uint8_t *>child.buffers[2]
            if types[c].kind == C_VAR32:
                piece.size = (<const int *>piece.offsets)[at + n]
            else:
                piece.size = (<const int64_t *>piece.offsets)[at + n]
        else:
            piece.data = <const uint8_t *>child.buffers[1]
            piece.size = (at + n) * types[c].width
    return 0


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
                scad_assign_ranges(self.key_types, keys, self.n_keys, n, &self.ranges, pid, self.rows)
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
                    ahead.data = NULL
                    if c + 1 < self.n_columns and self.types[c + 1].width:
                        ahead.width = self.types[c + 1].width
                        ahead.data = pieces[c + 1].data + (pieces[c + 1].offset + at) * ahead.width
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


cdef class Layout:
    """Where the buffers of some columns of a part are, and the columns over those buffers.

    Parameters
    ----------
    kinds, widths
        As for `Scatter`, of all columns of the part.
    columns
        Positions of the columns that are wanted, in any order.
    """

    cdef int n_columns, n_wanted
    cdef scad_type *types
    cdef int *wanted
    cdef uint8_t *is_wanted

    def __cinit__(self, kinds, widths, columns):
        cdef int i
        self.n_columns, self.n_wanted = len(kinds), len(columns)
        self.types = _types(kinds, widths)
        self.wanted = <int *>_alloc(self.n_wanted, sizeof(int))
        self.is_wanted = <uint8_t *>_alloc(self.n_columns, 1)
        for i in range(self.n_wanted):
            if not 0 <= columns[i] < self.n_columns:
                raise IndexError(f"column {columns[i]} of {self.n_columns}")
            self.wanted[i] = columns[i]
            self.is_wanted[self.wanted[i]] = 1

    def __dealloc__(self):
        free(self.types)
        free(self.wanted)
        free(self.is_wanted)

    cdef scad_place *_places(self, int64_t rows, nulls, strings, int64_t *size) except NULL:
        cdef int c, v = 0
        cdef int64_t at = 0, bytes_
        cdef scad_place *places = <scad_place *>_alloc(self.n_columns, sizeof(scad_place))
        try:
            if rows < 0 or rows > (<int64_t>1 << 40) or len(nulls) != self.n_columns:
                raise ValueError(f"{rows} rows with {len(nulls)} counts of nulls for {self.n_columns} columns")
            for c in range(self.n_columns):
                bytes_ = 0
                if scad_is_variable(self.types[c].kind):
                    bytes_ = strings[v]
                    v += 1
                    if bytes_ < 0 or bytes_ > (<int64_t>1 << 40):
                        raise ValueError(f"column {c}: {bytes_} bytes of strings")
                at = c_place(&self.types[c], rows, nulls[c], bytes_, at, &places[c])
            if v != len(strings):
                raise ValueError(f"{len(strings)} lengths for {v} columns of strings")
        except BaseException:
            free(places)
            raise
        size[0] = at
        return places

    def size(self, int64_t rows, nulls, strings):
        """Bytes of a part."""
        cdef int64_t size
        free(self._places(rows, nulls, strings, &size))
        return size

    def spans(self, int64_t rows, nulls, strings):
        """The wanted bytes of a part as ``(offset, length)``, neighbours together, in ascending order."""
        cdef int64_t size, first = 0, end = 0, start
        cdef int c
        cdef scad_place *places = self._places(rows, nulls, strings, &size)
        found = []
        for c in range(self.n_columns):
            start = places[c].validity
            if not self.is_wanted[c] or not (places[c].offsets_size or places[c].data_size):
                continue
            if start != scad_align(end) or not end:
                if end:
                    found.append((first, end - first))
                first = start
            end = places[c].data + places[c].data_size
        if end:
            found.append((first, end - first))
        free(places)
        return found

    def columns(self, int64_t rows, nulls, strings, spans, views):
        """The wanted columns as a capsule (``arrow_array``) of a struct array, which keeps the views alive.

        Parameters
        ----------
        rows, nulls, strings
            As in the part.
        spans
            What `spans` gave.
        views
            A buffer for each, of at least its length.

        Raises
        ------
        ValueError
            If the bytes are no such columns.
        """
        cdef int64_t size, at, null_count
        cdef int i, c, s
        cdef int n_spans = len(spans)
        cdef scad_place *places = self._places(rows, nulls, strings, &size)
        cdef uint8_t **bases = NULL
        cdef int64_t *firsts = NULL
        cdef Py_buffer *held = NULL
        cdef ArrowArray *array = NULL
        cdef ArrowArray *child
        cdef scad_piece piece
        cdef scad_place *place
        cdef uint8_t *base
        views = list(views)
        try:
            array = _new_array(self.n_wanted, n_spans)
            held = (<_Held *>array.private_data).views
            bases = <uint8_t **>_alloc(n_spans, sizeof(void *))
            firsts = <int64_t *>_alloc(n_spans, sizeof(int64_t))
            for s in range(n_spans):
                PyObject_GetBuffer(views[s], &held[s], PyBUF_SIMPLE)
                (<_Held *>array.private_data).taken += 1
                if held[s].len < spans[s][1]:
                    raise ValueError(f"{spans[s][1]} bytes are needed, {held[s].len} given")
                bases[s], firsts[s] = <uint8_t *>held[s].buf, spans[s][0]
            array.length = rows
            for i in range(self.n_wanted):
                c = self.wanted[i]
                place, child = &places[c], array.children[i]
                child.length = rows
                child.null_count = rows if self.types[c].kind == C_NULL else nulls[c]
                if self.types[c].kind == C_NULL:
                    child.n_buffers = 0
                    continue
                child.n_buffers = 3 if scad_is_variable(self.types[c].kind) else 2
                if not place.offsets_size and not place.data_size:
                    if child.n_buffers == 3:
                        child.buffers[1] = &_no_strings
                    continue
                # The last span that starts before the column.
                s = _span_of(firsts, n_spans, place.validity)
                base = bases[s] - firsts[s]
                child.buffers[0] = base + place.validity if place.validity_size else NULL
                if child.n_buffers == 2:
                    child.buffers[1] = base + place.data
                    continue
                child.buffers[1] = base + place.offsets
                child.buffers[2] = base + place.data
                _check_offsets(&self.types[c], base + place.offsets, rows, place.data_size)
            return PyCapsule_New(array, "arrow_array", _drop_capsule)
        except BaseException:
            if array != NULL:
                array.release(array)
                free(array)
            raise
        finally:
            free(places)
            free(bases)
            free(firsts)


cdef int _span_of(const int64_t *firsts, int count, int64_t at) noexcept:
    cdef int low = 0, high = count, middle
    while high - low > 1:
        middle = (low + high) // 2
        if firsts[middle] <= at:
            low = middle
        else:
            high = middle
    return low


cdef int _check_offsets(const scad_type *type, const uint8_t *offsets, int64_t rows, int64_t size) except -1:
    cdef int64_t first, last
    if type.kind == C_VAR32:
        first, last = (<const int *>offsets)[0], (<const int *>offsets)[rows]
    else:
        first, last = (<const int64_t *>offsets)[0], (<const int64_t *>offsets)[rows]
    if first != 0:
        raise ValueError("the first offset of a string column is not 0")
    if last != size:
        raise ValueError(f"the last offset of a string column is {last}, but it has {size} bytes")
    return 0


# A struct array over buffers of Python objects. The consumer may move the children out of their parent and keep them
# longer, so that parent and children share what they point to.
ctypedef struct _Held:
    int users
    int taken
    ArrowArray *children
    ArrowArray **pointers
    const void **buffers
    Py_buffer *views


cdef ArrowArray *_new_array(int n_columns, int n_views) except NULL:
    cdef int i
    cdef ArrowArray *array = <ArrowArray *>calloc(1, sizeof(ArrowArray))
    cdef _Held *held = <_Held *>calloc(1, sizeof(_Held))
    if array == NULL or held == NULL:
        free(array)
        free(held)
        raise MemoryError("an array over remote memory")
    held.users = 1
    held.children = <ArrowArray *>calloc(n_columns + 1, sizeof(ArrowArray))
    held.pointers = <ArrowArray **>calloc(n_columns + 1, sizeof(void *))
    held.buffers = <const void **>calloc(3 * n_columns + 1, sizeof(void *))
    held.views = <Py_buffer *>calloc(n_views + 1, sizeof(Py_buffer))
    array.private_data, array.release = held, _release
    if held.children == NULL or held.pointers == NULL or held.buffers == NULL or held.views == NULL:
        _release(array)
        free(array)
        raise MemoryError("an array over remote memory")
    array.n_buffers, array.n_children = 1, n_columns
    array.buffers = held.buffers + 3 * n_columns  # The struct's own validity: none.
    array.children = held.pointers
    held.users += n_columns
    for i in range(n_columns):
        held.pointers[i] = &held.children[i]
        held.children[i].buffers = held.buffers + 3 * i
        held.children[i].private_data, held.children[i].release = held, _release
    return array


cdef void _release(ArrowArray *array) noexcept nogil:
    """Of the struct array and of each child."""
    cdef _Held *held = <_Held *>array.private_data
    cdef int64_t i
    for i in range(array.n_children):
        if array.children[i].release != NULL:
            array.children[i].release(array.children[i])
    array.release = NULL
    if scad_drop(&held.users):
        return
    if held.taken:
        with gil:
            for i in range(held.taken):
                PyBuffer_Release(&held.views[i])
    free(held.children)
    free(held.pointers)
    free(held.buffers)
    free(held.views)
    free(held)


cdef void _drop_capsule(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, "arrow_array")
    if array.release != NULL:
        array.release(array)
    free(array)
