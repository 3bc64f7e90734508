/* Which partition a row belongs to: by hash, or by ranges of sorted boundaries. */
#include "hash.h"
#include "scatter.h"

#define BLOCK 2048
#define FEW 256

/* Hashes of one key column, combined with those of the columns before it. */
static void hash_column(const struct scad_type *type, const struct scad_piece *c, int64_t from, int64_t n, uint64_t *h,
                        bool first) {
    int64_t base = c->offset + from;
#define ROTATE(x) (((x) << 5) | ((x) >> 59))
#define LOOP(HASH)                                                                                                      \
    do {                                                                                                                \
        if (first)                                                                                                      \
            for (int64_t i = 0; i < n; i++) h[i] = (HASH);                                                              \
        else                                                                                                            \
            for (int64_t i = 0; i < n; i++) h[i] = scad_mix(ROTATE(h[i]) ^ (HASH));                                     \
    } while (0)
    /* One loop per common form, so that the compiler sees the kind. */
#define FORM(KIND, WIDTH) LOOP(scad_hash_valid(KIND, WIDTH, c, base + i))
    if (c->validity || type->kind == KIND_NULL)
        LOOP(type->kind != KIND_NULL && scad_bit(c->validity, base + i) ? scad_hash_valid(type->kind, type->width, c, base + i)
                                                                       : SCAD_NULL_HASH);
    else if (type->kind == KIND_SIGNED && type->width == 4)
        FORM(KIND_SIGNED, 4);
    else if (type->kind == KIND_SIGNED && type->width == 8)
        FORM(KIND_SIGNED, 8);
    else if (type->kind == KIND_VAR32)
        FORM(KIND_VAR32, 0);
    else
        FORM(type->kind, type->width);
#undef FORM
#undef LOOP
#undef ROTATE
}

/* Adds up how often each partition occurs. In four histograms, if they are small: an increment need not wait for the one
 * before it. */
static void count(const uint16_t *pid, int n, int64_t partitions, int64_t *rows) {
    uint32_t counts[4][FEW];
    int i = 0;
    if (partitions <= FEW) {
        for (int k = 0; k < 4; k++) memset(counts[k], 0, (size_t)partitions * sizeof(uint32_t));
        for (; i + 4 <= n; i += 4) {
            counts[0][pid[i]]++;
            counts[1][pid[i + 1]]++;
            counts[2][pid[i + 2]]++;
            counts[3][pid[i + 3]]++;
        }
        for (int64_t p = 0; p < partitions; p++) rows[p] += counts[0][p] + counts[1][p] + counts[2][p] + counts[3][p];
    }
    for (; i < n; i++) rows[pid[i]]++;
}

void scad_assign_hash(const struct scad_type *types, const struct scad_piece *const *keys, int n_keys, int64_t n,
                      int64_t partitions, uint16_t *pid, int64_t *rows) {
    uint64_t h[BLOCK];
    for (int64_t from = 0; from < n; from += BLOCK) {
        int64_t m = n - from < BLOCK ? n - from : BLOCK;
        uint16_t *to = pid + from;
        for (int k = 0; k < n_keys; k++) hash_column(&types[k], keys[k], from, m, h, k == 0);
        /* Daniel Lemire, "Fast Random Integer Generation in an Interval", 2019. */
        for (int64_t i = 0; i < m; i++) to[i] = (uint16_t)(((h[i] >> 32) * (uint64_t)partitions) >> 32);
        count(to, (int)m, partitions, rows);
    }
}

static int64_t ordered_valid(const struct scad_type *type, const struct scad_piece *c, int64_t row) {
    int64_t start, length;
    uint64_t low, high;
    switch (type->kind) {
    case KIND_BOOL: return scad_bit(c->data, row);
    case KIND_SIGNED:
        switch (type->width) {
        case 1: return ((const int8_t *)c->data)[row];
        case 2: return ((const int16_t *)c->data)[row];
        case 4: return ((const int32_t *)c->data)[row];
        case 8: return ((const int64_t *)c->data)[row];
        default:
            /* What does not fit is clamped: equal ranks are looked at again. */
            memcpy(&low, c->data + row * 16, 8);
            memcpy(&high, c->data + row * 16 + 8, 8);
            if ((int64_t)high != (int64_t)low >> 63) return (int64_t)high < 0 ? INT64_MIN : INT64_MAX;
            return (int64_t)low;
        }
    case KIND_UNSIGNED:
        switch (type->width) {
        case 1: return c->data[row];
        case 2: return ((const uint16_t *)c->data)[row];
        case 4: return ((const uint32_t *)c->data)[row];
        default: return (int64_t)(((const uint64_t *)c->data)[row] ^ (UINT64_C(1) << 63));
        }
    case KIND_FLOAT:
        return scad_ordered_double(type->width == 4 ? (double)((const float *)c->data)[row] : ((const double *)c->data)[row]);
    case KIND_VAR32:
    case KIND_VAR64:
        length = scad_span(type->kind, c, row, &start);
        return (int64_t)(scad_prefix(c->data + start, length, c->size - start) ^ (UINT64_C(1) << 63));
    case KIND_BYTES:
        return (int64_t)(scad_prefix(c->data + row * type->width, type->width, c->size - row * type->width) ^ (UINT64_C(1) << 63));
    default: return 0;
    }
}

int64_t scad_rank(const struct scad_type *type, const struct scad_piece *c, int64_t row, bool descending, bool nulls_first) {
    row += c->offset;
    /* Nulls share a rank with the outermost values: equal ranks are looked at again. */
    if (type->kind == KIND_NULL || !scad_valid(c, row)) return nulls_first ? INT64_MIN : INT64_MAX;
    int64_t v = ordered_valid(type, c, row);
    return descending ? ~v : v;
}

static int compare_bytes(const uint8_t *a, int64_t n, const uint8_t *b, int64_t m) {
    int64_t least = n < m ? n : m;
    int order = least ? memcmp(a, b, (size_t)least) : 0;
    return order ? order : (n > m) - (n < m);
}

/* Both valid; ascending. */
static int compare_values(const struct scad_type *type, const struct scad_piece *a, int64_t i, const struct scad_piece *b,
                          int64_t j) {
    if (scad_is_variable(type->kind)) {
        int64_t s, t, n = scad_span(type->kind, a, i, &s), m = scad_span(type->kind, b, j, &t);
        return compare_bytes(a->data + s, n, b->data + t, m);
    }
    if (type->kind == KIND_BYTES)
        return memcmp(a->data + i * type->width, b->data + j * type->width, (size_t)type->width);
    if (type->kind == KIND_SIGNED && type->width == 16) {
        __int128 v, w;
        memcpy(&v, a->data + i * 16, 16);
        memcpy(&w, b->data + j * 16, 16);
        return (v > w) - (v < w);
    }
    int64_t v = ordered_valid(type, a, i), w = ordered_valid(type, b, j);
    return (v > w) - (v < w);
}

/* Row `i` of `a` against row `j` of `b` in the order that is asked for. */
static int compare_rows(const struct scad_type *types, const struct scad_piece *const *a, int64_t i,
                        const struct scad_ranges *r, int64_t j, int n_keys) {
    for (int k = 0; k < n_keys; k++) {
        const struct scad_piece *b = &r->keys[k];
        int64_t x = a[k]->offset + i, y = b->offset + j;
        bool left = types[k].kind != KIND_NULL && scad_valid(a[k], x);
        bool right = types[k].kind != KIND_NULL && scad_valid(b, y);
        if (left != right) return left == (bool)r->nulls_first[k] ? 1 : -1;
        if (!left) continue;
        int order = compare_values(&types[k], a[k], x, b, y);
        if (order) return r->descending[k] ? -order : order;
    }
    return 0;
}

void scad_assign_ranges(const struct scad_type *types, const struct scad_piece *const *keys, int n_keys, int64_t n,
                        const struct scad_ranges *r, uint16_t *pid, int64_t *rows) {
    for (int64_t i = 0; i < n; i++) {
        int64_t rank = scad_rank(&types[0], keys[0], i, r->descending[0], r->nulls_first[0]);
        /* How many boundaries are not after the row: by rank without branches, then past those of equal rank. */
        const int64_t *base = r->ranks;
        int64_t left = r->count;
        while (left > 1) {
            int64_t half = left / 2;
            base += (base[half - 1] < rank) ? half : 0;
            left -= half;
        }
        int64_t p = base - r->ranks + (left == 1 && *base < rank);
        int64_t end = p;
        while (end < r->count && r->ranks[end] == rank) end++;
        while (p < end) {
            int64_t middle = (p + end) / 2;
            if (compare_rows(types, keys, i, r, middle, n_keys) >= 0)
                p = middle + 1;
            else
                end = middle;
        }
        pid[i] = (uint16_t)p;
        rows[p]++;
    }
}
