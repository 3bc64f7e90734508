#include "rows.h"

#include <stdio.h>
#include <string.h>

bool understand(const char *format, struct column *column) {
    static const struct { const char *format; enum kind kind; int width; } plain[] = {
        {"b", K_BOOL, 0},   {"c", K_INT8, 1},   {"s", K_INT16, 2},    {"i", K_INT32, 4},
        {"l", K_INT64, 8},  {"C", K_UINT8, 1},  {"S", K_UINT16, 2},   {"I", K_UINT32, 4},
        {"L", K_UINT64, 8}, {"f", K_FLOAT, 4},  {"g", K_DOUBLE, 8},   {"tdD", K_DATE, 4},
        {"tsu:", K_TIMESTAMP, 8}, {"ttu", K_TIME, 8}, {"u", K_VARCHAR, 4}, {"U", K_VARCHAR, 8},
        {"z", K_BLOB, 4},   {"Z", K_BLOB, 8},
    };
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (strcmp(format, plain[i].format) == 0) {
            column->kind = plain[i].kind;
            column->width = plain[i].width;
            return true;
        }
    int digits, scale, bits = 128;
    if (sscanf(format, "d:%d,%d,%d", &digits, &scale, &bits) >= 2 && scale >= 0 && digits <= 38 &&
        (bits == 32 || bits == 64 || bits == 128)) {
        *column = (struct column){.name = column->name, .kind = K_DECIMAL, .width = bits / 8,
                                  .digits = digits, .scale = scale, .index = column->index};
        return true;
    }
    return false;
}

static void fill_validity(uint8_t *out, const uint8_t *bits, int64_t at, int64_t n) {
    if (at % 8 == 0) {
        memcpy(out, bits + at / 8, (size_t)((n + 7) / 8));
        return;
    }
    int shift = (int)(at % 8);
    bits += at / 8;
    for (int64_t i = 0; i < (n + 7) / 8; i++) {
        int more = i * 8 + 8 - shift < n; /* whether the next byte holds bits that are wanted */
        out[i] = (uint8_t)(bits[i] >> shift | (more ? bits[i + 1] << (8 - shift) : 0));
    }
}

/* DuckDB's string: its length, and either up to 12 bytes, or 4 and a pointer. The bytes stay where
 * they are for as long as the statement is bound. */
static inline void put_string(uint8_t *out, const uint8_t *text, uint32_t size) {
    memcpy(out, &size, 4);
    if (size <= 12) {
        memset(out + 4, 0, 12);
        if (size) memcpy(out + 4, text, size);
    } else {
        memcpy(out + 4, text, 4);
        memcpy(out + 8, &text, 8);
    }
}

#define FILL_STRINGS(offset_type)                                                                  \
    do {                                                                                           \
        const offset_type *offsets = (const offset_type *)values + at;                             \
        for (int64_t r = 0; r < n; r++, out += 16)                                                 \
            put_string(out, bytes + offsets[r], (uint32_t)(offsets[r + 1] - offsets[r]));          \
    } while (0)

#define NARROW(from, to)                                                                           \
    do {                                                                                           \
        const from *in = (const from *)values + at;                                                \
        for (int64_t r = 0; r < n; r++) ((to *)out)[r] = (to)in[r];                                \
    } while (0)

/* Bytes of a value in DuckDB: of decimals of up to 4, 9, 18 and 38 digits 2, 4, 8 and 16. */
static int stored_width(const struct column *column) {
    if (column->kind != K_DECIMAL) return column->width;
    return column->digits <= 4 ? 2 : column->digits <= 9 ? 4 : column->digits <= 18 ? 8 : 16;
}

void fill(const struct column *column, const struct ArrowArray *array, int64_t at, int64_t n,
          uint8_t *out, uint64_t *validity) {
    const uint8_t *values = array->buffers[1];
    if (holds_nulls(array)) fill_validity((uint8_t *)validity, array->buffers[0], at, n);
    if (column->kind == K_BOOL) {
        for (int64_t r = 0; r < n; r++) out[r] = values[(at + r) / 8] >> ((at + r) % 8) & 1;
    } else if (column->kind == K_VARCHAR || column->kind == K_BLOB) {
        const uint8_t *bytes = array->buffers[2];
        if (column->width == 4) FILL_STRINGS(int32_t);
        else FILL_STRINGS(int64_t);
    } else if (column->kind != K_DECIMAL) {
        memcpy(out, values + at * column->width, (size_t)(n * column->width));
    } else {
        int width = stored_width(column);
        if (width == column->width) memcpy(out, values + at * width, (size_t)(n * width));
        else if (column->width == 4 && width == 2) NARROW(int32_t, int16_t);
        else if (column->width == 8 && width == 2) NARROW(int64_t, int16_t);
        else if (column->width == 8 && width == 4) NARROW(int64_t, int32_t);
        else if (column->width == 16 && width == 2) NARROW(__int128, int16_t);
        else if (column->width == 16 && width == 4) NARROW(__int128, int32_t);
        else NARROW(__int128, int64_t);
    }
}

/* The difference is taken without a sign, so that what is below `low` is beyond the span too. */
#define CHOOSE(type)                                                                               \
    do {                                                                                           \
        const type *keys = (const type *)array->buffers[1] + at;                                   \
        for (int64_t i = 0; i < n; i++) {                                                          \
            int32_t r = known ? known[i] : (int32_t)i;                                             \
            uint64_t bit = (uint64_t)(int64_t)keys[r] - (uint64_t)set->low;                        \
            bool inside = bit < (uint64_t)set->span;                                               \
            bit = inside ? bit : 0;                                                                \
            out[found] = r;                                                                        \
            found += inside & (set->bits[bit / 8] >> (bit % 8));                                   \
        }                                                                                          \
    } while (0)

int64_t choose(const struct key_set *set, const struct column *column,
               const struct ArrowArray *array, int64_t at, int64_t n, const int32_t *known,
               int32_t *out) {
    int64_t found = 0;
    if (set->span == 0) return 0;
    switch (column->width) {
    case 1: CHOOSE(int8_t); break;
    case 2: CHOOSE(int16_t); break;
    case 4: CHOOSE(int32_t); break;
    default: CHOOSE(int64_t);
    }
    if (!holds_nulls(array)) return found;
    const uint8_t *valid = array->buffers[0]; /* NULL is no key */
    int64_t left = 0;
    for (int64_t i = 0; i < found; i++) {
        int64_t r = at + out[i];
        out[left] = out[i];
        left += valid[r / 8] >> (r % 8) & 1;
    }
    return left;
}

#define PICK(type)                                                                                 \
    do {                                                                                           \
        const type *in = (const type *)values + at;                                                \
        for (int64_t i = 0; i < n; i++) ((type *)out)[i] = in[rows[i]];                            \
    } while (0)

#define PICK_STRINGS(offset_type)                                                                  \
    do {                                                                                           \
        const offset_type *offsets = (const offset_type *)values + at;                             \
        for (int64_t i = 0; i < n; i++)                                                            \
            put_string(out + 16 * i, bytes + offsets[rows[i]],                                     \
                       (uint32_t)(offsets[rows[i] + 1] - offsets[rows[i]]));                       \
    } while (0)

#define PICK_NARROW(from, to)                                                                      \
    do {                                                                                           \
        const from *in = (const from *)values + at;                                                \
        for (int64_t i = 0; i < n; i++) ((to *)out)[i] = (to)in[rows[i]];                          \
    } while (0)

void fill_chosen(const struct column *column, const struct ArrowArray *array, int64_t at,
                 const int32_t *rows, int64_t n, uint8_t *out, uint64_t *validity) {
    if (rows[n - 1] - rows[0] == n - 1) { /* neighbours */
        fill(column, array, at + rows[0], n, out, validity);
        return;
    }
    const uint8_t *values = array->buffers[1];
    if (holds_nulls(array)) {
        const uint8_t *valid = array->buffers[0];
        for (int64_t w = 0; w * 64 < n; w++) {
            uint64_t word = 0;
            for (int64_t i = w * 64; i < n && i < w * 64 + 64; i++) {
                int64_t r = at + rows[i];
                word |= (uint64_t)(valid[r / 8] >> (r % 8) & 1) << (i % 64);
            }
            validity[w] = word;
        }
    }
    if (column->kind == K_BOOL) {
        for (int64_t i = 0; i < n; i++)
            out[i] = values[(at + rows[i]) / 8] >> ((at + rows[i]) % 8) & 1;
        return;
    }
    if (column->kind == K_VARCHAR || column->kind == K_BLOB) {
        const uint8_t *bytes = array->buffers[2];
        if (column->width == 4) PICK_STRINGS(int32_t);
        else PICK_STRINGS(int64_t);
        return;
    }
    int width = stored_width(column);
    if (width == column->width) {
        switch (width) {
        case 1: PICK(int8_t); break;
        case 2: PICK(int16_t); break;
        case 4: PICK(int32_t); break;
        case 8: PICK(int64_t); break;
        default: PICK(__int128);
        }
    } else if (column->width == 4) PICK_NARROW(int32_t, int16_t);
    else if (column->width == 8 && width == 2) PICK_NARROW(int64_t, int16_t);
    else if (column->width == 8) PICK_NARROW(int64_t, int32_t);
    else if (width == 2) PICK_NARROW(__int128, int16_t);
    else if (width == 4) PICK_NARROW(__int128, int32_t);
    else PICK_NARROW(__int128, int64_t);
}
