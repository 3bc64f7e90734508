/* A transport made of requests: rdma_tcp, and what rdma_shm and verbs ask of the server. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* ---- calls ------------------------------------------------------------------------------------------------------- */

struct lane *stream_least_loaded(struct stream *s)
{
    struct lane *best = &s->lanes[0];

    for (unsigned i = 1; i < s->lane_count; i++)
        if (s->lanes[i].load < best->load)
            best = &s->lanes[i];
    return best;
}

int libd_stream_call(struct libd_transport *t, struct libd_call *call, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    struct goal goal = {.call = call};
    int code;

    /* In a child of fork the connection, and whoever held its lock, are the parent's. */
    if (t->generation != libd_generation())
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    pthread_mutex_lock(&s->lock);
    code = stream_ready(s, err);
    if (!code) {
        struct lane *lane = stream_least_loaded(s);
        atomic_store_explicit(&call->done, false, memory_order_relaxed);
        lane_append(s, lane, call);
        code = stream_await(s, &goal, -1, err);
        if (!atomic_load(&call->done)) {
            /* The call is the caller's memory: after a signal the connection is given up rather than the wait. */
            struct libd_error ignored;
            stream_break(s, LIBD_ECLOSED, -1);
            while (!atomic_load(&call->done))
                stream_await(s, &goal, -1, &ignored);
        }
        if (code != LIBD_ESIGNAL) { /* else the handler's exception is set, whatever became of the call */
            *err = call->err;
            code = err->code;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static int stream_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a,
                         uint64_t b, uint64_t *old, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_FETCH_ADD, .addr = addr, .epoch = epoch, .size = a}};
    int code;

    if (op == LIBD_COMPARE_SWAP) {
        call.request.op = LIBD_OP_COMPARE_SWAP;
        call.request.length = call.payload_size = sizeof b;
        call.payload = &b;
    }
    code = libd_stream_call(t, &call, err);
    *old = call.reply.a;
    return code;
}

/* Remembers a lease for the next connection, or (`ms` 0) forgets it. */
static void remember(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t ms)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    if (ms)
        held_put(&s->holdings, addr, epoch, ms);
    else
        held_forget(&s->holdings, addr);
    pthread_mutex_unlock(&s->lock);
}

static uint64_t remembered(struct libd_transport *t, uint64_t addr)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    uint64_t ms = held_ms(&s->holdings, addr);
    pthread_mutex_unlock(&s->lock);
    return ms;
}

int stream_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms,
                 struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_RENEW, .addr = addr, .epoch = epoch, .size = lease_ms}};
    int code = libd_stream_call(t, &call, err);

    if (!code)
        remember(t, addr, epoch, lease_ms);
    return code;
}

int stream_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
                 struct libd_error *err)
{
    struct libd_call call = {
        .request = {
            .op = LIBD_OP_ALLOC,
            .flags = wanted->flags,
            .size = wanted->size,
            .addr = wanted->align,
            .epoch = wanted->lease_ms,
        },
    };
    int code = libd_stream_call(t, &call, err);

    if (!code && (call.reply.a == 0 || call.reply.a >= LIBD_SLOTS))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    *region = (uint32_t)call.reply.a;
    *epoch = call.reply.b;
    if (!code && wanted->lease_ms)
        remember(t, call.reply.a << LIBD_OFFSET_BITS, *epoch, wanted->lease_ms);
    return code;
}

int stream_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_FREE, .addr = addr, .epoch = epoch}};

    remember(t, addr, epoch, 0);
    return libd_stream_call(t, &call, err);
}

int stream_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                  uint64_t *new_epoch, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_EXTEND, .addr = addr, .epoch = epoch, .size = size}};
    int code = libd_stream_call(t, &call, err);

    if (!code && (call.reply.a == 0 || call.reply.a >= LIBD_SLOTS))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    *region = (uint32_t)call.reply.a;
    *new_epoch = call.reply.b;
    uint64_t ms = code ? 0 : remembered(t, addr);
    if (ms) {
        remember(t, addr, epoch, 0);
        remember(t, call.reply.a << LIBD_OFFSET_BITS, *new_epoch, ms);
    }
    return code;
}

static int stream_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size,
                         struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_REGION, .addr = addr}};
    int code = libd_stream_call(t, &call, err);

    *epoch = call.reply.a;
    *size = call.reply.b;
    return code;
}

/* A write is visible to everybody when it is answered: waiting for all that was submitted is enough. The request says
 * that the server lives. */
static int stream_flush(struct libd_transport *t, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    struct libd_call call = {.request = {.op = LIBD_OP_FLUSH}};
    int code;

    pthread_mutex_lock(&s->lock);
    struct goal goal = {.mark = s->next_id};
    code = stream_await(s, &goal, -1, err);
    pthread_mutex_unlock(&s->lock);
    return code ? code : libd_stream_call(t, &call, err);
}

int stream_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    struct libd_call call = {
        .request = {.op = LIBD_OP_STAT},
        .reply_payload = out,
        .reply_room = sizeof *out,
    };

    return libd_stream_call(t, &call, err);
}

void stream_shutdown(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    stream_break(s, LIBD_ECLOSED, 0);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void stream_destroy(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    stream_close_lanes(s);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->event >= 0)
        close(s->event);
    free((char *)s->address.host);
    free((char *)s->address.port);
    free((char *)s->address.path);
    free((char *)s->address.token);
    held_destroy(&s->holdings);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct libd_transport_ops tcp_ops = {
    .type = "rdma_tcp",
    .submit = stream_submit,
    .progress = stream_progress,
    .abandon = stream_abandon,
    .fd = stream_fd,
    .atomic = stream_atomic,
    .renew = stream_renew,
    .alloc = stream_alloc,
    .free = stream_free,
    .extend = stream_extend,
    .region = stream_region,
    .flush = stream_flush,
    .stat = stream_stat,
    .shutdown = stream_shutdown,
    .destroy = stream_destroy,
};

/* ---- connecting -------------------------------------------------------------------------------------------------- */

static bool copied(const char **text)
{
    return !*text || (*text = strdup(*text)) != NULL;
}

int stream_open(const struct libd_address *address, struct arena *arena, struct libd_transport **out,
                struct libd_error *err)
{
    struct stream *s = calloc(1, sizeof *s);
    pthread_condattr_t clock;
    int fd;

    if (!s)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &clock);
    pthread_condattr_destroy(&clock);
    s->epoll = s->event = -1;
    s->transport.ops = &tcp_ops;
    s->transport.generation = libd_generation();
    s->address = *address;
    const char **texts[] = {&s->address.host, &s->address.port, &s->address.path, &s->address.token};
    bool whole = true;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        whole &= copied(texts[i]);
    s->lanes_wanted = address->stripes < 1 ? 1 : address->stripes > LANES_MAX ? LANES_MAX : address->stripes;
    fd = whole ? stream_connect(&s->address, NULL, 0, &s->transport.who, s->transport.name, arena, err)
               : (libd_fail(err, LIBD_ENOMEM, 0, 0), -1);
    if (fd < 0) {
        stream_destroy(&s->transport);
        return err->code;
    }
    stream_open_lane(s, fd);
    *out = &s->transport;
    return LIBD_OK;
}

int libd_open_stream(const struct libd_address *address, struct libd_transport **out, struct libd_error *err)
{
    return stream_open(address, NULL, out, err);
}
