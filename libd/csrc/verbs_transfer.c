/* Moving bytes over RDMA: what becomes of a batch before it is in the queue. */
#ifdef LIBD_HAVE_VERBS
#include <errno.h>
#include <string.h>

#include "verbs_client.h"

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

int verbs_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err)
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

void verbs_abandon(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);

    verbs_lock(v);
    verbs_link_lose(v, LIBD_ECLOSED, atomic_load(&t->closed) ? 0 : 2, 0);
    pthread_mutex_unlock(&v->lock);
}

/* The batch is its owner's again, whatever became of it. */
static void end(struct verbs *v, struct libd_batch *batch)
{
    struct libd_error ignored;

    verbs_abandon(&v->transport);
    while (!libd_batch_done(batch))
        verbs_progress(&v->transport, batch, -1, &ignored);
}

/* A batch as a call that waits; after a signal the queue pair is given up rather than the wait. */
LIBD_HOT int verbs_run(struct verbs *v, struct libd_batch *batch, struct libd_error *err)
{
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
        end(v, batch);
        return code;
    }
    if (code == LIBD_ESIGNAL) /* the handler's exception is set, whatever became of the batch meanwhile */
        return code;
    if (batch->err.code)
        *err = batch->err;
    return batch->err.code;
}

/* A READ of no bytes, which nobody's key is looked at for: there need be no region. */
int verbs_prove(struct verbs *v, double seconds, struct libd_error *err)
{
    char place; /* for the nothing that comes back */
    struct libd_vec nothing = {.data = &place};
    struct libd_batch batch = {.vec = &nothing, .count = 1, .reads = 1};
    bool sent = false;
    int code;

    verbs_lock(v);
    code = verbs_link_ready(v, err);
    if (!code && !verbs_remote(v, 0))
        code = libd_fail(err, LIBD_ENOMEM, 0, 0);
    if (!code) {
        sent = verbs_quick(v, &batch);
        code = sent ? verbs_await(v, &batch, libd_now() + seconds, err) : libd_fail(err, LIBD_ECLOSED, 2, 0);
    }
    pthread_mutex_unlock(&v->lock);
    if (sent && !libd_batch_done(&batch)) {
        end(v, &batch);
        batch.err.code = LIBD_ETIMEOUT;
    }
    if (code)
        return code;
    /* Why the other side would not have it, if it can be asked for that, says nothing: it should not even have looked. */
    if (batch.err.code == LIBD_ECLOSED && batch.err.have != ETIMEDOUT) {
        *err = batch.err;
        return LIBD_ECLOSED;
    }
    return batch.err.code ? libd_fail(err, LIBD_EUNSUPPORTED, LIBD_LACK_WAY, 0) : LIBD_OK;
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
    return verbs_run(verbs_of(t), &batch, err);
}

LIBD_HOT int verbs_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, true, err);
}

LIBD_HOT int verbs_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return transfer(t, vec, count, false, err);
}

int verbs_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a,
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
    return verbs_run(v, &batch, err);
}
#else
typedef int verbs_transfer_is_not_built;
#endif
