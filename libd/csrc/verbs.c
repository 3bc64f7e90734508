/* rdma_uverbs: one-sided reads, writes and atomics over RDMA. What changes regions asks the server over TCP. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "verbs_client.h"

/* ---- batches ----------------------------------------------------------------------------------------------------- */

static void unregister(struct libd_batch *batch)
{
    for (size_t i = 0; i < batch->count && batch->part_count; i++) {
        struct libd_local *local = batch->vec[i].local;
        if (local && local->passing) {
            libd_local_release(local);
            batch->vec[i].local = NULL;
            batch->part_count--;
        }
    }
}

/* What is long and registered by nobody is registered for this batch, or copied if it cannot be: there is memory that no
 * device may have, such as a file's, and a limit to what may be locked. */
LIBD_HOT static void register_long(struct libd_domain *domain, struct libd_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        struct libd_vec *vec = &batch->vec[i];
        struct libd_error ignored;
        if (vec->local || vec->size <= STAGE_MAX)
            continue;
        if (libd_local_register(domain, vec->data, vec->size, &vec->local, &ignored)) {
            vec->local = NULL;
            continue;
        }
        vec->local->passing = true;
        batch->part_count++;
        atomic_fetch_add_explicit(&domain->passing, 1, memory_order_relaxed);
        atomic_fetch_sub_explicit(&domain->made, 1, memory_order_relaxed);
    }
}

/* With the lock held, which it drops if the server has to be asked. */
LIBD_HOT static int check(struct verbs *v, const struct libd_vec *vec, struct remote **out, struct libd_error *err)
{
    struct remote *remote = verbs_remote(v, vec->addr);
    uint64_t offset = vec->addr & LIBD_OFFSET_MASK;

    *out = remote;
    if (!remote)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    if (remote->fresh && remote->epoch == vec->epoch && offset <= remote->size && vec->size <= remote->size - offset)
        return LIBD_OK;
    /* Never asked for, or another one, or (somebody may have extended it) too short: the server knows. */
    struct libd_verbs_region about;
    pthread_mutex_unlock(&v->lock);
    int code = verbs_remote_fetch(v, vec->addr, vec->epoch, &about, err);
    verbs_lock(v);
    if (code)
        return code;
    verbs_remote_set(remote, &about);
    if (offset > about.size || vec->size > about.size - offset)
        return libd_fail(err, LIBD_EBOUNDS, about.size, 0);
    return LIBD_OK;
}

/* When it is submitted rather than posted: a flush waits for what is in the queue too. */
LIBD_HOT static void note_write(struct verbs *v, const struct libd_vec *vec)
{
    uint64_t region = vec->addr & ~LIBD_OFFSET_MASK;
    const unsigned room = sizeof v->dirty / sizeof *v->dirty;

    v->written++;
    if (v->dirty_count && v->dirty[0] == region && v->dirty_epoch[0] == vec->epoch)
        return;
    if (v->dirty_count < room)
        v->dirty_count++;
    memmove(v->dirty + 1, v->dirty, (v->dirty_count - 1) * sizeof *v->dirty);
    memmove(v->dirty_epoch + 1, v->dirty_epoch, (v->dirty_count - 1) * sizeof *v->dirty_epoch);
    v->dirty[0] = region;
    v->dirty_epoch[0] = vec->epoch;
}

/* Puts a batch in the queue once its ranges are known to be right. With the lock held. */
LIBD_HOT static int start(struct verbs *v, struct libd_batch *batch, struct libd_error *err)
{
    struct remote *remote;
    int code = verbs_linked(v) ? LIBD_OK : verbs_link_ready(v, err);

    for (size_t i = 0; i < batch->count && !code; i++) {
        const struct libd_vec *vec = &batch->vec[i];
        code = check(v, vec, &remote, err);
        v->used += vec->local && !vec->local->passing;
        v->staged += !vec->local;
    }
    if (!code && !verbs_linked(v))
        code = verbs_link_ready(v, err);
    if (code) {
        unregister(batch);
        return code;
    }
    for (size_t i = batch->more ? 0 : batch->reads; i < batch->count; i++)
        if (batch->vec[i].size)
            note_write(v, &batch->vec[i]);
    if (batch->count == 1 && batch->vec->size - 1 < (batch->vec->local ? PIECE : STAGE_MAX) && verbs_quick(v, batch))
        return LIBD_OK;
    verbs_enqueue(v, batch);
    verbs_pump(v);
    return LIBD_OK;
}

LIBD_HOT static void prepare(struct verbs *v, struct libd_batch *batch)
{
    batch->left = batch->part_count = 0;
    batch->at = (struct libd_place){0, 0};
    batch->err.code = LIBD_OK;
    register_long(v->domain, batch);
}

static int verbs_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code;

    prepare(v, batch);
    batch->more = NULL;
    verbs_lock(v);
    code = start(v, batch, err);
    pthread_mutex_unlock(&v->lock);
    return code;
}

static void verbs_abandon(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);

    verbs_lock(v);
    verbs_link_lose(v, LIBD_ECLOSED, atomic_load(&t->closed) ? 0 : 2, 0);
    pthread_mutex_unlock(&v->lock);
}

/* A batch as a call that waits; after a signal the queue pair is given up rather than the wait. */
LIBD_HOT static int run(struct verbs *v, struct libd_batch *batch, struct libd_error *err)
{
    struct libd_error ignored;
    int code;

    prepare(v, batch);
    atomic_store_explicit(&batch->done, false, memory_order_relaxed);
    verbs_lock(v);
    code = start(v, batch, err);
    if (code) {
        pthread_mutex_unlock(&v->lock);
        return code;
    }
    code = verbs_await(v, batch, 0, err);
    pthread_mutex_unlock(&v->lock);
    if (!libd_batch_done(batch)) {
        verbs_abandon(&v->transport);
        while (!libd_batch_done(batch))
            verbs_progress(&v->transport, batch, -1, &ignored);
        return code;
    }
    if (code == LIBD_ESIGNAL) /* the handler's exception is set, whatever became of the batch meanwhile */
        return code;
    if (batch->err.code)
        *err = batch->err;
    return batch->err.code;
}

/* Only what is read of the batch is set: it is larger than what this does. */
LIBD_HOT static int transfer(struct libd_transport *t, const struct libd_vec *vec, size_t count, bool in, struct libd_error *err)
{
    struct libd_batch batch;

    batch.vec = (struct libd_vec *)vec; /* the dispatcher's own, which holds registrations for the time being */
    batch.count = count;
    batch.reads = in ? count : 0;
    batch.bytes_in = vec->size * count; /* more or less: it says how long to expect to wait */
    batch.bytes_out = 0;
    batch.more = NULL;
    return run(verbs_of(t), &batch, err);
}

LIBD_HOT static int verbs_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, true, err);
}

LIBD_HOT static int verbs_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, false, err);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static int verbs_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a,
                        uint64_t b, uint64_t *old, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    struct libd_vec vec = {.addr = addr, .epoch = epoch, .data = old, .size = sizeof *old};
    struct word word = {op, a, b};
    struct libd_batch batch = {.vec = &vec, .count = 1, .reads = 1, .bytes_in = sizeof *old, .more = &word};
    struct remote *remote;
    bool nic;
    int code;

    verbs_lock(v);
    code = verbs_link_ready(v, err);
    if (!code)
        code = check(v, &vec, &remote, err);
    nic = !code && remote->nic;
    pthread_mutex_unlock(&v->lock);
    if (code)
        return code;
    if (!nic)
        return v->control->ops->atomic(v->control, op, addr, epoch, a, b, old, err);
    if (v->domain->port.atomics == IBV_ATOMIC_NONE)
        return libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_DEVICE, 0);
    return run(v, &batch, err);
}

/* Waits until nothing of what was submitted before is under way. */
static int drain(struct verbs *v, struct libd_error *err)
{
    struct libd_batch never = {0};
    uint64_t until = UINT64_MAX;
    int code = LIBD_OK;

    verbs_lock(v);
    for (;;) {
        if (!v->first && until > v->head)
            until = v->head;
        if (code || v->tail >= until)
            break;
        code = verbs_await(v, &never, libd_now() + 0.01, err);
    }
    pthread_mutex_unlock(&v->lock);
    return code;
}

/* What is noted as written; false: none, or all that was written until then is flushed. */
static bool noted(struct verbs *v, uint64_t until, struct libd_vec *vec)
{
    bool any;

    verbs_lock(v);
    any = v->flushed < until && v->dirty_count;
    vec->addr = v->dirty[0];
    vec->epoch = v->dirty_epoch[0];
    pthread_mutex_unlock(&v->lock);
    return any;
}

static void unnote(struct verbs *v, const struct libd_vec *vec)
{
    unsigned kept = 0;

    verbs_lock(v);
    for (unsigned i = 0; i < v->dirty_count; i++) {
        if (v->dirty[i] == vec->addr && v->dirty_epoch[i] == vec->epoch)
            continue;
        v->dirty[kept] = v->dirty[i];
        v->dirty_epoch[kept++] = v->dirty_epoch[i];
    }
    v->dirty_count = kept;
    pthread_mutex_unlock(&v->lock);
}

/* That a WRITE has completed says that the other device has it, not that its memory has. A READ of the same connection
 * pushes all earlier writes in front of it, and as work requests are done in order it also waits for them. */
static int verbs_flush(struct libd_transport *t, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    struct libd_call call = {.request = {.op = LIBD_OP_FLUSH}};
    char byte;
    struct libd_vec vec = {.data = &byte, .size = 1};
    uint64_t until;
    bool pending;
    int code;

    verbs_lock(v);
    until = v->written;
    pending = v->flushed < until;
    pthread_mutex_unlock(&v->lock);
    while (noted(v, until, &vec)) {
        struct libd_batch batch = {.vec = &vec, .count = 1, .reads = 1, .bytes_in = 1};
        code = run(v, &batch, err);
        if (!code) {
            verbs_lock(v);
            if (v->flushed < until)
                v->flushed = until;
            pthread_mutex_unlock(&v->lock);
            return LIBD_OK;
        }
        if (code != LIBD_ESTALE || err->have == 1) /* 1: not the region, the server is another one */
            return code;
        unnote(v, &vec);
    }
    /* Every region that is remembered has gone; others may have been written before them. */
    code = pending ? drain(v, err) : LIBD_OK;
    return code ? code : libd_stream_call(v->control, &call, err);
}

static int verbs_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->renew(v->control, addr, epoch, lease_ms, err);
}

static int verbs_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
                       struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->alloc(v->control, wanted, region, epoch, err);
}

/* What is known about a region is out of date once it was freed or extended. */
static void forget(struct verbs *v, uint64_t addr)
{
    verbs_lock(v);
    struct remote *remote = verbs_remote(v, addr);
    if (remote)
        remote->fresh = false;
    pthread_mutex_unlock(&v->lock);
}

static int verbs_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code = v->control->ops->free(v->control, addr, epoch, err);

    forget(v, addr);
    return code;
}

static int verbs_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                        uint64_t *new_epoch, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code = v->control->ops->extend(v->control, addr, epoch, size, region, new_epoch, err);

    forget(v, addr);
    return code;
}

static int verbs_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->region(v->control, addr, epoch, size, err);
}

static int verbs_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);

    return v->control->ops->stat(v->control, out, err);
}

static void verbs_shutdown(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);

    if (v->control)
        libd_shutdown(v->control); /* first: whoever talks to the server comes back */
    verbs_lock(v);
    verbs_link_lose(v, LIBD_ECLOSED, 0, 0);
    pthread_mutex_unlock(&v->lock);
    if (v->event >= 0)
        eventfd_write(v->event, 1);
}

static void verbs_destroy(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);
    const struct verbs_lib *lib = v->domain ? v->domain->port.lib : NULL;

    /* In a child of fork the device's objects are the parent's, whom destroying them here would hit. */
    if (t->generation == libd_generation() && v->domain) {
        if (v->stage_mr)
            lib->dereg_mr(v->stage_mr);
        if (v->cq)
            lib->destroy_cq(v->cq);
        if (v->channel)
            lib->destroy_comp_channel(v->channel);
        verbs_domain_close(v->domain);
    }
    if (v->stage)
        munmap(v->stage, STAGE_SIZE);
    const int fds[] = {v->event, v->epoll, v->watch};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    for (size_t i = 0; i < LIBD_BOUND_CHUNKS; i++)
        free(v->remotes[i]);
    free(v->ring);
    if (v->control)
        libd_destroy(v->control);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

static const struct libd_transport_ops verbs_ops = {
    .type = "rdma_uverbs",
    .readv = verbs_readv,
    .writev = verbs_writev,
    .submit = verbs_submit,
    .progress = verbs_progress,
    .abandon = verbs_abandon,
    .fd = verbs_fd,
    .atomic = verbs_atomic,
    .renew = verbs_renew,
    .alloc = verbs_alloc,
    .free = verbs_free,
    .extend = verbs_extend,
    .region = verbs_region,
    .flush = verbs_flush,
    .stat = verbs_stat,
    .shutdown = verbs_shutdown,
    .destroy = verbs_destroy,
};

/* ---- opening ----------------------------------------------------------------------------------------------------- */

static int failed(struct libd_error *err)
{
    if (errno == ENOMEM || errno == EAGAIN)
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_DEVICE, 0);
    return libd_fail(err, LIBD_ESYS, (uint64_t)(errno ? errno : EIO), 0);
}

static int equip(struct verbs *v, struct libd_error *err)
{
    const struct verbs_port *port = &v->domain->port;

    errno = 0;
    v->ring = calloc(DEPTH, sizeof *v->ring);
    v->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    v->stage = mmap(NULL, STAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (v->stage == MAP_FAILED)
        v->stage = NULL;
    if (!v->ring || v->event < 0 || !v->stage)
        return failed(err);
    v->channel = port->lib->create_comp_channel(port->context);
    if (!v->channel)
        return failed(err);
    fcntl(v->channel->fd, F_SETFL, fcntl(v->channel->fd, F_GETFL) | O_NONBLOCK);
    fcntl(v->channel->fd, F_SETFD, FD_CLOEXEC);
    v->cq = port->lib->create_cq(port->context, (int)DEPTH + 16, NULL, v->channel, 0);
    if (!v->cq)
        return failed(err);
    v->stage_mr = port->lib->reg_mr(v->domain->pd, v->stage, STAGE_SIZE, IBV_ACCESS_LOCAL_WRITE);
    return v->stage_mr ? LIBD_OK : failed(err);
}

int libd_open_verbs(const struct libd_address *address, const char *device, struct libd_transport **out,
                    struct libd_error *err)
{
    struct libd_address single = *address;
    struct verbs *v;
    pthread_condattr_t clock;
    int code;

    v = calloc(1, sizeof *v);
    if (!v)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    pthread_mutex_init(&v->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&v->changed, &clock);
    pthread_condattr_destroy(&clock);
    v->event = v->epoll = v->watch = -1;
    v->transport.ops = &verbs_ops;
    v->transport.generation = libd_generation();
    for (unsigned i = 0; i < SIZE_CLASSES; i++)
        v->patience[i] = 512;
    single.stripes = 1; /* no data goes there */
    v->domain = verbs_domain_open(device ? device : "", err);
    code = v->domain ? libd_open_stream(&single, &v->control, err) : err->code;
    if (!code && !(v->control->who.features & LIBD_FEATURE_VERBS))
        code = libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_SERVER, 0);
    if (!code)
        code = equip(v, err);
    if (!code) {
        v->transport.domain = v->domain;
        v->transport.who = v->control->who;
        memcpy(v->transport.name, v->control->name, sizeof v->transport.name);
        verbs_lock(v);
        code = verbs_link_ready(v, err);
        pthread_mutex_unlock(&v->lock);
    }
    if (code) {
        struct libd_error why = *err;
        libd_destroy(&v->transport);
        *err = why;
        return code;
    }
    *out = &v->transport;
    return LIBD_OK;
}
#else
typedef int verbs_is_not_built;
#endif
