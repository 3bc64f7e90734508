/* rdma_local: a memory element in this process. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "transport.h"

struct local_memory {
    struct libd_memory memory;
    struct pool pool;
    struct element *element;
    pthread_mutex_t lock; /* around the pool */
    unsigned generation;  /* of fork: the memory is that process's */
};

static struct local_memory *local(struct libd_transport *t) { return (struct local_memory *)t->memory; }

static int local_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
                       struct libd_error *err)
{
    struct local_memory *m = local(t);

    pthread_mutex_lock(&m->lock);
    int code = pool_alloc(m->element, wanted, region, epoch, err);
    pthread_mutex_unlock(&m->lock);
    return code;
}

static int local_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    struct local_memory *m = local(t);

    pthread_mutex_lock(&m->lock);
    int code = pool_free(m->element, addr, epoch, err);
    pthread_mutex_unlock(&m->lock);
    return code;
}

static int local_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                        uint64_t *new_epoch, struct libd_error *err)
{
    struct local_memory *m = local(t);

    pthread_mutex_lock(&m->lock);
    int code = pool_extend(m->element, addr, epoch, size, region, new_epoch, err);
    pthread_mutex_unlock(&m->lock);
    return code;
}

/* Whoever holds a lease here is this process, and the memory ends with it. */
static int local_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms, struct libd_error *err)
{
    uint64_t now, size, number = addr >> LIBD_OFFSET_BITS;
    int code = mapped_region(t, addr & ~LIBD_OFFSET_MASK, &now, &size, err);

    if (!code && now != epoch)
        code = libd_fail(err, LIBD_ESTALE, now, 0);
    if (!code && lease_ms && (number == 0 || number == t->who.root)) /* it lives and goes with its element, as on a server */
        code = libd_fail(err, LIBD_EINVAL, 0, 0);
    return code;
}

static int local_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    struct local_memory *m = local(t);

    (void)err;
    pthread_mutex_lock(&m->lock);
    pool_element_stats(m->element, out);
    pthread_mutex_unlock(&m->lock);
    out->bytes_read = atomic_load_explicit(&t->counters.bytes_read, memory_order_relaxed);
    out->bytes_written = atomic_load_explicit(&t->counters.bytes_written, memory_order_relaxed);
    return LIBD_OK;
}

static void local_shutdown(struct libd_transport *t) { (void)t; }

static void local_destroy(struct libd_transport *t) { free(t); }

static const struct libd_transport_ops ops = {
    .type = "rdma_local",
    .readv = mapped_readv,
    .writev = mapped_writev,
    .atomic = mapped_atomic,
    .renew = local_renew,
    .map = mapped_map,
    .alloc = local_alloc,
    .free = local_free,
    .extend = local_extend,
    .region = mapped_region,
    .flush = mapped_flush,
    .stat = local_stat,
    .shutdown = local_shutdown,
    .destroy = local_destroy,
};

static void memory_destroy(struct libd_memory *memory)
{
    struct local_memory *m = (struct local_memory *)memory;

    /* A child of fork shares the table with its parent, who goes on: nothing may be written there. The books stay where they
     * are: a thread that is not here may have been at them, and to free them would copy their pages. */
    if (m->generation != libd_generation()) {
        munmap(memory->base, memory->size);
        munmap((void *)memory->table, sizeof *memory->table);
        return;
    }
    pool_destroy(&m->pool);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int libd_open_local(uint64_t size, bool elastic, struct libd_memory **memory, struct libd_transport **out,
                    struct libd_error *err)
{
    struct local_memory *m = calloc(1, sizeof *m);
    struct libd_transport *t = calloc(1, sizeof *t);
    struct tenant *tenant;
    uint64_t room = heap_round(size);
    int code;

    if (!m || !t) {
        free(m);
        free(t);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    pthread_mutex_init(&m->lock, NULL);
    m->generation = libd_generation();
    code = pool_init(&m->pool, room, true, err);
    if (!code)
        code = pool_tenant_create(&m->pool, "local", room, &tenant, err);
    if (!code)
        code = pool_element_create(tenant, "", size, elastic, room, &m->element, err);
    if (code) {
        memory_destroy(&m->memory);
        free(t);
        return code;
    }
    m->memory = (struct libd_memory){tenant->arena, tenant->arena_size, tenant->table, memory_destroy};
    t->ops = &ops;
    t->memory = &m->memory;
    t->generation = libd_generation();
    memcpy(t->who.incarnation, m->pool.incarnation, sizeof t->who.incarnation);
    t->who.tenant = tenant->id;
    t->who.element = m->element->id;
    t->who.size = size;
    t->who.elastic = elastic;
    t->who.root = m->element->root;
    if (t->who.root)
        t->who.epoch = tenant->regions[t->who.root].epoch;
    *memory = &m->memory;
    *out = t;
    return LIBD_OK;
}
