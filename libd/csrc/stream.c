/* Requests over a stream socket: rdma_tcp as a whole, and the control half of rdma_shm. One request at a time per
 * connection; request numbers leave room for several in flight. Data goes from and to the caller's memory directly. */
#define _GNU_SOURCE
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "net.h"

#define IOV_BATCH 64
/* Seconds after which a system call that waits looks for signals: one that arrived just before the call began does not
 * interrupt it. */
#define SIGNAL_CHECK 0.25

/* ---- sending and receiving scattered memory ---------------------------------------------------------------------- */

/* A list of pieces that is consumed from the front. */
struct cursor {
    struct iovec head[2];
    size_t heads;
    const struct libd_vec *vec;
    size_t count;
    uint64_t done; /* bytes of the first piece */
    bool patient;  /* the socket's time-outs are for looking at signals, not for giving up */
};

static size_t cursor_iov(const struct cursor *c, struct iovec *iov)
{
    size_t n = 0;
    uint64_t skip = c->done;

    for (size_t i = 0; i < c->heads && n < IOV_BATCH; i++, skip = 0)
        if (c->head[i].iov_len > skip)
            iov[n++] = (struct iovec){(char *)c->head[i].iov_base + skip, c->head[i].iov_len - skip};
    for (size_t i = 0; i < c->count && n < IOV_BATCH; i++, skip = 0)
        if (c->vec[i].size > skip)
            iov[n++] = (struct iovec){(char *)c->vec[i].data + skip, c->vec[i].size - skip};
    return n;
}

static void cursor_advance(struct cursor *c, uint64_t bytes)
{
    c->done += bytes;
    while (c->heads && c->done >= c->head[0].iov_len) {
        c->done -= c->head[0].iov_len;
        c->head[0] = c->head[1];
        c->heads--;
    }
    while (!c->heads && c->count && c->done >= c->vec->size) {
        c->done -= c->vec->size;
        c->vec++;
        c->count--;
    }
}

static int interrupted(struct libd_error *err)
{
    if (libd_check_signals && libd_check_signals())
        return libd_fail(err, LIBD_ESIGNAL, 0, 0);
    return LIBD_OK;
}

static int lost(struct libd_error *err, int error)
{
    return error == ETIMEDOUT || error == EAGAIN ? libd_fail(err, LIBD_ETIMEOUT, (uint64_t)error, 0)
                                                 : libd_fail(err, LIBD_ECLOSED, 2, (uint64_t)error);
}

static int send_all(int fd, struct cursor *c, struct libd_error *err)
{
    struct iovec iov[IOV_BATCH];
    size_t n;

    while ((n = cursor_iov(c, iov)) > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent >= 0) {
            cursor_advance(c, (uint64_t)sent);
        } else if (errno == EINTR || (errno == EAGAIN && c->patient)) {
            if (interrupted(err))
                return err->code;
        } else {
            return lost(err, errno);
        }
    }
    return LIBD_OK;
}

/* Receives at least `least` bytes into the pieces; more only if they are there already. */
static int recv_some(int fd, struct cursor *c, uint64_t least, int *fds, int *nfds, struct libd_error *err)
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov[IOV_BATCH];
    uint64_t got = 0;
    size_t n;

    while (got < least && (n = cursor_iov(c, iov)) > 0) {
        struct msghdr message = {.msg_iov = iov, .msg_iovlen = n};
        if (fds) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof control.bytes;
        }
        ssize_t received = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        if (received > 0) {
            got += (uint64_t)received;
            cursor_advance(c, (uint64_t)received);
            struct cmsghdr *h = fds ? CMSG_FIRSTHDR(&message) : NULL;
            if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
                *nfds = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
                memcpy(fds, CMSG_DATA(h), (size_t)*nfds * sizeof(int));
            }
        } else if (received == 0) {
            return libd_fail(err, LIBD_ECLOSED, 2, 0);
        } else if (errno == EINTR || (errno == EAGAIN && c->patient)) {
            if (interrupted(err))
                return err->code;
        } else {
            return lost(err, errno);
        }
    }
    return LIBD_OK;
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

/* What the server says went wrong. It is not believed blindly: codes that only this side gives itself do not come from it,
 * and an errno is a small number. */
static int told(struct libd_error *err, const struct libd_reply *reply)
{
    if (reply->code < 0 || reply->code == LIBD_ECLOSED || reply->code == LIBD_ETIMEOUT || reply->code == LIBD_ESIGNAL ||
        (reply->code == LIBD_ESYS && reply->a > 4095))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    return libd_fail(err, reply->code, reply->a, reply->b);
}

/* Waits for the connection, listening to signals meanwhile: the thread that has it may wait for the server. */
static int take(struct stream *s, struct libd_error *err)
{
    while (pthread_mutex_trylock(&s->lock) != 0) {
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 100000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        if (pthread_mutex_timedlock(&s->lock, &until) == 0)
            break;
        if (interrupted(err))
            return err->code;
    }
    return LIBD_OK;
}

static int exchange(struct stream *s, struct libd_call *call, int *fds, int *nfds, struct libd_error *err)
{
    struct cursor out = {
        .head = {{&call->request, sizeof call->request}, {(void *)call->payload, call->payload_size}},
        .heads = call->payload_size ? 2 : 1,
        .vec = call->out,
        .count = call->out_count,
        .patient = true,
    };
    /* The reply's data is received right behind its header, in one system call where possible; with an error nothing
     * follows the header, so this never waits for more than the header. */
    struct cursor in = {
        .head = {{&call->reply, sizeof call->reply}, {call->reply_payload, call->reply_room}},
        .heads = call->reply_room ? 2 : 1,
        .vec = call->in,
        .count = call->in_count,
        .patient = true,
    };
    uint64_t expected = 0, received;
    int code;

    call->request.id = ++s->next_id;
    code = send_all(s->fd, &out, err);
    if (!code)
        code = recv_some(s->fd, &in, sizeof call->reply, fds, nfds, err);
    if (code)
        return code;
    if (call->reply.magic != LIBD_REPLY_MAGIC || call->reply.id != call->request.id ||
        call->reply.op != call->request.op)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    for (size_t i = 0; i < call->in_count; i++)
        expected += call->in[i].size;
    if (call->reply.code == LIBD_OK ? (call->in_count ? call->reply.length != expected
                                                      : call->reply.length > call->reply_room)
                                    : call->reply.length != 0)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    if (in.heads == 2 || (in.heads && !call->reply_room)) /* unreachable: the header is complete */
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    received = in.done;
    if (call->in_count)
        for (const struct libd_vec *v = call->in; v < in.vec; v++)
            received += v->size;
    if (received > call->reply.length)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    return recv_some(s->fd, &in, call->reply.length - received, NULL, NULL, err);
}

static int call_fds(struct libd_transport *t, struct libd_call *call, int *fds, int *nfds, struct libd_error *err)
{
    struct stream *s = (struct stream *)t;
    int code;

    /* In a child of fork the connection, and whoever held its lock, are the parent's. */
    if (t->generation != libd_generation())
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    code = take(s, err);
    if (code)
        return code;
    if (s->broken)
        code = libd_fail(err, LIBD_ECLOSED, 2, 0);
    else
        code = exchange(s, call, fds, nfds, err);
    if (code) {
        /* In the middle of a message there is no way back into step. */
        s->broken = true;
        shutdown(s->fd, SHUT_RDWR);
        if (atomic_load(&t->closed))
            code = libd_fail(err, LIBD_ECLOSED, 0, 0);
    }
    pthread_mutex_unlock(&s->lock);
    if (!code && call->reply.code)
        code = told(err, &call->reply);
    return code;
}

int libd_stream_call(struct libd_transport *t, struct libd_call *call, struct libd_error *err)
{
    return call_fds(t, call, NULL, NULL, err);
}

int libd_stream_call_fds(struct libd_transport *t, struct libd_call *call, int *fds, int *nfds, struct libd_error *err)
{
    return call_fds(t, call, fds, nfds, err);
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static int stream_vector(struct libd_transport *t, const struct libd_vec *vec, size_t count, bool in,
                         struct libd_error *err)
{
    while (count) {
        size_t n = count < LIBD_MAX_SEGMENTS ? count : LIBD_MAX_SEGMENTS;
        struct libd_call call = {.request = {.count = (uint32_t)n}};
        struct libd_segment one, *segments = n == 1 ? &one : malloc(n * sizeof *segments);
        uint64_t bytes = 0;
        int code;

        if (!segments)
            return libd_fail(err, LIBD_ENOMEM, 0, 0);
        for (size_t i = 0; i < n; i++) {
            segments[i] = (struct libd_segment){vec[i].addr, vec[i].epoch, vec[i].size};
            bytes += vec[i].size;
        }
        if (n == 1) {
            call.request.op = in ? LIBD_OP_READ : LIBD_OP_WRITE;
            call.request.addr = one.addr;
            call.request.epoch = one.epoch;
        } else {
            call.request.op = in ? LIBD_OP_READV : LIBD_OP_WRITEV;
            call.payload = segments;
            call.payload_size = n * sizeof *segments;
        }
        call.request.size = bytes;
        call.request.length = call.payload_size + (in ? 0 : bytes);
        if (in) {
            call.in = vec;
            call.in_count = n;
        } else {
            call.out = vec;
            call.out_count = n;
        }
        code = libd_stream_call(t, &call, err);
        if (segments != &one)
            free(segments);
        if (code)
            return code;
        vec += n;
        count -= n;
    }
    return LIBD_OK;
}

static int stream_readv(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return stream_vector(t, vec, count, true, err);
}

static int stream_writev(struct libd_transport *t, const struct libd_vec *vec, size_t count, struct libd_error *err)
{
    return stream_vector(t, vec, count, false, err);
}

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

static int stream_flush(struct libd_transport *t, struct libd_error *err)
{
    struct libd_call call = {.request = {.op = LIBD_OP_FLUSH}};

    return libd_stream_call(t, &call, err);
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

static void stream_shutdown(struct libd_transport *t) { shutdown(((struct stream *)t)->fd, SHUT_RDWR); }

static void stream_destroy(struct libd_transport *t)
{
    struct stream *s = (struct stream *)t;

    close(s->fd);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct libd_transport_ops tcp_ops = {
    .type = "rdma_tcp",
    .readv = stream_readv,
    .writev = stream_writev,
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

/* Data moves through the mapping; what changes regions asks the server. */
static const struct libd_transport_ops shm_ops = {
    .type = "rdma_shm",
    .readv = mapped_readv,
    .writev = mapped_writev,
    .atomic = mapped_atomic,
    .renew = stream_renew,
    .map = mapped_map,
    .alloc = stream_alloc,
    .free = stream_free,
    .extend = stream_extend,
    .region = mapped_region,
    .flush = mapped_flush,
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

static int connect_error(struct libd_error *err, int error)
{
    if (error == EINTR) /* a signal handler raised */
        return libd_fail(err, LIBD_ESIGNAL, 0, 0);
    if (error == ETIMEDOUT)
        return libd_fail(err, LIBD_ETIMEOUT, (uint64_t)error, 1);
    return libd_fail(err, LIBD_ECLOSED, 3, (uint64_t)error);
}

static int greet(struct stream *s, const struct libd_address *address, struct libd_error *err)
{
    struct libd_hello hello = {
        .magic = LIBD_MAGIC,
        .version = LIBD_VERSION,
        .kind = address->kind,
        .tenant = address->tenant,
        .element = address->element,
    };
    struct {
        struct libd_welcome welcome;
        char name[LIBD_MAX_NAME];
    } answer;
    struct libd_reply reply;
    size_t token = address->token ? strlen(address->token) : 0;
    struct cursor out = {.head = {{&hello, sizeof hello}, {(void *)address->token, token}}, .heads = token ? 2 : 1};
    struct cursor in = {.head = {{&reply, sizeof reply}}, .heads = 1};
    int code;

    if (token > LIBD_MAX_TOKEN)
        return libd_fail(err, LIBD_EAUTH, 0, 0);
    hello.token_length = (uint16_t)token;
    memcpy(hello.key, address->key, sizeof hello.key);
    code = send_all(s->fd, &out, err);
    if (!code)
        code = recv_some(s->fd, &in, sizeof reply, NULL, NULL, err);
    if (code)
        return code;
    if (reply.magic != LIBD_REPLY_MAGIC)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    if (reply.code)
        return told(err, &reply);
    if (reply.length < sizeof answer.welcome || reply.length > sizeof answer)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    in = (struct cursor){.head = {{&answer, reply.length}}, .heads = 1};
    code = recv_some(s->fd, &in, reply.length, NULL, NULL, err);
    if (code)
        return code;
    if (answer.welcome.name_length != reply.length - sizeof answer.welcome || answer.welcome.root >= LIBD_SLOTS)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    s->transport.who = answer.welcome;
    memcpy(s->transport.name, answer.name, answer.welcome.name_length);
    return LIBD_OK;
}

static void set_deadline(int fd, double seconds)
{
    struct timeval t = {.tv_sec = (time_t)seconds, .tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6)};

    if (t.tv_sec == 0 && t.tv_usec == 0)
        t.tv_usec = 1; /* zero would be forever */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
}

int libd_open_stream(const struct libd_address *address, struct libd_transport **out, struct libd_error *err)
{
    struct stream *s;
    int code;
    int fd = address->path ? net_connect_unix(address->path, address->timeout)
                           : net_connect_tcp(address->host, address->port, address->timeout);

    if (fd < 0)
        return connect_error(err, -fd);
    s = calloc(1, sizeof *s);
    if (!s) {
        close(fd);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    pthread_mutex_init(&s->lock, NULL);
    s->fd = fd;
    s->transport.ops = &tcp_ops;
    s->transport.generation = libd_generation();
    set_deadline(fd, address->timeout);
    code = greet(s, address, err);
    if (code) {
        stream_destroy(&s->transport);
        return code;
    }
    set_deadline(fd, SIGNAL_CHECK);
    *out = &s->transport;
    return LIBD_OK;
}
