/* Rows of Arrow columns as DuckDB's vectors have them. */
#ifndef SCAD_ROWS_H
#define SCAD_ROWS_H

#include "arrow_abi.h"

#include <stdbool.h>
#include <stdint.h>

/* DuckDB's numbers of types, as in its C interface. */
enum kind {
    K_BOOL = 1, K_INT8, K_INT16, K_INT32, K_INT64, K_UINT8, K_UINT16, K_UINT32, K_UINT64, K_FLOAT,
    K_DOUBLE, K_TIMESTAMP, K_DATE, K_TIME, K_VARCHAR = 17, K_BLOB = 18, K_DECIMAL = 19
};

struct column {
    char *name;
    enum kind kind;
    int width;         /* bytes of a stored value; of an offset, for strings */
    int digits, scale; /* of decimals */
    int index;         /* in the batch */
    bool ranged;       /* whether `low` and `high` are known */
    int64_t low, high;
};

/* Of a column of integers, the values of the rows that matter: bit `value - low`. */
struct key_set {
    int64_t column, low, span; /* values that have a bit */
    uint8_t *bits;
};

/* What an Arrow format says of a column; false if it is none that is scanned. */
bool understand(const char *format, struct column *column);

static inline bool holds_nulls(const struct ArrowArray *array) {
    return array->buffers[0] && array->null_count != 0;
}

/* Write `n` values from `at` on to a vector's data, and where the array holds nulls to its validity
 * too. */
void fill(const struct column *column, const struct ArrowArray *array, int64_t at, int64_t n,
          uint8_t *out, uint64_t *validity);
/* As `fill`, of `n` chosen rows in ascending order: their places from `at` on. */
void fill_chosen(const struct column *column, const struct ArrowArray *array, int64_t at,
                 const int32_t *rows, int64_t n, uint8_t *out, uint64_t *validity);

/* Of `n` rows from `at` on, or of the `n` of them that `known` has, the places of those whose key
 * is in a set. Their number; `out` may be `known`. */
int64_t choose(const struct key_set *set, const struct column *column,
               const struct ArrowArray *array, int64_t at, int64_t n, const int32_t *known,
               int32_t *out);

#endif
