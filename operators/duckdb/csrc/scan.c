#define _GNU_SOURCE
#include "scan.h"
#include "rows.h"
#include "statistics.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VECTOR = 2048, MORSEL = 60 * VECTOR };

struct morsel { int64_t batch, start, rows; };

struct scan_table {
    atomic_int references;
    int64_t id, rows, n_columns, n_batches, n_morsels;
    struct column *columns;
    struct ArrowArray *batches;
    struct morsel *morsels;
    struct key_set *kept; /* rows that are in all of them are given */
    int64_t n_kept;
    struct scan_table *next;
};

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct scan_table *registry;
static int64_t last_id;

/* -- tables ----------------------------------------------------------------------------------- */

static void discard(struct scan_table *table) {
    for (int64_t i = 0; table->columns && i < table->n_columns; i++) free(table->columns[i].name);
    for (int64_t i = 0; table->batches && i < table->n_batches; i++)
        if (table->batches[i].release) table->batches[i].release(&table->batches[i]);
    for (int64_t i = 0; i < table->n_kept; i++) free(table->kept[i].bits);
    free(table->kept);
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

bool scan_table_keep(struct scan_table *table, int64_t column, int64_t low, int64_t span,
                     const uint8_t *bits) {
    if (column < 0 || column >= table->n_columns) return false;
    enum kind kind = table->columns[column].kind;
    if (kind < K_INT8 || kind > K_INT64) return false;
    size_t size = (size_t)(span + 7) / 8;
    uint8_t *own = malloc(size ? size : 1);
    struct key_set *more = realloc(table->kept, (table->n_kept + 1) * sizeof *more);
    if (more) table->kept = more;
    if (!own || !more) {
        free(own);
        return false;
    }
    if (size) memcpy(own, bits, size);
    more[table->n_kept++] = (struct key_set){column, low, span, own};
    return true;
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
        if (holds_nulls(array)) return true;
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
struct cursor { struct morsel left; int32_t chosen[VECTOR]; };

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

/* The places, from `at` on, of those of `n` rows that are in all sets. */
static int64_t choose_all(const struct scan_table *table, const struct ArrowArray *batch,
                          int64_t at, int64_t n, int32_t *out) {
    for (int64_t k = 0; k < table->n_kept && n > 0; k++) {
        const struct key_set *set = &table->kept[k];
        const struct column *column = &table->columns[set->column];
        const struct ArrowArray *array = batch->children[column->index];
        n = choose(set, column, array, batch->offset + array->offset + at, n, k ? out : NULL, out);
    }
    return n;
}

static bool next_morsel(const struct scan_table *table, struct scan *scan, struct morsel *left) {
    if (left->rows > 0) return true;
    long long next = atomic_fetch_add(&scan->next, 1);
    if (next >= table->n_morsels) return false;
    *left = table->morsels[next];
    return true;
}

static void scan_rows(handle info, handle chunk) {
    struct scan_table *table = function_get_bind_data_(info);
    struct scan *scan = function_get_init_data_(info);
    struct cursor *cursor = function_get_local_init_data_(info);
    struct morsel *left = &cursor->left;
    int32_t *rows = table->n_kept ? cursor->chosen : NULL;
    const struct ArrowArray *batch = NULL;
    int64_t n = 0, start = 0;
    /* No rows would be the end; and a vector of few costs what a full one does, so that as many
     * blocks are looked at as it holds all rows of. */
    while (n == 0) {
        if (!next_morsel(table, scan, left)) {
            data_chunk_set_size_(chunk, 0);
            return;
        }
        batch = &table->batches[left->batch];
        start = left->start;
        while (left->rows > 0) {
            int64_t room = VECTOR - n, block = left->rows < VECTOR ? left->rows : VECTOR;
            if (block > room && (!rows || room < VECTOR / 4)) break;
            if (block > room) block = room;
            if (rows) {
                int64_t found = choose_all(table, batch, left->start, block, rows + n);
                for (int64_t i = n; i < n + found; i++) rows[i] += (int32_t)(left->start - start);
                n += found;
            } else {
                n += block;
            }
            left->start += block;
            left->rows -= block;
        }
    }
    for (idx_t i = 0; i < scan->n; i++) {
        if (scan->columns[i] >= (idx_t)table->n_columns) continue; /* rows are counted, not read */
        const struct column *column = &table->columns[scan->columns[i]];
        const struct ArrowArray *array = batch->children[column->index];
        int64_t at = batch->offset + array->offset + start;
        handle vector = data_chunk_get_vector_(chunk, i);
        uint64_t *validity = NULL;
        if (holds_nulls(array)) {
            vector_ensure_validity_writable_(vector);
            validity = vector_get_validity_(vector);
        }
        uint8_t *out = vector_get_data_(vector);
        if (rows) fill_chosen(column, array, at, rows, n, out, validity);
        else fill(column, array, at, n, out, validity);
    }
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
