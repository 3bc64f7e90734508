/* Work requests: cut from batches, posted a list at a time, done in order. */
#ifdef LIBD_HAVE_VERBS
#include <string.h>
#include <sys/eventfd.h>

#include "verbs_client.h"

#define REAP 16

/* ---- batches ----------------------------------------------------------------------------------------------------- */

/* It is its owner's again from here on. */
LIBD_HOT static void finish(struct verbs *v, struct libd_batch *batch)
{
    for (size_t i = 0; batch->part_count && i < batch->count; i++) {
        struct libd_local *local = batch->vec[i].local;
        if (local && local->passing) {
            batch->vec[i].local = NULL;
            batch->part_count--;
            libd_local_release(local);
        }
    }
    atomic_store_explicit(&batch->done, true, memory_order_release);
    if (v->waiting)
        pthread_cond_broadcast(&v->changed);
    if (v->epoll >= 0)
        eventfd_write(v->event, 1);
}

/* Past empty pieces. */
static bool exhausted(struct libd_batch *batch)
{
    while (batch->at.index < batch->count && batch->at.done >= batch->vec[batch->at.index].size)
        batch->at = (struct libd_place){batch->at.index + 1, 0};
    return batch->at.index >= batch->count;
}

static void dequeue(struct verbs *v)
{
    v->first = v->first->next;
    if (!v->first)
        v->last = NULL;
}

void verbs_enqueue(struct verbs *v, struct libd_batch *batch)
{
    batch->next = NULL;
    if (exhausted(batch)) {
        finish(v, batch);
        return;
    }
    if (v->last)
        v->last->next = batch;
    else
        v->first = batch;
    v->last = batch;
}

/* What was not begun never will be. */
static void blame(struct verbs *v, struct libd_batch *batch, const struct libd_error *err)
{
    if (!batch->err.code)
        batch->err = *err;
    batch->at = (struct libd_place){batch->count, 0};
    if (v->first == batch) /* others in the queue have not begun */
        dequeue(v);
}

/* One of its work requests has ended; it may be over. */
LIBD_HOT static void settle(struct verbs *v, struct libd_batch *batch)
{
    if (--batch->left == 0 && batch->at.index >= batch->count)
        finish(v, batch);
}

void verbs_fail_posted(struct verbs *v, struct posted *p, const struct libd_error *err)
{
    if (p->dead)
        return;
    p->dead = true;
    blame(v, p->batch, err);
    settle(v, p->batch);
}

void verbs_fail_all(struct verbs *v, const struct libd_error *err)
{
    for (; v->tail < v->head; v->tail++)
        verbs_fail_posted(v, &v->ring[v->tail % DEPTH], err);
    while (v->first) { /* none of it is posted any more */
        struct libd_batch *batch = v->first;
        blame(v, batch, err);
        finish(v, batch);
    }
    v->stage_tail = v->stage_head;
    v->unsignalled = 0;
}

/* ---- posting ----------------------------------------------------------------------------------------------------- */

/* Room for `size` bytes in a row; 0: not now, else where it begins plus one. */
LIBD_HOT static uint64_t stage_take(struct verbs *v, uint64_t size)
{
    size = (size + 63) & ~UINT64_C(63);
    uint64_t at = v->stage_head % STAGE_SIZE, skip = at + size > STAGE_SIZE ? STAGE_SIZE - at : 0;
    if (v->stage_head + skip + size - v->stage_tail > STAGE_SIZE)
        return 0;
    v->stage_head += skip + size;
    return (at + skip) % STAGE_SIZE + 1;
}

/* Cuts the next piece off a batch; false: it has to wait. */
LIBD_HOT static bool next_piece(struct verbs *v, struct libd_batch *batch, struct posted *p)
{
    const struct libd_vec *vec = &batch->vec[batch->at.index];
    uint64_t size = vec->size - batch->at.done;
    bool in = batch->at.index < batch->reads;

    *p = (struct posted){.batch = batch, .vec = vec, .offset = batch->at.done, .in = in};
    if (size > (vec->local ? PIECE : STAGE_MAX))
        size = vec->local ? PIECE : STAGE_MAX;
    if (!vec->local && (in || size > v->inlined)) {
        p->stage = stage_take(v, size);
        if (!p->stage)
            return false;
        if (!in)
            memcpy(v->stage + p->stage - 1, (const char *)vec->data + p->offset, size);
    }
    p->stage_end = v->stage_head;
    p->size = (uint32_t)size;
    batch->at.done += size;
    batch->left++;
    return true;
}

/* False: the region is another one by now. */
LIBD_HOT static bool request(struct verbs *v, uint64_t number, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    struct posted *p = &v->ring[number % DEPTH];
    const struct libd_vec *vec = p->vec;
    const struct remote *remote = verbs_remote(v, vec->addr);
    const struct word *word = p->batch->more;
    uint64_t to = remote->base + (vec->addr & LIBD_OFFSET_MASK) + p->offset;

    if (remote->epoch != vec->epoch)
        return false;
    p->rkey = remote->rkey;
    wr->wr_id = number;
    wr->next = NULL;
    wr->sg_list = sge;
    wr->num_sge = 1;
    wr->send_flags = 0;
    sge->length = p->size;
    if (p->stage) {
        sge->addr = (uint64_t)(uintptr_t)(v->stage + p->stage - 1);
        sge->lkey = v->stage_mr->lkey;
    } else {
        sge->addr = (uint64_t)(uintptr_t)vec->data + p->offset;
        sge->lkey = vec->local ? vec->local->mr->lkey : 0;
        if (!vec->local || (!p->in && p->size <= v->inlined))
            wr->send_flags = IBV_SEND_INLINE;
    }
    if (word) {
        wr->opcode = word->op == LIBD_FETCH_ADD ? IBV_WR_ATOMIC_FETCH_AND_ADD : IBV_WR_ATOMIC_CMP_AND_SWP;
        wr->wr.atomic.remote_addr = to;
        wr->wr.atomic.rkey = remote->rkey;
        wr->wr.atomic.compare_add = word->a;
        wr->wr.atomic.swap = word->b;
        return true;
    }
    wr->opcode = p->in ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
    wr->wr.rdma.remote_addr = to;
    wr->wr.rdma.rkey = remote->rkey;
    return true;
}

struct list {
    struct ibv_send_wr wr[BURST];
    struct ibv_sge sge[BURST];
    int count;
};

/* Hands a list to the device with one doorbell. */
static void post(struct verbs *v, struct list *list)
{
    struct ibv_send_wr *bad = NULL, *last = &list->wr[list->count - 1];

    last->send_flags |= IBV_SEND_SIGNALED;
    v->unsignalled = 0;
    if (v->qp->context->ops.post_send(v->qp, list->wr, &bad) == 0) {
        list->count = 0;
        return;
    }
    v->broken = true;
    v->culprit = bad ? bad->wr_id : list->wr[0].wr_id;
    v->status = IBV_WC_GENERAL_ERR;
    list->count = 0;
}

static void stale(struct verbs *v, struct posted *p)
{
    struct libd_error err;

    libd_fail(&err, LIBD_ESTALE, 0, 0);
    verbs_fail_posted(v, p, &err);
}

/* Adds what was cut last to the list; whoever waits for its batch wants to know when it is done. */
static void add(struct verbs *v, struct list *list, uint64_t number)
{
    struct posted *p = &v->ring[number % DEPTH];
    struct ibv_send_wr *wr = &list->wr[list->count];

    if (!p->dead && p->batch->err.code) /* another part of it has failed */
        verbs_fail_posted(v, p, &p->batch->err);
    if (p->dead)
        return;
    if (!request(v, number, wr, &list->sge[list->count])) {
        stale(v, p);
        return;
    }
    if (list->count)
        list->wr[list->count - 1].next = wr;
    if (++v->unsignalled >= SIGNAL_EVERY || p->batch->at.index >= p->batch->count) {
        wr->send_flags |= IBV_SEND_SIGNALED;
        v->unsignalled = 0;
    }
    list->count++;
}

/* What failed before it was posted waits for nothing. */
LIBD_HOT static void skip_dead(struct verbs *v)
{
    while (v->tail < v->head && v->ring[v->tail % DEPTH].dead)
        v->stage_tail = v->ring[v->tail++ % DEPTH].stage_end;
}

void verbs_pump(struct verbs *v)
{
    struct list list;

    list.count = 0;
    while (v->first && v->qp && !v->broken && v->head - v->tail < DEPTH &&
           next_piece(v, v->first, &v->ring[v->head % DEPTH])) {
        if (exhausted(v->first))
            dequeue(v);
        add(v, &list, v->head++);
        if (list.count == BURST)
            post(v, &list);
    }
    if (list.count)
        post(v, &list);
    skip_dead(v);
}

LIBD_HOT bool verbs_quick(struct verbs *v, struct libd_batch *batch)
{
    struct ibv_send_wr wr, *bad = NULL;
    struct ibv_sge sge;

    if (v->first || v->head - v->tail >= DEPTH || !verbs_linked(v) ||
        !next_piece(v, batch, &v->ring[v->head % DEPTH]))
        return false;
    batch->at.index = 1;
    if (!request(v, v->head, &wr, &sge)) { /* it cannot be: it was checked just now */
        stale(v, &v->ring[v->head++ % DEPTH]);
        skip_dead(v);
        return true;
    }
    wr.send_flags |= IBV_SEND_SIGNALED;
    v->unsignalled = 0;
    if (v->qp->context->ops.post_send(v->qp, &wr, &bad)) {
        v->broken = true;
        v->culprit = v->head;
        v->status = IBV_WC_GENERAL_ERR;
    }
    v->head++;
    return true;
}

void verbs_repost(struct verbs *v)
{
    struct list list;

    list.count = 0;
    v->unsignalled = 0;
    for (uint64_t i = v->tail; i < v->head && v->qp && !v->broken; i++) {
        add(v, &list, i);
        if (list.count == BURST)
            post(v, &list);
    }
    if (list.count && !v->broken)
        post(v, &list);
    skip_dead(v);
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

LIBD_HOT static unsigned retire(struct verbs *v, uint64_t until)
{
    unsigned n = 0;

    for (; v->tail < until; n++) {
        struct posted *p = &v->ring[v->tail++ % DEPTH];
        if (p->stage && p->in && !p->dead)
            memcpy((char *)p->vec->data + p->offset, v->stage + p->stage - 1, p->size);
        v->stage_tail = p->stage_end;
        if (!p->dead)
            settle(v, p->batch);
    }
    skip_dead(v);
    return n;
}

LIBD_HOT unsigned verbs_reap(struct verbs *v)
{
    struct ibv_wc wc[REAP];
    unsigned done = 0;
    int n;

    if (!v->qp || v->broken)
        return 0;
    do {
        n = v->cq->context->ops.poll_cq(v->cq, REAP, wc);
        for (int i = 0; i < n && !v->broken; i++) {
            if (wc[i].qp_num != v->qp->qp_num || wc[i].wr_id < v->tail || wc[i].wr_id >= v->head)
                continue;
            if (wc[i].status == IBV_WC_SUCCESS) {
                done += retire(v, wc[i].wr_id + 1);
                continue;
            }
            /* All before it have succeeded; all after it were not done, and say so. */
            done += retire(v, wc[i].wr_id);
            v->broken = true;
            v->culprit = wc[i].wr_id;
            v->status = wc[i].status;
        }
    } while (n == REAP && !v->broken);
    return done;
}
#else
typedef int verbs_queue_is_not_built;
#endif
