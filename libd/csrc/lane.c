/* One connection of a stream: its queue of calls, from when they are made until they have ended. */
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "lane.h"

static uint64_t total(const struct libd_vec *vec, size_t count)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += vec[i].size;
    return sum;
}

void lane_append(struct stream *s, struct lane *lane, struct libd_call *call)
{
    call->request.id = ++s->next_id;
    call->out_at = (struct libd_place){0, 0};
    call->in_at = (struct libd_place){0, 0};
    call->head_done = 0;
    call->sent = false;
    call->expected = total(call->in, call->in_count);
    call->next = NULL;
    call->prev = lane->last;
    if (lane->last)
        lane->last->next = call;
    else
        lane->first = call;
    lane->last = call;
    if (!lane->unsent)
        lane->unsent = call;
    call->weight = call->request.size + sizeof call->request;
    lane->load += call->weight;
}

void lane_unlink(struct lane *lane, struct libd_call *call)
{
    if (call->prev)
        call->prev->next = call->next;
    else
        lane->first = call->next;
    if (call->next)
        call->next->prev = call->prev;
    else
        lane->last = call->prev;
    if (lane->unsent == call)
        lane->unsent = call->next;
    if (lane->current == call)
        lane->current = NULL;
    lane->load -= call->weight;
}

void libd_batch_release(struct libd_batch *batch)
{
    for (unsigned i = 0; i < batch->part_count; i++)
        free((void *)batch->parts[i].payload);
    if (batch->parts != &batch->part)
        free(batch->parts);
    free(batch->more);
    batch->parts = NULL;
    batch->more = NULL;
    batch->part_count = 0;
}

void lane_finish(struct stream *s, struct libd_call *call, const struct libd_error *err)
{
    struct libd_batch *batch = call->batch;

    if (!batch) {
        call->err = *err;
        atomic_store_explicit(&call->done, true, memory_order_release);
    } else {
        if (err->code && !batch->err.code)
            batch->err = *err;
        if (--batch->left)
            return;
        libd_batch_release(batch);
        atomic_store_explicit(&batch->done, true, memory_order_release);
    }
    if (s->waiting)
        pthread_cond_broadcast(&s->changed);
    if (s->event >= 0)
        eventfd_write(s->event, 1);
}

void stream_fail_all(struct stream *s)
{
    struct libd_error err;

    if (!s->broken || s->in_calls)
        return;
    bool signal = s->cause_detail < 0;
    libd_fail(&err, s->cause, atomic_load(&s->transport.closed) ? 0 : signal ? 5 : 2,
              signal ? 0 : (uint64_t)s->cause_detail);
    for (unsigned i = 0; i < s->lane_count; i++) {
        struct lane *lane = &s->lanes[i];
        while (lane->first) {
            struct libd_call *call = lane->first;
            lane_unlink(lane, call);
            lane_finish(s, call, &err);
        }
        lane->got = 0;
        lane->backlog = false;
    }
    if (s->waiting)
        pthread_cond_broadcast(&s->changed);
}

void stream_break(struct stream *s, int code, int detail)
{
    if (!s->broken) {
        s->broken = true;
        s->cause = code;
        s->cause_detail = detail;
        for (unsigned i = 0; i < s->lane_count; i++)
            if (s->lanes[i].fd >= 0)
                shutdown(s->lanes[i].fd, SHUT_RDWR);
    }
    stream_fail_all(s);
}
