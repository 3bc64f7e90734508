/* Flushing: when what was written with RDMA can be seen by everybody. */
#ifdef LIBD_HAVE_VERBS
#include "verbs_client.h"

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
int verbs_flush(struct libd_transport *t, struct libd_error *err)
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
        code = verbs_run(v, &batch, err);
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
#else
typedef int verbs_flush_is_not_built;
#endif
