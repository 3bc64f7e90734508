#define _GNU_SOURCE
#include "scan.h"
#include "statistics.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VECTOR = 2048, MORSEL = 60 * VECTOR };

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

struct morsel { int64_t batch, start, rows; };

struct scan_table {
    atomic_int references;
    int64_t id, rows, n_columns, n_batches, n_morsels;
    struct column *columns;
    struct ArrowArray *batches;
    struct morsel *morsels;
    struct scan_table *next;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct scan_table *registry;
static int64_t last_id;

/* -- tables ----------------------------------------------------------------------------------- */

static bool understand(const char *format, struct column *column) {
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

static void discard(struct scan_table *table) {
    for (int64_t i = 0; table->columns && i < table->n_columns; i++) free(table->columns[i].name);
    for (int64_t i = 0; table->batches && i < table->n_batches; i++)
        if (table->batches[i].release) table->batches[i].release(&table->batches[i]);
    free(table->columns);
    free(table->batches);
    free(table->morsels);
    free(table);
}

static bool lay_out(struct scan_table *table, const struct ArrowSchema *schema,
                    struct ArrowArray **batches, const char **reason) {
    for (int64_t i = 0; i < table->n_columns; i++) {
        struct column *column = &table->columns[i];
        column->index = (int)i;
        *reason = "out of memory";
        if (!(column->name = strdup(schema->children[i]->name))) return false;
        *reason = "a column's type";
        if (schema->children[i]->dictionary || !understand(schema->children[i]->format, column))
            return false;
    }
    int64_t morsels = 0;
    for (int64_t b = 0; b < table->n_batches; b++) {
        table->rows += batches[b]->length;
        morsels += (batches[b]->length + MORSEL - 1) / MORSEL;
    }
    *reason = "out of memory";
    if (!(table->morsels = calloc(morsels ? morsels : 1, sizeof *table->morsels))) return false;
    for (int64_t b = 0; b < table->n_batches; b++)
        for (int64_t at = 0; at < batches[b]->length; at += MORSEL) {
            int64_t left = batches[b]->length - at;
            table->morsels[table->n_morsels++] =
                (struct morsel){b, at, left < MORSEL ? left : MORSEL};
        }
    return true;
}

struct scan_table *scan_table_new(const struct ArrowSchema *schema, struct ArrowArray **batches,
                                  int64_t n, const char **reason) {
    struct scan_table *table = calloc(1, sizeof *table);
    *reason = "out of memory";
    if (!table) return NULL;
    table->n_columns = schema->n_children;
    table->columns = calloc(table->n_columns ? table->n_columns : 1, sizeof *table->columns);
    table->batches = calloc(n ? n : 1, sizeof *table->batches);
    table->n_batches = n;
    if (!table->columns || !table->batches || !lay_out(table, schema, batches, reason)) {
        discard(table);
        return NULL;
    }
    for (int64_t b = 0; b < n; b++) { /* moved, as the interface allows */
        table->batches[b] = *batches[b];
        batches[b]->release = NULL;
    }
    atomic_init(&table->references, 1);
    pthread_mutex_lock(&registry_lock);
    table->id = ++last_id;
    table->next = registry;
    registry = table;
    pthread_mutex_unlock(&registry_lock);
    return table;
}

void scan_table_range(struct scan_table *table, int64_t column, int64_t low, int64_t high) {
    struct column *known = &table->columns[column];
    known->ranged = true;
    known->low = low;
    known->high = high;
}

int64_t scan_table_id(const struct scan_table *table) { return table->id; }

void scan_table_release(struct scan_table *table) {
    if (atomic_fetch_sub(&table->references, 1) == 1) discard(table);
}

void scan_table_close(struct scan_table *table) {
    pthread_mutex_lock(&registry_lock);
    for (struct scan_table **at = &registry; *at; at = &(*at)->next)
        if (*at == table) {
            *at = table->next;
            break;
        }
    pthread_mutex_unlock(&registry_lock);
    scan_table_release(table);
}

static struct scan_table *find(int64_t id) {
    pthread_mutex_lock(&registry_lock);
    struct scan_table *table = registry;
    while (table && table->id != id) table = table->next;
    if (table) atomic_fetch_add(&table->references, 1);
    pthread_mutex_unlock(&registry_lock);
    return table;
}

static bool may_hold_nulls(const struct scan_table *table, const struct column *column) {
    for (int64_t b = 0; b < table->n_batches; b++) {
        const struct ArrowArray *array = table->batches[b].children[column->index];
        if (array->buffers[0] && array->null_count != 0) return true;
    }
    return false;
}

/* The range of a column of what may be a table that is open. */
static bool find_range(void *bound, uint64_t index, struct column_range *range) {
    pthread_mutex_lock(&registry_lock);
    struct scan_table *table = registry;
    while (table && table != bound) table = table->next;
    bool known = table && index < (uint64_t)table->n_columns && table->columns[index].ranged;
    if (known) {
        const struct column *column = &table->columns[index];
        *range = (struct column_range){(int)column->kind, column->low, column->high,
                                       may_hold_nulls(table, column)};
    }
    pthread_mutex_unlock(&registry_lock);
    return known;
}

/* -- DuckDB's C interface --------------------------------------------------------------------- */

typedef void *handle;
typedef uint64_t idx_t;

/* Resolved by name in the library that loads this extension, so that no header of it is needed. */
#define DUCKDB_FUNCTIONS(F)                                                                        \
    F(handle, create_table_function, (void))                                                       \
    F(void, destroy_table_function, (handle *))                                                    \
    F(void, table_function_set_name, (handle, const char *))                                       \
    F(void, table_function_add_parameter, (handle, handle))                                        \
    F(void, table_function_set_bind, (handle, void (*)(handle)))                                   \
    F(void, table_function_set_init, (handle, void (*)(handle)))                                   \
    F(void, table_function_set_local_init, (handle, void (*)(handle)))                             \
    F(void, table_function_set_function, (handle, void (*)(handle, handle)))                       \
    F(void, table_function_supports_projection_pushdown, (handle, bool))                           \
    F(int, register_table_function, (handle, handle))                                              \
    F(handle, bind_get_parameter, (handle, idx_t))                                                 \
    F(int64_t, get_int64, (handle))                                                                \
    F(void, destroy_value, (handle *))                                                             \
    F(void, bind_add_result_column, (handle, const char *, handle))                                \
    F(void, bind_set_bind_data, (handle, void *, void (*)(void *)))                                \
    F(void, bind_set_cardinality, (handle, idx_t, bool))                                           \
    F(void, bind_set_error, (handle, const char *))                                                \
    F(void *, init_get_bind_data, (handle))                                                        \
    F(void, init_set_init_data, (handle, void *, void (*)(void *)))                                \
    F(idx_t, init_get_column_count, (handle))                                                      \
    F(idx_t, init_get_column_index, (handle, idx_t))                                               \
    F(void, init_set_max_threads, (handle, idx_t))                                                 \
    F(void, init_set_error, (handle, const char *))                                                \
    F(void *, function_get_bind_data, (handle))                                                    \
    F(void *, function_get_init_data, (handle))                                                    \
    F(void *, function_get_local_init_data, (handle))                                              \
    F(handle, data_chunk_get_vector, (handle, idx_t))                                              \
    F(void, data_chunk_set_size, (handle, idx_t))                                                  \
    F(void *, vector_get_data, (handle))                                                           \
    F(void, vector_ensure_validity_writable, (handle))                                             \
    F(uint64_t *, vector_get_validity, (handle))                                                   \
    F(handle, create_logical_type, (int))                                                          \
    F(handle, create_decimal_type, (uint8_t, uint8_t))                                             \
    F(void, destroy_logical_type, (handle *))                                                      \
    F(int, connect, (handle, handle *))                                                            \
    F(void, disconnect, (handle *))

#define DECLARE(type, name, arguments) static type(*name##_) arguments;
DUCKDB_FUNCTIONS(DECLARE)

struct scan { atomic_llong next; idx_t n; idx_t columns[]; };
struct cursor { struct morsel left; };

static void release_table(void *table) { scan_table_release(table); }

static void bind(handle info) {
    handle value = bind_get_parameter_(info, 0);
    struct scan_table *table = find(get_int64_(value));
    destroy_value_(&value);
    if (!table) {
        bind_set_error_(info, "scad_scan: there is no table of that number");
        return;
    }
    for (int64_t i = 0; i < table->n_columns; i++) {
        struct column *column = &table->columns[i];
        handle type = column->kind == K_DECIMAL
                          ? create_decimal_type_((uint8_t)column->digits, (uint8_t)column->scale)
                          : create_logical_type_(column->kind);
        bind_add_result_column_(info, column->name, type);
        destroy_logical_type_(&type);
    }
    bind_set_cardinality_(info, (idx_t)table->rows, true);
    bind_set_bind_data_(info, table, release_table);
}

static void start(handle info) {
    struct scan_table *table = init_get_bind_data_(info);
    idx_t n = init_get_column_count_(info);
    struct scan *scan = malloc(sizeof *scan + n * sizeof *scan->columns);
    if (!scan) {
        init_set_error_(info, "scad_scan: out of memory");
        return;
    }
    atomic_init(&scan->next, 0);
    scan->n = n;
    for (idx_t i = 0; i < n; i++) scan->columns[i] = init_get_column_index_(info, i);
    init_set_init_data_(info, scan, free);
    init_set_max_threads_(info, table->n_morsels > 0 ? (idx_t)table->n_morsels : 1);
}

static void start_thread(handle info) {
    struct cursor *cursor = calloc(1, sizeof *cursor);
    if (cursor)
        init_set_init_data_(info, cursor, free);
    else
        init_set_error_(info, "scad_scan: out of memory");
}

static void fill_validity(handle vector, const uint8_t *bits, int64_t at, int64_t n) {
    vector_ensure_validity_writable_(vector);
    uint8_t *out = (uint8_t *)vector_get_validity_(vector);
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
#define FILL_STRINGS(offset_type)                                                                  \
    do {                                                                                           \
        const offset_type *offsets = (const offset_type *)values + at;                             \
        for (int64_t r = 0; r < n; r++, out += 16) {                                               \
            uint32_t size = (uint32_t)(offsets[r + 1] - offsets[r]);                               \
            const uint8_t *text = bytes + offsets[r];                                              \
            memcpy(out, &size, 4);                                                                 \
            if (size <= 12) {                                                                      \
                memset(out + 4, 0, 12);                                                            \
                if (size) memcpy(out + 4, text, size);                                             \
            } else {                                                                               \
                memcpy(out + 4, text, 4);                                                          \
                memcpy(out + 8, &text, 8);                                                         \
            }                                                                                      \
        }                                                                                          \
    } while (0)

#define NARROW(from, to)                                                                           \
    do {                                                                                           \
        const from *in = (const from *)values + at;                                                \
        for (int64_t r = 0; r < n; r++) ((to *)out)[r] = (to)in[r];                                \
    } while (0)

static void fill(const struct column *column, const struct ArrowArray *array, int64_t at, int64_t n,
                 handle vector) {
    const uint8_t *values = array->buffers[1];
    uint8_t *out = vector_get_data_(vector);
    if (array->buffers[0] && array->null_count != 0)
        fill_validity(vector, array->buffers[0], at, n);
    if (column->kind == K_BOOL) {
        for (int64_t r = 0; r < n; r++) out[r] = values[(at + r) / 8] >> ((at + r) % 8) & 1;
    } else if (column->kind == K_VARCHAR || column->kind == K_BLOB) {
        const uint8_t *bytes = array->buffers[2];
        if (column->width == 4) FILL_STRINGS(int32_t);
        else FILL_STRINGS(int64_t);
    } else if (column->kind != K_DECIMAL) {
        memcpy(out, values + at * column->width, (size_t)(n * column->width));
    } else {
        /* DuckDB stores decimals of 4, 9, 18 and 38 digits in 2, 4, 8 and 16 bytes. */
        int width = column->digits <= 4 ? 2 : column->digits <= 9 ? 4 : column->digits <= 18 ? 8 : 16;
        if (width == column->width) memcpy(out, values + at * width, (size_t)(n * width));
        else if (column->width == 4 && width == 2) NARROW(int32_t, int16_t);
        else if (column->width == 8 && width == 2) NARROW(int64_t, int16_t);
        else if (column->width == 8 && width == 4) NARROW(int64_t, int32_t);
        else if (column->width == 16 && width == 2) NARROW(__int128, int16_t);
        else if (column->width == 16 && width == 4) NARROW(__int128, int32_t);
        else NARROW(__int128, int64_t);
    }
}

static void scan_rows(handle info, handle chunk) {
    struct scan_table *table = function_get_bind_data_(info);
    struct scan *scan = function_get_init_data_(info);
    struct morsel *left = &((struct cursor *)function_get_local_init_data_(info))->left;
    if (left->rows == 0) {
        long long next = atomic_fetch_add(&scan->next, 1);
        if (next >= table->n_morsels) {
            data_chunk_set_size_(chunk, 0);
            return;
        }
        *left = table->morsels[next];
    }
    int64_t n = left->rows < VECTOR ? left->rows : VECTOR;
    const struct ArrowArray *batch = &table->batches[left->batch];
    for (idx_t i = 0; i < scan->n; i++) {
        if (scan->columns[i] >= (idx_t)table->n_columns) continue; /* rows are counted, not read */
        const struct column *column = &table->columns[scan->columns[i]];
        const struct ArrowArray *array = batch->children[column->index];
        fill(column, array, batch->offset + array->offset + left->start, n,
             data_chunk_get_vector_(chunk, i));
    }
    left->start += n;
    left->rows -= n;
    data_chunk_set_size_(chunk, (idx_t)n);
}

/* -- the extension ---------------------------------------------------------------------------- */

struct extension_access {
    void (*set_error)(handle, const char *);
    handle *(*get_database)(handle);
    const void *(*get_api)(handle, const char *);
};

static bool statistics_known;

static const char *resolve(const void *address) {
    Dl_info found;
    void *library = dladdr(address, &found) ? dlopen(found.dli_fname, RTLD_NOW | RTLD_NOLOAD) : NULL;
    if (!library) return "scad_scan: DuckDB's own library cannot be found";
#define RESOLVE(type, name, arguments)                                                             \
    if (!(*(void **)&name##_ = dlsym(library, "duckdb_" #name)))                                   \
        return "scad_scan: this DuckDB lacks duckdb_" #name;
    DUCKDB_FUNCTIONS(RESOLVE)
    statistics_known = statistics_resolve(library);
    dlclose(library);
    return NULL;
}

/* What DuckDB calls for `LOAD '…/_scan….so'`. */
__attribute__((visibility("default"))) bool _scan_init_c_api(handle info,
                                                             struct extension_access *access) {
    const char *wrong = resolve((const void *)access->get_database);
    handle *database = wrong ? NULL : access->get_database(info);
    handle connection = NULL;
    if (!wrong && (!database || connect_(*database, &connection) != 0))
        wrong = "scad_scan: no connection";
    if (wrong) {
        access->set_error(info, wrong);
        return false;
    }
    handle function = create_table_function_(), number = create_logical_type_(K_INT64);
    table_function_set_name_(function, "scad_scan");
    table_function_add_parameter_(function, number);
    table_function_set_bind_(function, bind);
    table_function_set_init_(function, start);
    table_function_set_local_init_(function, start_thread);
    table_function_set_function_(function, scan_rows);
    table_function_supports_projection_pushdown_(function, true);
    if (statistics_known) statistics_offer(function, find_range);
    bool done = register_table_function_(connection, function) == 0;
    destroy_logical_type_(&number);
    destroy_table_function_(&function);
    disconnect_(&connection);
    if (!done) access->set_error(info, "scad_scan: it cannot be registered");
    return done;
}
