# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The native half of `operators.partition`: hashing, histograms and the scatter, all without the GIL.

A column of a batch is given by the addresses of its Arrow buffers and its offset into them. The hash of a value
does not depend on its width: integers and decimals are hashed as sign-extended 128-bit numbers. Words are mixed by
the 64-bit finalizer of MurmurHash3 (Austin Appleby, public domain); the partition is the high word of
``hash * partitions`` (Daniel Lemire, "Fast Random Integer Generation in an Interval", 2019).
"""

from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint8_t, uint16_t, uintptr_t
from libc.stdlib cimport calloc, free

cdef extern from *:
    """
    #include <math.h>
    #include <stdint.h>
    #include <string.h>

    enum { KIND_NULL, KIND_BOOL, KIND_SIGNED, KIND_UNSIGNED, KIND_FLOAT, KIND_BYTES, KIND_VAR32, KIND_VAR64 };

    typedef struct {
        const uint8_t *validity;   /* NULL: no nulls */
        const uint8_t *offsets;    /* variable width only */
        const uint8_t *data;
        int64_t offset;            /* Arrow's array offset, in rows */
    } scad_piece;

    static inline int scad_bit(const uint8_t *bits, int64_t i) { return (bits[i >> 3] >> (i & 7)) & 1; }

    static inline uint64_t scad_mix(uint64_t h) {
        h ^= h >> 33; h *= UINT64_C(0xff51afd7ed558ccd);
        h ^= h >> 33; h *= UINT64_C(0xc4ceb9fe1a85ec53);
        return h ^ (h >> 33);
    }

    #define SCAD_NULL_HASH UINT64_C(0x9e3779b97f4a7c15)

    static inline uint64_t scad_hash_wide(uint64_t low, uint64_t high) {
        uint64_t h = scad_mix(low);
        /* A number that fits 64 bits hashes as if it were held in 64 bits. */
        if (high != (uint64_t)((int64_t)low >> 63)) h = scad_mix(h ^ (high * UINT64_C(0x9fb21c651e98df25)) ^ 1);
        return h;
    }

    static inline uint64_t scad_hash_double(double v) {
        uint64_t bits;
        if (v == 0.0) v = 0.0;
        if (isnan(v)) return scad_mix(UINT64_C(0x7ff8000000000000));
        memcpy(&bits, &v, 8);
        return scad_mix(bits);
    }

    static inline uint64_t scad_hash_bytes(const uint8_t *p, int64_t n) {
        uint64_t h = (uint64_t)n * UINT64_C(0x9e3779b185ebca87), w;
        while (n >= 8) { memcpy(&w, p, 8); h = scad_mix(h ^ w); p += 8; n -= 8; }
        if (n) { w = 0; memcpy(&w, p, (size_t)n); h = scad_mix(h ^ w ^ ((uint64_t)n << 59)); }
        return scad_mix(h);
    }

    static inline uint64_t scad_hash_at(int kind, int width, const scad_piece *c, int64_t i) {
        uint64_t low, high;
        if (c->validity && !scad_bit(c->validity, i)) return SCAD_NULL_HASH;
        switch (kind) {
        case KIND_NULL: return SCAD_NULL_HASH;
        case KIND_BOOL: return scad_mix((uint64_t)scad_bit(c->data, i));
        case KIND_SIGNED:
            switch (width) {
            case 1: return scad_mix((uint64_t)(int64_t)((const int8_t *)c->data)[i]);
            case 2: return scad_mix((uint64_t)(int64_t)((const int16_t *)c->data)[i]);
            case 4: return scad_mix((uint64_t)(int64_t)((const int32_t *)c->data)[i]);
            case 8: return scad_mix(((const uint64_t *)c->data)[i]);
            default:
                memcpy(&low, c->data + i * 16, 8); memcpy(&high, c->data + i * 16 + 8, 8);
                return scad_hash_wide(low, high);
            }
        case KIND_UNSIGNED:
            switch (width) {
            case 1: return scad_mix(c->data[i]);
            case 2: return scad_mix(((const uint16_t *)c->data)[i]);
            case 4: return scad_mix(((const uint32_t *)c->data)[i]);
            default: return scad_hash_wide(((const uint64_t *)c->data)[i], 0);
            }
        case KIND_FLOAT:
            return scad_hash_double(width == 4 ? (double)((const float *)c->data)[i] : ((const double *)c->data)[i]);
        case KIND_VAR32: {
            const int32_t *o = (const int32_t *)c->offsets + i;
            return scad_hash_bytes(c->data + o[0], o[1] - o[0]);
        }
        case KIND_VAR64: {
            const int64_t *o = (const int64_t *)c->offsets + i;
            return scad_hash_bytes(c->data + o[0], o[1] - o[0]);
        }
        default: return scad_hash_bytes(c->data + i * width, width);
        }
    }

    /* One loop per common form, so that the compiler sees the kind. */
    static void scad_hash_column(int kind, int width, const scad_piece *c, int64_t from, int64_t n,
                                 uint64_t *h, int first) {
        int64_t i, base = c->offset + from;
        #define LOOP(K, W) for (i = 0; i < n; i++) { \\
            uint64_t v = scad_hash_at(K, W, c, base + i); \\
            h[i] = first ? v : scad_mix(((h[i] << 5) | (h[i] >> 59)) ^ v); }
        if (kind == KIND_SIGNED && width == 4) { LOOP(KIND_SIGNED, 4) }
        else if (kind == KIND_SIGNED && width == 8) { LOOP(KIND_SIGNED, 8) }
        else if (kind == KIND_VAR32) { LOOP(KIND_VAR32, 0) }
        else { LOOP(kind, width) }
        #undef LOOP
    }

    #define SCAD_BLOCK 2048

    /* Partition numbers of a batch, and how many rows each partition gets. */
    static void scad_assign(const int *kinds, const int *widths, const scad_piece **keys, int n_keys,
                            int64_t n, int64_t partitions, uint16_t *pid, int64_t *rows) {
        uint64_t h[SCAD_BLOCK];
        for (int64_t from = 0; from < n; from += SCAD_BLOCK) {
            int64_t m = n - from < SCAD_BLOCK ? n - from : SCAD_BLOCK;
            for (int k = 0; k < n_keys; k++)
                scad_hash_column(kinds[k], widths[k], keys[k], from, m, h, k == 0);
            for (int64_t i = 0; i < m; i++) {
                uint16_t p = (uint16_t)(((unsigned __int128)h[i] * (uint64_t)partitions) >> 64);
                pid[from + i] = p;
                rows[p]++;
            }
        }
    }

    static void scad_count_nulls(const scad_piece *c, int64_t n, const uint16_t *pid, int64_t *nulls) {
        if (!c->validity) return;
        for (int64_t i = 0; i < n; i++)
            nulls[pid ? pid[i] : 0] += !scad_bit(c->validity, c->offset + i);
    }

    static inline int64_t scad_length(int kind, const scad_piece *c, int64_t i, int64_t *start) {
        if (kind == KIND_VAR32) {
            const int32_t *o = (const int32_t *)c->offsets + i;
            *start = o[0];
            return o[1] - o[0];
        }
        const int64_t *o = (const int64_t *)c->offsets + i;
        *start = o[0];
        return o[1] - o[0];
    }

    static void scad_count_bytes(int kind, const scad_piece *c, int64_t n, const uint16_t *pid, int64_t *bytes) {
        int64_t start, i;
        if (!n) return;
        if (!pid) {
            int64_t last, length = scad_length(kind, c, c->offset + n - 1, &last);
            scad_length(kind, c, c->offset, &start);
            bytes[0] += last + length - start;
            return;
        }
        if (kind == KIND_VAR32) {
            const int32_t *o = (const int32_t *)c->offsets + c->offset;
            for (i = 0; i < n; i++) bytes[pid[i]] += o[i + 1] - o[i];
        } else {
            const int64_t *o = (const int64_t *)c->offsets + c->offset;
            for (i = 0; i < n; i++) bytes[pid[i]] += o[i + 1] - o[i];
        }
    }

    static void scad_put_bits(const uint8_t *bits, int64_t offset, int64_t n, const uint16_t *pid,
                              uint8_t **out, int64_t *at) {
        int64_t i;
        if (!pid && out[0] && !((at[0] | (bits ? offset : 0)) & 7)) {
            /* Whole bytes; bits behind the end of the batch are overwritten or cleared below. */
            int64_t whole = n >> 3;
            uint8_t *to = out[0] + (at[0] >> 3);
            if (bits) memcpy(to, bits + (offset >> 3), (size_t)whole); else memset(to, 0xff, (size_t)whole);
            for (i = whole << 3; i < n; i++)
                if (!bits || scad_bit(bits, offset + i)) to[i >> 3] |= (uint8_t)(1 << (i & 7));
            at[0] += n;
            return;
        }
        for (i = 0; i < n; i++) {
            int p = pid ? pid[i] : 0;
            int64_t k = at[p]++;
            if (out[p] && (!bits || scad_bit(bits, offset + i))) out[p][k >> 3] |= (uint8_t)(1 << (k & 7));
        }
    }

    #define SCAD_PUT(NAME, T) \\
    static void NAME(const scad_piece *c, int64_t n, const uint16_t *pid, uint8_t **out, int64_t *at) { \\
        const T *from = (const T *)c->data + c->offset; \\
        for (int64_t i = 0; i < n; i++) { int p = pid[i]; ((T *)out[p])[at[p]++] = from[i]; } }
    SCAD_PUT(scad_put_1, uint8_t)
    SCAD_PUT(scad_put_2, uint16_t)
    SCAD_PUT(scad_put_4, uint32_t)
    SCAD_PUT(scad_put_8, uint64_t)

    static void scad_put_fixed(int width, const scad_piece *c, int64_t n, const uint16_t *pid,
                               uint8_t **out, int64_t *at) {
        if (!pid) {
            if (n) memcpy(out[0] + at[0] * width, c->data + c->offset * width, (size_t)(n * width));
            at[0] += n;
            return;
        }
        switch (width) {
        case 1: scad_put_1(c, n, pid, out, at); return;
        case 2: scad_put_2(c, n, pid, out, at); return;
        case 4: scad_put_4(c, n, pid, out, at); return;
        case 8: scad_put_8(c, n, pid, out, at); return;
        case 16:
            for (int64_t i = 0; i < n; i++) {
                int p = pid[i];
                memcpy(out[p] + 16 * at[p]++, c->data + (c->offset + i) * 16, 16);
            }
            return;
        default:
            for (int64_t i = 0; i < n; i++) {
                int p = pid[i];
                memcpy(out[p] + width * at[p]++, c->data + (c->offset + i) * width, (size_t)width);
            }
        }
    }

    /* Strings: `at` counts rows, `used` bytes. Offsets have the width of the input's. */
    static void scad_put_var(int kind, const scad_piece *c, int64_t n, const uint16_t *pid,
                             uint8_t **offsets, uint8_t **out, int64_t *at, int64_t *used) {
        int64_t start, length, i;
        if (!n) return;
        if (!pid) {
            int64_t total = 0;
            scad_count_bytes(kind, c, n, NULL, &total);
            scad_length(kind, c, c->offset, &start);
            if (total) memcpy(out[0] + used[0], c->data + start, (size_t)total);
            int64_t shift = used[0] - start;
            for (i = 0; i < n; i++) {
                int64_t s, l = scad_length(kind, c, c->offset + i, &s);
                if (kind == KIND_VAR32) ((int32_t *)offsets[0])[at[0] + i + 1] = (int32_t)(s + l + shift);
                else ((int64_t *)offsets[0])[at[0] + i + 1] = s + l + shift;
            }
            at[0] += n;
            used[0] += total;
            return;
        }
        for (i = 0; i < n; i++) {
            int p = pid[i];
            length = scad_length(kind, c, c->offset + i, &start);
            if (length) memcpy(out[p] + used[p], c->data + start, (size_t)length);
            used[p] += length;
            at[p]++;
            if (kind == KIND_VAR32) ((int32_t *)offsets[p])[at[p]] = (int32_t)used[p];
            else ((int64_t *)offsets[p])[at[p]] = used[p];
        }
    }

    /* Least and greatest of the valid values of one finished column of one partition. */
    static int scad_range(int kind, int width, const uint8_t *validity, const uint8_t *data, int64_t n,
                          int64_t *least, int64_t *greatest) {
        int64_t lo = INT64_MAX, hi = INT64_MIN, i;
        int any = 0;
        #define RANGE(T) { const T *v = (const T *)data; \\
            if (!validity) { any = n > 0; for (i = 0; i < n; i++) { int64_t x = (int64_t)v[i]; \\
                lo = x < lo ? x : lo; hi = x > hi ? x : hi; } } \\
            else for (i = 0; i < n; i++) if (scad_bit(validity, i)) { int64_t x = (int64_t)v[i]; any = 1; \\
                lo = x < lo ? x : lo; hi = x > hi ? x : hi; } }
        if (kind == KIND_SIGNED) switch (width) {
            case 1: RANGE(int8_t) break; case 2: RANGE(int16_t) break;
            case 4: RANGE(int32_t) break; case 8: RANGE(int64_t) break; default: return 0;
        } else if (kind == KIND_UNSIGNED) switch (width) {
            case 1: RANGE(uint8_t) break; case 2: RANGE(uint16_t) break; case 4: RANGE(uint32_t) break;
            default: return 0;
        } else return 0;
        #undef RANGE
        *least = lo; *greatest = hi;
        return any;
    }
    """
    ctypedef struct scad_piece:
        const uint8_t *validity
        const uint8_t *offsets
        const uint8_t *data
        int64_t offset
    int C_NULL "KIND_NULL"
    int C_BOOL "KIND_BOOL"
    int C_SIGNED "KIND_SIGNED"
    int C_UNSIGNED "KIND_UNSIGNED"
    int C_FLOAT "KIND_FLOAT"
    int C_BYTES "KIND_BYTES"
    int C_VAR32 "KIND_VAR32"
    int C_VAR64 "KIND_VAR64"
    void scad_assign(const int *, const int *, const scad_piece **, int, int64_t, int64_t, uint16_t *, int64_t *) nogil
    void scad_count_nulls(const scad_piece *, int64_t, const uint16_t *, int64_t *) nogil
    void scad_count_bytes(int, const scad_piece *, int64_t, const uint16_t *, int64_t *) nogil
    void scad_put_bits(const uint8_t *, int64_t, int64_t, const uint16_t *, uint8_t **, int64_t *) nogil
    void scad_put_fixed(int, const scad_piece *, int64_t, const uint16_t *, uint8_t **, int64_t *) nogil
    void scad_put_var(int, const scad_piece *, int64_t, const uint16_t *, uint8_t **, uint8_t **, int64_t *, int64_t *) nogil
    int scad_range(int, int, const uint8_t *, const uint8_t *, int64_t, int64_t *, int64_t *) nogil

from libc.string cimport memcpy, memset

KIND_NULL, KIND_BOOL, KIND_SIGNED, KIND_UNSIGNED = C_NULL, C_BOOL, C_SIGNED, C_UNSIGNED
KIND_FLOAT, KIND_BYTES, KIND_VAR32, KIND_VAR64 = C_FLOAT, C_BYTES, C_VAR32, C_VAR64


cdef void *_alloc(size_t count, size_t size) except NULL:
    cdef void *p = calloc(count if count else 1, size)
    if p == NULL:
        raise MemoryError(f"{count * size} bytes for partitioning")
    return p


cdef class Scatter:
    """Two passes over batches of columns: `sizes` after the first, `write` is the second.

    Parameters
    ----------
    kinds, widths
        Per column: one of the ``KIND_`` numbers, and bytes per value of fixed-width kinds.
    lengths
        Rows of each batch.
    pieces
        Per batch and column, batch-major: ``(validity, offsets, data, offset)``; addresses, 0 where absent. The caller
        keeps the buffers alive.
    keys
        Columns to hash by; may be empty only if `partitions` is 1.
    partitions
        1 to 65535.
    """

    cdef int n_columns, n_batches
    cdef int64_t partitions, total
    cdef int *kinds
    cdef int *widths
    cdef int64_t *lengths
    cdef scad_piece *pieces
    cdef uint16_t *pid
    cdef int64_t *rows      # [partition]
    cdef int64_t *nulls     # [column][partition]
    cdef int64_t *bytes_    # [column][partition]

    def __cinit__(self, kinds, widths, lengths, pieces, keys, int64_t partitions):
        cdef int c, b
        cdef int n_keys = len(keys)
        cdef int *key_kinds = NULL
        cdef int *key_widths = NULL
        cdef const scad_piece **key_pieces = NULL
        cdef int64_t done = 0
        cdef uint16_t *pid
        if not 1 <= partitions <= 65535:
            raise ValueError(f"partitions must be 1 to 65535, not {partitions}")
        if not n_keys and partitions > 1:
            raise ValueError("several partitions need keys")
        self.n_columns, self.n_batches, self.partitions = len(kinds), len(lengths), partitions
        if len(pieces) != self.n_columns * self.n_batches:
            raise ValueError("one piece per batch and column")
        self.kinds = <int *>_alloc(self.n_columns, sizeof(int))
        self.widths = <int *>_alloc(self.n_columns, sizeof(int))
        self.lengths = <int64_t *>_alloc(self.n_batches, sizeof(int64_t))
        self.pieces = <scad_piece *>_alloc(len(pieces), sizeof(scad_piece))
        self.rows = <int64_t *>_alloc(partitions, sizeof(int64_t))
        self.nulls = <int64_t *>_alloc(self.n_columns * partitions, sizeof(int64_t))
        self.bytes_ = <int64_t *>_alloc(self.n_columns * partitions, sizeof(int64_t))
        for c in range(self.n_columns):
            self.kinds[c], self.widths[c] = kinds[c], widths[c]
        for b in range(self.n_batches):
            self.lengths[b] = lengths[b]
            self.total += self.lengths[b]
        for c, (validity, offsets, data, offset) in enumerate(pieces):
            self.pieces[c].validity = <const uint8_t *><uintptr_t>validity
            self.pieces[c].offsets = <const uint8_t *><uintptr_t>offsets
            self.pieces[c].data = <const uint8_t *><uintptr_t>data
            self.pieces[c].offset = offset
        if partitions == 1:
            self.rows[0] = self.total
        else:
            self.pid = <uint16_t *>_alloc(self.total, sizeof(uint16_t))
            key_kinds = <int *>_alloc(n_keys, sizeof(int))
            key_widths = <int *>_alloc(n_keys, sizeof(int))
            key_pieces = <const scad_piece **>_alloc(n_keys, sizeof(void *))
            try:
                for c in range(n_keys):
                    if not 0 <= keys[c] < self.n_columns:
                        raise IndexError(f"key {keys[c]} of {self.n_columns} columns")
                    key_kinds[c], key_widths[c] = self.kinds[<int>keys[c]], self.widths[<int>keys[c]]
                for b in range(self.n_batches):
                    for c in range(n_keys):
                        key_pieces[c] = &self.pieces[b * self.n_columns + <int>keys[c]]
                    with nogil:
                        scad_assign(key_kinds, key_widths, key_pieces, n_keys, self.lengths[b], partitions,
                                    self.pid + done, self.rows)
                    done += self.lengths[b]
            finally:
                free(key_kinds)
                free(key_widths)
                free(key_pieces)
        with nogil:
            self._measure()

    def __dealloc__(self):
        free(self.kinds)
        free(self.widths)
        free(self.lengths)
        free(self.pieces)
        free(self.pid)
        free(self.rows)
        free(self.nulls)
        free(self.bytes_)

    cdef void _measure(self) noexcept nogil:
        cdef int c, b
        cdef int64_t done, p
        cdef const uint16_t *pid
        cdef const scad_piece *piece
        for c in range(self.n_columns):
            done = 0
            if self.kinds[c] == C_NULL:
                for p in range(self.partitions):
                    self.nulls[c * self.partitions + p] = self.rows[p]
                continue
            for b in range(self.n_batches):
                piece = &self.pieces[b * self.n_columns + c]
                pid = self.pid + done if self.pid != NULL else NULL
                scad_count_nulls(piece, self.lengths[b], pid, self.nulls + c * self.partitions)
                if self.kinds[c] == C_VAR32 or self.kinds[c] == C_VAR64:
                    scad_count_bytes(self.kinds[c], piece, self.lengths[b], pid,
                                     self.bytes_ + c * self.partitions)
                done += self.lengths[b]

    def partition_rows(self, int64_t partition):
        """Rows of one partition."""
        return self.rows[partition]

    def null_counts(self, int64_t partition):
        """Nulls of each column in one partition."""
        return tuple([self.nulls[c * self.partitions + partition] for c in range(self.n_columns)])

    def sizes(self, int64_t partition):
        """Bytes of each buffer of one partition: validity, offsets for strings, data, column after column."""
        cdef int c
        cdef int64_t n = self.rows[partition]
        result = []
        for c in range(self.n_columns):
            if self.kinds[c] == C_NULL:
                result += (0, 0)
                continue
            result.append((n + 7) // 8 if self.nulls[c * self.partitions + partition] else 0)
            if self.kinds[c] == C_VAR32 or self.kinds[c] == C_VAR64:
                result.append((n + 1) * (4 if self.kinds[c] == C_VAR32 else 8) if n else 0)
                result.append(self.bytes_[c * self.partitions + partition])
            elif self.kinds[c] == C_BOOL:
                result.append((n + 7) // 8)
            else:
                result.append(n * self.widths[c])
        return result

    def write(self, buffers):
        """Scatter every row into `buffers[partition]`, writable buffers of at least `sizes(partition)` bytes each.

        Returns
        -------
        list of list
            Per partition and column ``(least, greatest)`` of integer-like values as int, or None.
        """
        cdef int c, b, per = 0, v, slot
        cdef int64_t p, done, least = 0, greatest = 0
        cdef const uint16_t *pid
        cdef const scad_piece *piece
        cdef Py_buffer *views = NULL
        cdef int64_t taken = 0
        cdef uint8_t **out = NULL
        cdef int64_t *at = NULL
        cdef int64_t *used = NULL
        cdef int kind
        cdef int *slots = NULL
        for c in range(self.n_columns):
            per += 3 if self.kinds[c] == C_VAR32 or self.kinds[c] == C_VAR64 else 2
        if len(buffers) != self.partitions:
            raise ValueError(f"{self.partitions} partitions, but buffers for {len(buffers)}")
        try:
            views = <Py_buffer *>_alloc(per * self.partitions, sizeof(Py_buffer))
            out = <uint8_t **>_alloc(per * self.partitions, sizeof(void *))
            at = <int64_t *>_alloc(self.partitions, sizeof(int64_t))
            used = <int64_t *>_alloc(self.partitions, sizeof(int64_t))
            slots = <int *>_alloc(self.n_columns, sizeof(int))
            for p in range(self.partitions):
                sizes = self.sizes(p)
                given = buffers[p]
                if len(given) != per:
                    raise ValueError(f"partition {p}: {per} buffers are needed, {len(given)} given")
                for v in range(per):
                    if not sizes[v]:
                        continue
                    PyObject_GetBuffer(given[v], &views[taken], PyBUF_WRITABLE)
                    taken += 1
                    if views[taken - 1].len < sizes[v]:
                        raise ValueError(f"partition {p}, buffer {v}: {sizes[v]} bytes are needed, "
                                         f"{views[taken - 1].len} given")
                    out[v * self.partitions + p] = <uint8_t *>views[taken - 1].buf
            slot = 0
            for c in range(self.n_columns):
                slots[c] = slot
                slot += 3 if self.kinds[c] == C_VAR32 or self.kinds[c] == C_VAR64 else 2
            with nogil:
                for c in range(self.n_columns):
                    self._column(c, out + slots[c] * self.partitions, at, used)
            ranges = []
            for p in range(self.partitions):
                row = []
                for c in range(self.n_columns):
                    if scad_range(self.kinds[c], self.widths[c], out[slots[c] * self.partitions + p],
                                  out[(slots[c] + 1) * self.partitions + p], self.rows[p], &least, &greatest):
                        row.append((least, greatest))
                    else:
                        row.append(None)
                ranges.append(row)
            return ranges
        finally:
            for p in range(taken):
                PyBuffer_Release(&views[p])
            free(views)
            free(out)
            free(at)
            free(used)
            free(slots)

    cdef void _column(self, int c, uint8_t **out, int64_t *at, int64_t *used) noexcept nogil:
        """Scatter column `c`; `out` has a row of pointers per buffer of the column."""
        cdef int b
        cdef int kind = self.kinds[c]
        cdef int64_t P = self.partitions, p, done, n
        cdef const scad_piece *piece
        cdef const uint16_t *pid
        cdef bint any_validity = False
        if kind == C_NULL:
            return
        for p in range(P):
            if self.nulls[c * P + p]:
                any_validity = True
                memset(out[p], 0, <size_t>((self.rows[p] + 7) // 8))
        if any_validity:
            memset(at, 0, <size_t>P * sizeof(int64_t))
            done = 0
            for b in range(self.n_batches):
                piece = &self.pieces[b * self.n_columns + c]
                pid = self.pid + done if self.pid != NULL else NULL
                scad_put_bits(piece.validity, piece.offset, self.lengths[b], pid, out, at)
                done += self.lengths[b]
        memset(at, 0, <size_t>P * sizeof(int64_t))
        memset(used, 0, <size_t>P * sizeof(int64_t))
        for p in range(P):
            if not self.rows[p]:
                continue
            if kind == C_BOOL:
                memset(out[P + p], 0, <size_t>((self.rows[p] + 7) // 8))
            elif kind == C_VAR32:
                memset(out[P + p], 0, 4)
            elif kind == C_VAR64:
                memset(out[P + p], 0, 8)
        done = 0
        for b in range(self.n_batches):
            piece = &self.pieces[b * self.n_columns + c]
            n = self.lengths[b]
            pid = self.pid + done if self.pid != NULL else NULL
            if kind == C_BOOL:
                scad_put_bits(piece.data, piece.offset, n, pid, out + P, at)
            elif kind == C_VAR32 or kind == C_VAR64:
                scad_put_var(kind, piece, n, pid, out + P, out + 2 * P, at, used)
            else:
                scad_put_fixed(self.widths[c], piece, n, pid, out + P, at)
            done += n
