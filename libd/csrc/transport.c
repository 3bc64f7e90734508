/* What all transports have in common: epochs by region, address arithmetic, counters, closing. */
#include "transport.h"

#include <stdlib.h>

int (*libd_check_signals)(void);

static unsigned generation;

static void forked(void) { generation++; }

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }

unsigned libd_generation(void) { return generation; }

static int usable(struct libd_transport *t, struct libd_error *err)
{
    if (atomic_load_explicit(&t->closed, memory_order_acquire))
        return libd_fail(err, LIBD_ECLOSED, 0, 0);
    if (t->generation != generation)
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    return LIBD_OK;
}

LIBD_HOT static uint64_t bound_epoch(struct libd_transport *t, uint64_t region)
{
    libd_bound *chunk = atomic_load_explicit(&t->bound[region / LIBD_BOUND_CHUNK], memory_order_acquire);

    return chunk ? atomic_load_explicit(&chunk[region % LIBD_BOUND_CHUNK], memory_order_relaxed) : 0;
}

static int bind_epoch(struct libd_transport *t, uint64_t region, uint64_t epoch, struct libd_error *err)
{
    _Atomic(libd_bound *) *place = &t->bound[region / LIBD_BOUND_CHUNK];
    libd_bound *chunk = atomic_load_explicit(place, memory_order_acquire);

    if (!chunk) {
        libd_bound *fresh = calloc(LIBD_BOUND_CHUNK, sizeof *fresh);
        if (!fresh)
            return libd_fail(err, LIBD_ENOMEM, 0, 0);
        if (atomic_compare_exchange_strong(place, &chunk, fresh))
            chunk = fresh;
        else
            free(fresh);
    }
    atomic_store_explicit(&chunk[region % LIBD_BOUND_CHUNK], epoch, memory_order_relaxed);
    return LIBD_OK;
}

/* The epoch to send along with an access to `addr`. */
LIBD_HOT static int held_epoch(struct libd_transport *t, uint64_t addr, uint64_t *epoch, struct libd_error *err)
{
    uint64_t region = addr >> LIBD_OFFSET_BITS, size;
    int code;

    if (region >= LIBD_SLOTS)
        return libd_fail(err, LIBD_EBOUNDS, 0, 0);
    *epoch = bound_epoch(t, region);
    if (*epoch)
        return LIBD_OK;
    code = t->ops->region(t, addr & ~LIBD_OFFSET_MASK, epoch, &size, err);
    return code ? code : bind_epoch(t, region, *epoch, err);
}

LIBD_HOT static int prepare(struct libd_transport *t, struct libd_vec *vec, size_t count, uint64_t *bytes,
                   struct libd_error *err)
{
    int code = usable(t, err);

    *bytes = 0;
    for (size_t i = 0; i < count && !code; i++) {
        /* A range never leaves its region: adding must not carry into the region's number, or out of the address. */
        if (vec[i].size > LIBD_OFFSET_MASK + 1 ||
            (vec[i].addr & LIBD_OFFSET_MASK) + vec[i].size > LIBD_OFFSET_MASK + 1)
            return libd_fail(err, LIBD_EBOUNDS, 0, 0);
        code = held_epoch(t, vec[i].addr, &vec[i].epoch, err);
        *bytes += vec[i].size;
    }
    return code;
}

static void count(_Atomic uint64_t *calls, uint64_t n, _Atomic uint64_t *bytes, uint64_t amount)
{
    atomic_fetch_add_explicit(calls, n, memory_order_relaxed);
    atomic_fetch_add_explicit(bytes, amount, memory_order_relaxed);
}

/* A batch as a call that waits. Only its end frees the caller's memory for other uses: after a signal the connection is
 * given up rather than the wait. */
static int run_batch(struct libd_transport *t, struct libd_vec *vec, size_t n, size_t reads, struct libd_error *err)
{
    struct libd_batch batch = {.vec = vec, .count = n, .reads = reads};
    int code = t->ops->submit(t, &batch, err);

    if (code)
        return code;
    code = t->ops->progress(t, &batch, -1, err);
    if (!libd_batch_done(&batch)) {
        struct libd_error ignored;
        t->ops->abandon(t);
        while (!libd_batch_done(&batch))
            t->ops->progress(t, &batch, -1, &ignored);
        return code;
    }
    if (code == LIBD_ESIGNAL) /* the handler's exception is set, whatever became of the batch meanwhile */
        return code;
    *err = batch.err;
    return batch.err.code;
}

LIBD_HOT int libd_readv(struct libd_transport *t, struct libd_vec *vec, size_t n, struct libd_error *err)
{
    uint64_t bytes;
    int code = prepare(t, vec, n, &bytes, err);

    if (code || n == 0)
        return code;
    code = t->ops->readv ? t->ops->readv(t, vec, n, err) : run_batch(t, vec, n, n, err);
    if (!code)
        count(&t->counters.reads, n, &t->counters.bytes_read, bytes);
    return code;
}

LIBD_HOT int libd_writev(struct libd_transport *t, struct libd_vec *vec, size_t n, struct libd_error *err)
{
    uint64_t bytes;
    int code = prepare(t, vec, n, &bytes, err);

    if (code || n == 0)
        return code;
    code = t->ops->writev ? t->ops->writev(t, vec, n, err) : run_batch(t, vec, n, 0, err);
    if (!code)
        count(&t->counters.writes, n, &t->counters.bytes_written, bytes);
    return code;
}

int libd_map(struct libd_transport *t, uint64_t addr, uint64_t size, int writable, void **out,
             struct libd_error *err)
{
    struct libd_vec vec = {.addr = addr, .size = size};
    uint64_t bytes;
    int code;

    if (!t->ops->map)
        return libd_fail(err, LIBD_EUNSUPPORTED, 0, 0);
    code = prepare(t, &vec, 1, &bytes, err);
    if (!code)
        code = t->ops->map(t, addr, vec.epoch, size, out, err);
    if (!code)
        count(&t->counters.maps, 1, writable ? &t->counters.bytes_mapped_writable : &t->counters.bytes_mapped, bytes);
    return code;
}

int libd_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err)
{
    int code = prepare(t, batch->vec, batch->reads, &batch->bytes_in, err);

    if (!code)
        code = prepare(t, batch->vec + batch->reads, batch->count - batch->reads, &batch->bytes_out, err);
    if (code)
        return code;
    batch->err.code = LIBD_OK;
    atomic_store_explicit(&batch->done, false, memory_order_relaxed);
    atomic_store_explicit(&batch->counted, false, memory_order_relaxed);
    if (batch->count && t->ops->submit)
        return t->ops->submit(t, batch, err);
    if (batch->reads)
        code = t->ops->readv(t, batch->vec, batch->reads, &batch->err);
    if (!code && batch->count > batch->reads)
        t->ops->writev(t, batch->vec + batch->reads, batch->count - batch->reads, &batch->err);
    atomic_store_explicit(&batch->done, true, memory_order_release);
    return LIBD_OK;
}

int libd_wait(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err)
{
    int code = LIBD_OK;

    if (!libd_batch_done(batch))
        code = t->ops->progress(t, batch, timeout, err);
    if (code == LIBD_ESIGNAL)
        return code;
    if (!libd_batch_done(batch))
        return code ? code : libd_fail(err, LIBD_ETIMEOUT, 0, 2);
    *err = batch->err;
    if (!batch->err.code && !atomic_exchange(&batch->counted, true)) {
        count(&t->counters.reads, batch->reads, &t->counters.bytes_read, batch->bytes_in);
        count(&t->counters.writes, batch->count - batch->reads, &t->counters.bytes_written, batch->bytes_out);
    }
    return err->code;
}

void libd_poll(struct libd_transport *t)
{
    struct libd_error ignored;

    if (t->ops->progress)
        t->ops->progress(t, NULL, 0, &ignored);
}

int libd_fd(struct libd_transport *t) { return t->ops->fd && t->generation == generation ? t->ops->fd(t) : -1; }

int libd_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t a, uint64_t b, uint64_t *old,
                struct libd_error *err)
{
    struct libd_vec word = {.addr = addr, .size = sizeof *old};
    uint64_t bytes;
    int code;

    if (!t->ops->atomic)
        return libd_fail(err, LIBD_EUNSUPPORTED, 0, 0);
    code = prepare(t, &word, 1, &bytes, err);
    if (!code && addr % sizeof *old)
        code = libd_fail(err, LIBD_EINVAL, 0, 0);
    if (!code)
        code = t->ops->atomic(t, op, addr, word.epoch, a, b, old, err);
    if (!code)
        atomic_fetch_add_explicit(&t->counters.atomics, 1, memory_order_relaxed);
    return code;
}

int libd_renew(struct libd_transport *t, uint64_t addr, uint64_t lease_ms, struct libd_error *err)
{
    uint64_t epoch;
    int code = usable(t, err);

    if (!code)
        code = held_epoch(t, addr, &epoch, err);
    if (!code && !t->ops->renew)
        code = libd_fail(err, LIBD_EUNSUPPORTED, 0, 0);
    return code ? code : t->ops->renew(t, addr, epoch, lease_ms, err);
}

int libd_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint64_t *addr, struct libd_error *err)
{
    uint32_t region;
    uint64_t epoch;
    int code = usable(t, err);

    if (!code)
        code = t->ops->alloc(t, wanted, &region, &epoch, err);
    if (!code)
        code = bind_epoch(t, region, epoch, err);
    if (!code)
        *addr = (uint64_t)region << LIBD_OFFSET_BITS;
    return code;
}

int libd_free(struct libd_transport *t, uint64_t addr, struct libd_error *err)
{
    uint64_t epoch;
    int code = usable(t, err);

    if (!code)
        code = held_epoch(t, addr, &epoch, err);
    return code ? code : t->ops->free(t, addr, epoch, err);
}

int libd_extend(struct libd_transport *t, uint64_t addr, uint64_t size, uint64_t *out, struct libd_error *err)
{
    uint32_t region;
    uint64_t epoch;
    int code = usable(t, err);

    if (!code)
        code = held_epoch(t, addr, &epoch, err);
    if (!code)
        code = t->ops->extend(t, addr, epoch, size, &region, &epoch, err);
    if (!code)
        code = bind_epoch(t, region, epoch, err);
    if (!code)
        *out = (uint64_t)region << LIBD_OFFSET_BITS;
    return code;
}

int libd_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    uint64_t held;
    int code = usable(t, err);

    if (!code)
        code = held_epoch(t, addr, &held, err);
    if (!code)
        code = t->ops->region(t, addr & ~LIBD_OFFSET_MASK, epoch, size, err);
    if (!code && *epoch != held)
        code = libd_fail(err, LIBD_ESTALE, *epoch, 0);
    return code;
}

int libd_resolve(struct libd_transport *t, uint32_t region, uint64_t epoch, uint64_t *size, struct libd_error *err)
{
    uint64_t now;
    int code = usable(t, err);

    if (code)
        return code;
    if (region >= LIBD_SLOTS)
        return libd_fail(err, LIBD_ESTALE, 0, 0);
    code = t->ops->region(t, (uint64_t)region << LIBD_OFFSET_BITS, &now, size, err);
    if (code == LIBD_EBOUNDS) /* no such region: the server was restarted since */
        return libd_fail(err, LIBD_ESTALE, 0, 0);
    if (code)
        return code;
    if (now != epoch)
        return libd_fail(err, LIBD_ESTALE, now, 0);
    return bind_epoch(t, region, epoch, err);
}

int libd_flush(struct libd_transport *t, struct libd_error *err)
{
    int code = usable(t, err);

    return code ? code : t->ops->flush(t, err);
}

int libd_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    int code = usable(t, err);

    return code ? code : t->ops->stat(t, out, err);
}

void libd_shutdown(struct libd_transport *t)
{
    /* In a child of fork, closing must not disturb the parent's connection. */
    if (!atomic_exchange(&t->closed, true) && t->generation == generation)
        t->ops->shutdown(t);
}

void libd_destroy(struct libd_transport *t)
{
    libd_shutdown(t);
    for (size_t i = 0; i < LIBD_BOUND_CHUNKS; i++)
        free(atomic_load_explicit(&t->bound[i], memory_order_relaxed));
    t->ops->destroy(t);
}

void libd_memory_destroy(struct libd_memory *memory) { memory->destroy(memory); }

bool libd_memory_alive(const struct libd_memory *memory)
{
    return table_alive(memory->table);
}
