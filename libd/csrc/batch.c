/* Batches: cutting reads and writes up into requests, and starting them. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "stream.h"

#define STRIPE_FROM (UINT64_C(4) << 20) /* bytes of a batch from which on it is cut up over all lanes */
#define STRIPE (UINT64_C(1) << 20)
#define SLICE (UINT64_C(4) << 20) /* bytes of a read on the only lane */

/* Cuts what is longer than `most`. */
static struct libd_vec *cut(const struct libd_batch *batch, uint64_t most, size_t *reads, size_t *count)
{
    struct libd_vec *pieces;
    size_t n = 0;

    for (size_t i = 0; i < batch->count; i++)
        n += batch->vec[i].size ? (batch->vec[i].size + most - 1) / most : 1;
    pieces = malloc(n * sizeof *pieces);
    n = 0;
    for (size_t i = 0; i < batch->count && pieces; i++) {
        struct libd_vec left = batch->vec[i];
        if (i == batch->reads)
            *reads = n;
        do {
            struct libd_vec piece = left;
            if (piece.size > most)
                piece.size = most;
            pieces[n++] = piece;
            left.addr += piece.size;
            left.data = (char *)left.data + piece.size;
            left.size -= piece.size;
        } while (left.size);
    }
    if (batch->reads == batch->count)
        *reads = n;
    *count = n;
    return pieces;
}

/* How many of the `count` segments make one request of at most `most` bytes (or of one segment). */
static size_t group(const struct libd_vec *vec, size_t count, uint64_t most, uint64_t *bytes)
{
    size_t n = 0;

    *bytes = 0;
    while (n < count && n < LIBD_MAX_SEGMENTS && (n == 0 || vec[n].size <= most - *bytes))
        *bytes += vec[n++].size;
    return n;
}

static bool fill(struct libd_call *call, const struct libd_vec *vec, size_t n, uint64_t bytes, bool in)
{
    memset(call, 0, sizeof *call);
    call->request.count = (uint32_t)n;
    call->request.size = bytes;
    if (n == 1) {
        call->request.op = in ? LIBD_OP_READ : LIBD_OP_WRITE;
        call->request.addr = vec->addr;
        call->request.epoch = vec->epoch;
    } else {
        struct libd_segment *segments = malloc(n * sizeof *segments);
        if (!segments)
            return false;
        for (size_t i = 0; i < n; i++)
            segments[i] = (struct libd_segment){vec[i].addr, vec[i].epoch, vec[i].size};
        call->request.op = in ? LIBD_OP_READV : LIBD_OP_WRITEV;
        call->payload = segments;
        call->payload_size = n * sizeof *segments;
    }
    call->request.length = call->payload_size + (in ? 0 : bytes);
    if (in) {
        call->in = vec;
        call->in_count = n;
    } else {
        call->out = vec;
        call->out_count = n;
    }
    return true;
}

/* Makes the parts of a batch out of `count` segments, the first `reads` of which are read; false: no memory. */
static bool plan(struct libd_batch *batch, const struct libd_vec *vec, size_t reads, size_t count, uint64_t most)
{
    uint64_t bytes;
    unsigned parts = 0;

    for (size_t i = 0; i < count; parts++)
        i += group(vec + i, (i < reads ? reads : count) - i, most, &bytes);
    batch->parts = parts == 1 ? &batch->part : malloc(parts * sizeof *batch->parts);
    if (!batch->parts)
        return false;
    batch->part_count = 0;
    for (size_t i = 0; i < count;) {
        bool in = i < reads;
        size_t n = group(vec + i, (in ? reads : count) - i, most, &bytes);
        struct libd_call *call = &batch->parts[batch->part_count];
        if (!fill(call, vec + i, n, bytes, in))
            return false;
        call->batch = batch;
        batch->part_count++;
        i += n;
    }
    batch->left = parts;
    return true;
}

int stream_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    const struct libd_vec *vec = batch->vec;
    size_t reads = batch->reads, count = batch->count;
    uint64_t bytes = 0, in = 0, most = UINT64_MAX;
    int code;

    batch->parts = NULL;
    batch->part_count = 0;
    batch->more = NULL;
    batch->err.code = LIBD_OK;
    for (size_t i = 0; i < count; i++) {
        bytes += vec[i].size;
        in += i < reads ? vec[i].size : 0;
    }
    pthread_mutex_lock(&s->lock);
    code = stream_ready(s, err);
    if (!code && bytes >= STRIPE_FROM && s->lanes_wanted > 1)
        code = stream_widen(s, err);
    if (!code && bytes >= STRIPE_FROM && s->lane_count > 1)
        most = STRIPE;
    else if (!code && in > SLICE)
        most = SLICE; /* the server answers short reads of others in between */
    if (most != UINT64_MAX)
        vec = batch->more = cut(batch, most, &reads, &count);
    if (!code && (!vec || !plan(batch, vec, reads, count, most)))
        code = libd_fail(err, LIBD_ENOMEM, 0, 0);
    if (code) {
        libd_batch_release(batch);
    } else {
        /* It may be over, and its owner's again, as soon as the last part is sent. */
        unsigned parts = batch->part_count;
        if (parts == 1) {
            struct lane *lane = stream_least_loaded(s);
            lane_append(s, lane, batch->parts);
            lane_send(s, lane, NULL);
        } else {
            struct libd_call *calls = batch->parts;
            unsigned read = 0;
            while (read < parts && calls[read].in_count)
                read++;
            for (unsigned i = 0; i < read && most != UINT64_MAX; i++)
                calls[i].request.flags = i + s->lane_count < read ? LIBD_PART_MORE : LIBD_PART_LAST;
            for (unsigned i = 0; i < parts; i++)
                lane_append(s, most != UINT64_MAX ? &s->lanes[i % s->lane_count] : stream_least_loaded(s), &calls[i]);
            for (unsigned i = 0; i < s->lane_count && !s->broken; i++)
                lane_send(s, &s->lanes[i], NULL);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}
