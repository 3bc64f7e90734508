/* The copying half: blocks of rows, sorted by partition, gathered column by column. */
#include "scatter.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define CHUNK 1024 /* values that are gathered at a time; they stay in the first-level cache */
#define LINE 64

int64_t scad_block_rows(int64_t partitions) {
    int64_t rows = SCAD_LEAST_BLOCK;
    while (rows < SCAD_MOST_BLOCK && rows < partitions * 128) rows *= 2;
    return rows;
}

void scad_sort_block(const uint16_t *pid, int n, int64_t partitions, uint16_t *order, uint32_t *starts) {
    /* A counting sort of four quarters side by side: no step waits for the one before it. */
    uint32_t *at[4];
    int quarter = n / 4;
    for (int q = 0; q < 4; q++) at[q] = starts + partitions + 1 + q * partitions;
    memset(at[0], 0, 4 * (size_t)partitions * sizeof(uint32_t));
    for (int i = 0; i < quarter; i++)
        for (int q = 0; q < 4; q++) at[q][pid[q * quarter + i]]++;
    for (int i = 4 * quarter; i < n; i++) at[3][pid[i]]++;
    uint32_t sum = 0;
    for (int64_t p = 0; p < partitions; p++) {
        starts[p] = sum;
        for (int q = 0; q < 4; q++) {
            uint32_t count = at[q][p];
            at[q][p] = sum;
            sum += count;
        }
    }
    starts[partitions] = sum;
    for (int i = 0; i < quarter; i++)
        for (int q = 0; q < 4; q++) order[at[q][pid[q * quarter + i]]++] = (uint16_t)(q * quarter + i);
    for (int i = 4 * quarter; i < n; i++) order[at[3][pid[i]]++] = (uint16_t)i;
}

int64_t scad_measure(const struct scad_type *type, const struct scad_piece *c, int64_t n, const uint16_t *pid,
                     struct scad_cell *cells) {
    int64_t nulls = 0;
    if (type->kind == KIND_NULL || !n) return 0; /* Every row is one: counted by rows. */
    if (c->validity) {
        for (int64_t i = 0; i < n; i++) nulls += !scad_bit(c->validity, c->offset + i);
        if (!pid)
            cells->nulls += nulls;
        else if (nulls)
            for (int64_t i = 0; i < n; i++) cells[pid[i]].nulls += !scad_bit(c->validity, c->offset + i);
    }
    if (!scad_is_variable(type->kind)) return nulls;
    if (!pid) {
        int64_t first, last, length = scad_span(type->kind, c, c->offset + n - 1, &last);
        scad_span(type->kind, c, c->offset, &first);
        cells->bytes += last + length - first;
    } else if (type->kind == KIND_VAR32) {
        const int32_t *o = (const int32_t *)c->offsets + c->offset;
        for (int64_t i = 0; i < n; i++) cells[pid[i]].bytes += o[i + 1] - o[i];
    } else {
        const int64_t *o = (const int64_t *)c->offsets + c->offset;
        for (int64_t i = 0; i < n; i++) cells[pid[i]].bytes += o[i + 1] - o[i];
    }
    return nulls;
}

/* The rows of one partition read a share of the block: they bring as large a share of what comes next. */
static inline void fetch_ahead(const struct scad_ahead *ahead, uint32_t from, uint32_t to) {
    int64_t end = (int64_t)to * ahead->width;
    for (int64_t b = (int64_t)from * ahead->width & -LINE; b < end; b += LINE) __builtin_prefetch(ahead->data + b, 0, 2);
}

/* Where it streams, whole lines bypass the caches; what is before and behind them does not. */
static inline void copy(uint8_t *to, const uint8_t *from, size_t size, bool stream) {
#ifdef __SSE2__
    if (stream && size >= 2 * LINE) {
        size_t head = (size_t)(-(uintptr_t)to & (LINE - 1));
        memcpy(to, from, head);
        to += head, from += head, size -= head;
        for (; size >= LINE; to += LINE, from += LINE, size -= LINE) {
            __m128i a = _mm_loadu_si128((const __m128i *)from), b = _mm_loadu_si128((const __m128i *)(from + 16));
            __m128i c = _mm_loadu_si128((const __m128i *)(from + 32)), d = _mm_loadu_si128((const __m128i *)(from + 48));
            _mm_stream_si128((__m128i *)to, a);
            _mm_stream_si128((__m128i *)(to + 16), b);
            _mm_stream_si128((__m128i *)(to + 32), c);
            _mm_stream_si128((__m128i *)(to + 48), d);
        }
    }
#endif
    memcpy(to, from, size);
}

void scad_fence(void) {
#ifdef __SSE2__
    _mm_sfence();
#else
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}

/* Least and greatest of a run of values. */
struct range {
    int64_t least, most;
};

#define EXTREMES(NAME, T)                                                                                               \
    SCAD_CLONES static void NAME(const void *values, int n, struct range *r) {                                          \
        const T *v = values;                                                                                            \
        T least = v[0], most = v[0];                                                                                    \
        for (int i = 0; i < n; i++) {                                                                                   \
            least = v[i] < least ? v[i] : least;                                                                        \
            most = v[i] > most ? v[i] : most;                                                                           \
        }                                                                                                               \
        if ((int64_t)least < r->least) r->least = (int64_t)least;                                                       \
        if ((int64_t)most > r->most) r->most = (int64_t)most;                                                           \
    }
EXTREMES(extremes_i8, int8_t)
EXTREMES(extremes_i16, int16_t)
EXTREMES(extremes_i32, int32_t)
EXTREMES(extremes_i64, int64_t)
EXTREMES(extremes_u8, uint8_t)
EXTREMES(extremes_u16, uint16_t)
EXTREMES(extremes_u32, uint32_t)

/* Values whose order is not that of the signed integers that they are stored as: translated one by one. */
#define TRANSLATED(NAME, T, ORDERED)                                                                                    \
    SCAD_CLONES static void NAME(const void *values, int n, struct range *r) {                                          \
        const T *v = values;                                                                                            \
        int64_t least = r->least, most = r->most;                                                                       \
        for (int i = 0; i < n; i++) {                                                                                   \
            int64_t x = ORDERED;                                                                                        \
            least = x < least ? x : least;                                                                              \
            most = x > most ? x : most;                                                                                 \
        }                                                                                                               \
        r->least = least, r->most = most;                                                                               \
    }
TRANSLATED(extremes_u64, uint64_t, (int64_t)(v[i] ^ (UINT64_C(1) << 63)))
TRANSLATED(extremes_f32, float, scad_ordered_double((double)v[i]))
TRANSLATED(extremes_f64, double, scad_ordered_double(v[i]))

/* 128-bit numbers: known as long as all fit into 64 bits, else the widest range. */
static void extremes_wide(const void *values, int n, struct range *r) {
    const int64_t *v = values;
    for (int i = 0; i < n; i++) {
        int64_t low = v[2 * i], high = v[2 * i + 1];
        if (high != low >> 63) {
            r->least = INT64_MIN, r->most = INT64_MAX;
            return;
        }
        r->least = low < r->least ? low : r->least;
        r->most = low > r->most ? low : r->most;
    }
}

typedef void (*extremes_fn)(const void *, int, struct range *);

static extremes_fn extremes_of(const struct scad_type *type) {
    switch (type->kind) {
    case KIND_SIGNED:
        switch (type->width) {
        case 1: return extremes_i8;
        case 2: return extremes_i16;
        case 4: return extremes_i32;
        case 8: return extremes_i64;
        case 16: return extremes_wide;
        default: return NULL;
        }
    case KIND_UNSIGNED:
        switch (type->width) {
        case 1: return extremes_u8;
        case 2: return extremes_u16;
        case 4: return extremes_u32;
        default: return extremes_u64;
        }
    case KIND_FLOAT: return type->width == 4 ? extremes_f32 : extremes_f64;
    default: return NULL;
    }
}

/* Gathers are plain loads: the gather instructions are slower than these on most processors. */
#define GATHER(NAME, T)                                                                                                 \
    static void NAME(const uint8_t *data, const uint16_t *order, int n, uint8_t *to) {                                  \
        const T *from = (const T *)data;                                                                                \
        T *out = (T *)to;                                                                                               \
        int i = 0;                                                                                                      \
        for (; i + 4 <= n; i += 4) {                                                                                    \
            T a = from[order[i]], b = from[order[i + 1]], c = from[order[i + 2]], d = from[order[i + 3]];               \
            out[i] = a, out[i + 1] = b, out[i + 2] = c, out[i + 3] = d;                                                 \
        }                                                                                                               \
        for (; i < n; i++) out[i] = from[order[i]];                                                                     \
    }
GATHER(gather_1, uint8_t)
GATHER(gather_2, uint16_t)
GATHER(gather_4, uint32_t)
GATHER(gather_8, uint64_t)

static inline void gather(int width, const uint8_t *data, const uint16_t *order, int n, uint8_t *to) {
    switch (width) {
    case 1: gather_1(data, order, n, to); return;
    case 2: gather_2(data, order, n, to); return;
    case 4: gather_4(data, order, n, to); return;
    case 8: gather_8(data, order, n, to); return;
    case 16:
        for (int i = 0; i < n; i++) memcpy(to + 16 * i, data + 16 * (size_t)order[i], 16);
        return;
    default:
        for (int i = 0; i < n; i++) memcpy(to + (size_t)width * i, data + (size_t)width * order[i], (size_t)width);
    }
}

/* Where there are nulls, what stands below them counts for nothing. */
static void extremes_sparse(extremes_fn extremes, int width, const uint8_t *values, const uint8_t *validity, int64_t row,
                            const uint16_t *order, int n, struct range *r) {
    for (int i = 0; i < n; i++)
        if (scad_bit(validity, row + (order ? order[i] : i))) extremes(values + (size_t)width * i, 1, r);
}

static void put_fixed(const struct scad_type *type, const struct scad_piece *c, int64_t row, int n, const uint16_t *order,
                      int64_t at, struct scad_cell *cell, bool stream) {
    _Alignas(LINE) uint8_t gathered[CHUNK * 16];
    int width = type->width, most = width <= 16 ? CHUNK : CHUNK * 16 / width;
    extremes_fn extremes = extremes_of(type);
    struct range range = {cell->least, cell->most};
    const uint8_t *data = c->data + row * width;
    uint8_t *to = cell->data + at * width;
    if (most < 1) { /* wider than a chunk */
        for (int i = 0; i < n; i++) memcpy(to + (size_t)i * width, data + (size_t)width * (order ? order[i] : i), (size_t)width);
        return;
    }
    for (int i = 0; i < n;) {
        int m = n - i < most ? n - i : most;
        const uint8_t *values = data + (size_t)i * width;
        const uint16_t *some = order ? order + i : NULL;
        if (order) {
            values = extremes || stream ? gathered : to;
            gather(width, data, some, m, (uint8_t *)values);
        }
        if (extremes && !c->validity)
            extremes(values, m, &range);
        else if (extremes)
            extremes_sparse(extremes, width, values, c->validity, order ? row : row + i, some, m, &range);
        if (values != to) copy(to, values, (size_t)m * width, stream);
        to += (size_t)m * width;
        i += m;
    }
    cell->least = range.least, cell->most = range.most;
}

/* Bits from `row` on, in `order`, to bit `at` of `out`. `bits` NULL: ones. Every byte is stored, the last one with zeros
 * above, so `out` need not be cleared. */
static void put_bits(const uint8_t *bits, int64_t row, int n, const uint16_t *order, uint8_t *out, int64_t at) {
    uint8_t *to = out + (at >> 3);
    int have = (int)(at & 7), i = 0;
    unsigned acc = have ? *to : 0;
    if (!order && !have && (!bits || !(row & 7))) {
        int whole = n >> 3;
        if (bits)
            memcpy(to, bits + (row >> 3), (size_t)whole);
        else
            memset(to, 0xff, (size_t)whole);
        to += whole;
        i = whole << 3;
    }
    for (; i < n; i++) {
        acc |= (unsigned)(!bits || scad_bit(bits, row + (order ? order[i] : i))) << have;
        if (++have == 8) {
            *to++ = (uint8_t)acc;
            acc = 0, have = 0;
        }
    }
    if (have) *to = (uint8_t)acc;
}

#define PUT_STRINGS(NAME, T)                                                                                            \
    static void NAME(const struct scad_piece *c, int64_t row, int n, const uint16_t *order, int64_t at,                 \
                     struct scad_cell *cell) {                                                                          \
        const T *from = (const T *)c->offsets + row;                                                                    \
        T *offsets = (T *)cell->offsets + at;                                                                           \
        uint8_t *out = cell->data;                                                                                      \
        int64_t used = cell->used, room = cell->bytes, least = cell->least, most = cell->most;                          \
        if (!at) offsets[0] = 0;                                                                                        \
        if (!order) memcpy(out + used, c->data + from[0], (size_t)(from[n] - from[0]));                                 \
        for (int i = 0; i < n; i++) {                                                                                   \
            int k = order ? order[i] : i;                                                                               \
            int64_t start = from[k], length = (int64_t)from[k + 1] - start;                                             \
            const uint8_t *p = c->data + start;                                                                         \
            /* Sixteen bytes whatever the length, where nothing behind is overrun: no branch that cannot be guessed. */ \
            if (order && length <= 16 && used + 16 <= room && start + 16 <= c->size)                                             \
                memcpy(out + used, p, 16);                                                                              \
            else if (order && length)                                                                                   \
                memcpy(out + used, p, (size_t)length);                                                                  \
            used += length;                                                                                             \
            offsets[i + 1] = (T)used;                                                                                   \
            if (!c->validity || scad_bit(c->validity, row + k)) {                                                       \
                int64_t x = (int64_t)(scad_prefix(p, length, c->size - start) ^ (UINT64_C(1) << 63));                   \
                least = x < least ? x : least;                                                                          \
                most = x > most ? x : most;                                                                             \
            }                                                                                                           \
        }                                                                                                               \
        cell->used = used, cell->least = least, cell->most = most;                                                      \
    }
PUT_STRINGS(put_strings_32, int32_t)
PUT_STRINGS(put_strings_64, int64_t)

void scad_put(const struct scad_type *type, const struct scad_piece *c, int64_t from, int n, int64_t partitions,
              const uint16_t *order, const uint32_t *starts, const int64_t *at, struct scad_cell *cells, bool stream,
              const struct scad_ahead *ahead) {
    int64_t row = c->offset + from;
    if (type->kind == KIND_NULL) return;
    for (int64_t p = 0; p < partitions; p++) {
        struct scad_cell *cell = &cells[p];
        const uint16_t *some = order ? order + starts[p] : NULL;
        int m = order ? (int)(starts[p + 1] - starts[p]) : n;
        if (!m) continue;
        if (order && ahead->data) fetch_ahead(ahead, starts[p], starts[p + 1]);
        if (cell->validity) put_bits(c->validity, row, m, some, cell->validity, at[p]);
        switch (type->kind) {
        case KIND_BOOL: put_bits(c->data, row, m, some, cell->data, at[p]); break;
        case KIND_VAR32: put_strings_32(c, row, m, some, at[p], cell); break;
        case KIND_VAR64: put_strings_64(c, row, m, some, at[p], cell); break;
        default: put_fixed(type, c, row, m, some, at[p], cell, stream);
        }
    }
}
