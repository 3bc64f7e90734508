/* Requests over stream sockets: submitting, waiting, connecting again; and the transports made of them. */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

#define STRIPE_FROM (UINT64_C(4) << 20) /* bytes of a batch from which on it is cut up over all lanes */
#define STRIPE (UINT64_C(1) << 20)
#define REFUSAL 0.05 /* seconds for which a server that could not be reached is not asked again */

/* ---- connections ------------------------------------------------------------------------------------------------- */

void stream_watch(struct stream *s, struct lane *lane)
{
    uint32_t events = EPOLLIN | (lane->backlog ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events};

    if (lane->fd >= 0 && lane->watched != events &&
        epoll_ctl(s->epoll, lane->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, lane->fd, &event) == 0)
        lane->watched = events;
}

static void lane_open(struct stream *s, int fd)
{
    s->lanes[s->lane_count] = (struct lane){.fd = fd};
    if (s->lane_count == 0)
        atomic_fetch_add(&s->connection, 1);
    if (s->epoll >= 0)
        stream_watch(s, &s->lanes[s->lane_count]);
    s->lane_count++;
}

static void lanes_close(struct stream *s)
{
    for (unsigned i = 0; i < s->lane_count; i++)
        close(s->lanes[i].fd);
    s->lane_count = 0;
}

/* With the lock held; drops it to wait for at most a while. */
static void pause_for(struct stream *s, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(seconds * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    s->waiting++;
    pthread_cond_timedwait(&s->changed, &s->lock, &until);
    s->waiting--;
}

/* Signal handlers are Python and take the GIL, whose holder may want the lock. */
static int interrupted(struct stream *s, struct libd_error *err)
{
    int raised;

    pthread_mutex_unlock(&s->lock);
    raised = libd_check_signals && libd_check_signals();
    pthread_mutex_lock(&s->lock);
    return raised ? libd_fail(err, LIBD_ESIGNAL, 0, 0) : LIBD_OK;
}

/* One more connection to what this stream is connected to, without the lock meanwhile. */
static int another(struct stream *s, int *fd, struct libd_error *err)
{
    const struct libd_welcome *who = &s->transport.who;
    struct libd_welcome now;
    char name[LIBD_MAX_NAME + 1];

    s->connecting = true;
    pthread_mutex_unlock(&s->lock);
    *fd = stream_connect(&s->address, &now, name, err);
    pthread_mutex_lock(&s->lock);
    s->connecting = false;
    if (s->waiting)
        pthread_cond_broadcast(&s->changed);
    if (*fd >= 0 && atomic_load(&s->transport.closed)) {
        close(*fd);
        return libd_fail(err, LIBD_ECLOSED, 0, 0);
    }
    if (*fd >= 0 && (memcmp(now.incarnation, who->incarnation, sizeof now.incarnation) != 0 ||
                     now.tenant != who->tenant || now.element != who->element)) {
        close(*fd);
        s->stale = true;
    }
    /* Who let us in before and now does not know us is another one, or has dropped us. */
    if (*fd < 0 && (err->code == LIBD_EAUTH || err->code == LIBD_ECAP || err->code == LIBD_ENOENT))
        s->stale = true;
    if (s->stale)
        return libd_fail(err, LIBD_ESTALE, 0, 1);
    return *fd < 0 ? err->code : LIBD_OK;
}

/* Whether requests can be sent; connects again if the connection was lost. What was under way then has failed. */
static int ready(struct stream *s, struct libd_error *err)
{
    int fd;

    for (;;) {
        if (atomic_load(&s->transport.closed))
            return libd_fail(err, LIBD_ECLOSED, 0, 0);
        if (s->stale)
            return libd_fail(err, LIBD_ESTALE, 0, 1);
        if (!s->broken)
            return LIBD_OK;
        stream_fail_all(s);
        if (!s->connecting && !s->in_calls)
            break;
        pause_for(s, 0.1);
        if (interrupted(s, err))
            return err->code;
    }
    if (libd_now() - s->refused < REFUSAL)
        return libd_fail(err, LIBD_ECLOSED, 2, (uint64_t)s->cause_detail);
    if (another(s, &fd, err)) {
        if (err->code == LIBD_ESIGNAL || err->code == LIBD_ESTALE)
            return err->code;
        s->refused = libd_now();
        return libd_fail(err, LIBD_ECLOSED, 2, err->code == LIBD_ETIMEOUT ? ETIMEDOUT : err->have);
    }
    lanes_close(s);
    lane_open(s, fd);
    s->broken = false;
    return LIBD_OK;
}

/* As many lanes as are wanted, or as can be had. */
static int widen(struct stream *s, struct libd_error *err)
{
    while (s->lane_count < s->lanes_wanted) {
        int fd;
        if (s->connecting)
            break; /* another thread sees to it */
        if (another(s, &fd, err)) {
            if (err->code == LIBD_ESIGNAL || err->code == LIBD_ESTALE)
                return err->code;
            s->lanes_wanted = s->lane_count;
            break;
        }
        if (s->broken) {
            close(fd);
            break;
        }
        lane_open(s, fd);
    }
    return ready(s, err);
}

int stream_connection(struct libd_transport *t, uint64_t *number)
{
    struct stream *s = stream_of(t);
    int fd;

    pthread_mutex_lock(&s->lock);
    *number = atomic_load(&s->connection);
    fd = s->lane_count && !s->broken ? fcntl(s->lanes[0].fd, F_DUPFD_CLOEXEC, 0) : -1;
    pthread_mutex_unlock(&s->lock);
    return fd;
}

int libd_stream_alive(struct libd_transport *t, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    int code;

    pthread_mutex_lock(&s->lock);
    if (!s->stale)
        stream_break(s, LIBD_ECLOSED, 0);
    code = ready(s, err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* ---- waiting ----------------------------------------------------------------------------------------------------- */

/* What a thread waits for: a batch, a call, or all that was submitted up to a number. */
struct goal {
    const struct libd_batch *batch;
    const struct libd_call *call;
    uint64_t mark;
};

static bool reached(const struct stream *s, const struct goal *goal)
{
    if (goal->batch)
        return libd_batch_done(goal->batch);
    if (goal->call)
        return atomic_load_explicit(&goal->call->done, memory_order_acquire);
    for (unsigned i = 0; i < s->lane_count; i++)
        if (s->lanes[i].first && s->lanes[i].first->request.id <= goal->mark)
            return false;
    return true;
}

static bool owed(const struct lane *lane) { return lane->first && lane->first->sent && !lane->reading; }

/* Waits until a lane can be read or written, for at most `seconds`. */
static void look(struct stream *s, double seconds)
{
    struct pollfd p[LANES_MAX];
    nfds_t n = 0;

    for (unsigned i = 0; i < s->lane_count; i++) {
        struct lane *lane = &s->lanes[i];
        short events = (short)((owed(lane) ? POLLIN : 0) | (lane->backlog && !lane->writing ? POLLOUT : 0));
        if (events)
            p[n++] = (struct pollfd){.fd = lane->fd, .events = events};
    }
    if (n == 0) { /* others are at it */
        pause_for(s, seconds < 0.1 ? seconds : 0.1);
        return;
    }
    pthread_mutex_unlock(&s->lock);
    poll(p, n, (int)(seconds * 1000) + 1);
    pthread_mutex_lock(&s->lock);
}

/* One round of sending and receiving on all lanes; true if something moved. `block`: it may wait in a system call. */
static bool turn(struct stream *s, const struct libd_call *until, bool block, bool *blocked)
{
    uint64_t moved = 0;
    unsigned owing = 0, behind = 0;
    struct lane *last = NULL;

    *blocked = false;
    for (unsigned i = 0; i < s->lane_count && !s->broken; i++) {
        struct lane *lane = &s->lanes[i];
        if (lane->unsent && !lane->writing)
            moved += lane_send(s, lane, until);
        behind += lane->backlog;
        if (owed(lane)) {
            owing++;
            last = lane;
        }
    }
    if (owing == 1 && !behind && block && !s->broken) {
        moved += lane_receive(s, last, true, blocked);
    } else {
        for (unsigned i = 0; i < s->lane_count && !s->broken; i++)
            if (owed(&s->lanes[i]))
                moved += lane_receive(s, &s->lanes[i], false, blocked);
    }
    s->moved += moved;
    return moved != 0;
}

/* With the lock held. Seconds: 0 does not wait, negative waits for ever. */
static int await(struct stream *s, const struct goal *goal, double timeout, struct libd_error *err)
{
    const struct libd_call *until = timeout >= 0 ? NULL : goal->call ? goal->call
                                    : goal->batch && goal->batch->part_count == 1 ? &goal->batch->part : NULL;
    double deadline = timeout > 0 ? libd_now() + timeout : 0, since = 0;
    uint64_t moved = s->moved;
    int code = LIBD_OK;

    while (!reached(s, goal)) {
        bool blocked = false;
        double left = SIGNAL_CHECK;
        if (s->broken) {
            stream_fail_all(s);
            if (s->in_calls) /* whoever is in a call comes back now */
                pause_for(s, 0.1);
            else if (!goal->batch && !goal->call)
                break;
            continue;
        }
        if (turn(s, until, timeout < 0, &blocked) || reached(s, goal))
            continue;
        if (timeout == 0)
            break;
        if (timeout > 0 && (left = deadline - libd_now()) <= 0)
            break;
        if (!blocked)
            look(s, left < SIGNAL_CHECK ? left : SIGNAL_CHECK);
        if (interrupted(s, err)) {
            code = err->code;
            break;
        }
        double now = libd_now();
        if (moved != s->moved || since == 0) {
            moved = s->moved;
            since = now;
        } else if (now - since > s->address.stall && !s->broken) {
            stream_break(s, LIBD_ETIMEOUT, ETIMEDOUT);
        }
    }
    if (s->waiting)
        pthread_cond_broadcast(&s->changed); /* somebody else goes on with the lanes */
    return code;
}

static int stream_progress(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    struct goal goal = {.batch = batch, .mark = UINT64_MAX};
    eventfd_t ignored;
    int code;

    if (t->generation != libd_generation())
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    pthread_mutex_lock(&s->lock);
    if (s->event >= 0)
        eventfd_read(s->event, &ignored);
    code = await(s, &goal, timeout, err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

static void stream_abandon(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    stream_break(s, LIBD_ECLOSED, 0);
    pthread_mutex_unlock(&s->lock);
}

static int stream_fd(struct libd_transport *t)
{
    struct stream *s = stream_of(t);
    int fd;

    pthread_mutex_lock(&s->lock);
    if (s->epoll < 0) {
        s->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        s->epoll = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = {.events = EPOLLIN};
        if (s->event >= 0 && s->epoll >= 0)
            epoll_ctl(s->epoll, EPOLL_CTL_ADD, s->event, &event);
        for (unsigned i = 0; i < s->lane_count && s->epoll >= 0; i++)
            stream_watch(s, &s->lanes[i]);
    }
    fd = s->epoll;
    pthread_mutex_unlock(&s->lock);
    return fd;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

static struct lane *least_loaded(struct stream *s)
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
    code = ready(s, err);
    if (!code) {
        struct lane *lane = least_loaded(s);
        atomic_store_explicit(&call->done, false, memory_order_relaxed);
        lane_append(s, lane, call);
        code = await(s, &goal, -1, err);
        if (!atomic_load(&call->done)) {
            /* The call is the caller's memory: after a signal the connection is given up rather than the wait. */
            struct libd_error ignored;
            stream_break(s, LIBD_ECLOSED, 0);
            while (!atomic_load(&call->done))
                await(s, &goal, -1, &ignored);
        } else {
            *err = call->err;
            code = err->code;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* ---- batches ----------------------------------------------------------------------------------------------------- */

/* Cuts what is longer than a stripe. */
static struct libd_vec *cut(const struct libd_batch *batch, size_t *reads, size_t *count)
{
    struct libd_vec *pieces;
    size_t n = 0;

    for (size_t i = 0; i < batch->count; i++)
        n += batch->vec[i].size ? (batch->vec[i].size + STRIPE - 1) / STRIPE : 1;
    pieces = malloc(n * sizeof *pieces);
    n = 0;
    for (size_t i = 0; i < batch->count && pieces; i++) {
        struct libd_vec left = batch->vec[i];
        if (i == batch->reads)
            *reads = n;
        do {
            struct libd_vec piece = left;
            if (piece.size > STRIPE)
                piece.size = STRIPE;
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

static int stream_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    const struct libd_vec *vec = batch->vec;
    size_t reads = batch->reads, count = batch->count;
    uint64_t bytes = 0, most = UINT64_MAX;
    int code;

    batch->parts = NULL;
    batch->part_count = 0;
    batch->more = NULL;
    batch->err.code = LIBD_OK;
    for (size_t i = 0; i < count; i++)
        bytes += vec[i].size;
    pthread_mutex_lock(&s->lock);
    code = ready(s, err);
    if (!code && bytes >= STRIPE_FROM && s->lanes_wanted > 1) {
        code = widen(s, err);
        if (!code && s->lane_count > 1) {
            vec = batch->more = cut(batch, &reads, &count);
            most = STRIPE;
        }
    }
    if (!code && (!vec || !plan(batch, vec, reads, count, most)))
        code = libd_fail(err, LIBD_ENOMEM, 0, 0);
    if (code) {
        libd_batch_release(batch);
    } else {
        /* It may be over, and its owner's again, as soon as the last part is sent. */
        unsigned parts = batch->part_count;
        if (parts == 1) {
            struct lane *lane = least_loaded(s);
            lane_append(s, lane, batch->parts);
            lane_send(s, lane, NULL);
        } else {
            struct libd_call *calls = batch->parts;
            for (unsigned i = 0; i < parts; i++)
                lane_append(s, most == STRIPE ? &s->lanes[i % s->lane_count] : least_loaded(s), &calls[i]);
            for (unsigned i = 0; i < s->lane_count && !s->broken; i++)
                lane_send(s, &s->lanes[i], NULL);
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

static int stream_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms,
                        struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_RENEW, .addr = addr, .epoch = epoch, .size = lease_ms}};

    return libd_stream_call(t, &call, err);
}

static int stream_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
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
    return code;
}

static int stream_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_FREE, .addr = addr, .epoch = epoch}};

    return libd_stream_call(t, &call, err);
}

static int stream_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                         uint64_t *new_epoch, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_EXTEND, .addr = addr, .epoch = epoch, .size = size}};
    int code = libd_stream_call(t, &call, err);

    if (!code && (call.reply.a == 0 || call.reply.a >= LIBD_SLOTS))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    *region = (uint32_t)call.reply.a;
    *new_epoch = call.reply.b;
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
    code = await(s, &goal, -1, err);
    pthread_mutex_unlock(&s->lock);
    return code ? code : libd_stream_call(t, &call, err);
}

static int stream_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err)
{
    struct libd_call call = {
        .request = {.op = LIBD_OP_STAT},
        .reply_payload = out,
        .reply_room = sizeof *out,
    };

    return libd_stream_call(t, &call, err);
}

static void stream_shutdown(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    stream_break(s, LIBD_ECLOSED, 0);
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void stream_destroy(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    lanes_close(s);
    if (s->epoll >= 0)
        close(s->epoll);
    if (s->event >= 0)
        close(s->event);
    free((char *)s->address.host);
    free((char *)s->address.port);
    free((char *)s->address.path);
    free((char *)s->address.token);
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

/* Data moves through the mapping; what changes regions asks the server. If the owner of the memory is gone, the server that
 * may be in its place by now is asked, too: its answer says that all refs are stale. */
static int shm_lost(struct libd_transport *t, struct libd_error *err)
{
    struct libd_error now;

    if (libd_stream_alive(t, &now) == LIBD_ESTALE || now.code == LIBD_ESIGNAL)
        *err = now;
    return err->code;
}

static int shm_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    int code = mapped_readv(t, vec, count, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    int code = mapped_writev(t, vec, count, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_atomic(struct libd_transport *t, enum libd_atomic_op op, uint64_t addr, uint64_t epoch, uint64_t a,
                      uint64_t b, uint64_t *old, struct libd_error *err)
{
    int code = mapped_atomic(t, op, addr, epoch, a, b, old, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_map(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, void **out,
                   struct libd_error *err)
{
    int code = mapped_map(t, addr, epoch, size, out, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_region(struct libd_transport *t, uint64_t addr, uint64_t *epoch, uint64_t *size, struct libd_error *err)
{
    int code = mapped_region(t, addr, epoch, size, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static int shm_flush(struct libd_transport *t, struct libd_error *err)
{
    int code = mapped_flush(t, err);

    return code == LIBD_ECLOSED ? shm_lost(t, err) : code;
}

static const struct libd_transport_ops shm_ops = {
    .type = "rdma_shm",
    .readv = shm_readv,
    .writev = shm_writev,
    .atomic = shm_atomic,
    .renew = stream_renew,
    .map = shm_map,
    .alloc = stream_alloc,
    .free = stream_free,
    .extend = stream_extend,
    .region = shm_region,
    .flush = shm_flush,
    .stat = stream_stat,
    .shutdown = stream_shutdown,
    .destroy = stream_destroy,
};

void libd_use_memory(struct libd_transport *t, struct libd_memory *memory)
{
    t->memory = memory;
    t->ops = &shm_ops;
}

/* ---- connecting -------------------------------------------------------------------------------------------------- */

static bool copied(const char **text)
{
    return !*text || (*text = strdup(*text)) != NULL;
}

int libd_open_stream(const struct libd_address *address, struct libd_transport **out, struct libd_error *err)
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
    fd = whole ? stream_connect(&s->address, &s->transport.who, s->transport.name, err)
               : (libd_fail(err, LIBD_ENOMEM, 0, 0), -1);
    if (fd < 0) {
        stream_destroy(&s->transport);
        return err->code;
    }
    lane_open(s, fd);
    *out = &s->transport;
    return LIBD_OK;
}
