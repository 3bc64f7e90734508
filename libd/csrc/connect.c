/* Connecting to a memory server: the greeting, and what is made of its refusals. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "net.h"
#include "stream.h"

#define RENEWALS 512 /* leases that are asked for again in one round trip */
#define ATTACH_ID 1 /* of the request that goes with a greeting: nothing else is under way then */

/* What the server says went wrong. It is not believed blindly: codes that only this side gives itself do not come from it,
 * and an errno is a small number. */
int stream_told(struct libd_error *err, const struct libd_reply *reply)
{
    if (reply->code == LIBD_ECLOSED)
        return libd_fail(err, LIBD_ECLOSED, 4, 0); /* it is stopping */
    if (reply->code < 0 || reply->code == LIBD_ETIMEOUT || reply->code == LIBD_ESIGNAL ||
        (reply->code == LIBD_ESYS && reply->a > 4095))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    if (reply->code == LIBD_EAUTH) /* what more there is to say of it only this side says */
        return libd_fail(err, LIBD_EAUTH, 0, 0);
    return libd_fail(err, reply->code, reply->a, reply->b);
}

static int lost(struct libd_error *err, int error)
{
    return error == ETIMEDOUT || error == EAGAIN ? libd_fail(err, LIBD_ETIMEOUT, (uint64_t)error, 0)
                                                 : libd_fail(err, LIBD_ECLOSED, 2, (uint64_t)error);
}

static int interrupted(struct libd_error *err)
{
    if (libd_check_signals && libd_check_signals())
        return libd_fail(err, LIBD_ESIGNAL, 0, 0);
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

static int send_all(int fd, const void *data, size_t size, struct libd_error *err)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = send(fd, (const char *)data + done, size - done, MSG_NOSIGNAL);
        if (n >= 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return lost(err, errno);
        else if (interrupted(err))
            return err->code;
    }
    return LIBD_OK;
}

/* What a new connection has sent so far. Nothing comes that was not asked for, so all that is there can be taken at once. */
struct arrivals {
    uint8_t bytes[2 * sizeof(struct libd_reply) + sizeof(struct libd_welcome) + LIBD_MAX_NAME];
    size_t used, got;
    int fds[2], nfds;
};

static void drop_descriptors(struct arrivals *in)
{
    while (in->nfds)
        close(in->fds[--in->nfds]);
}

static int receive(int fd, struct arrivals *in, struct libd_error *err)
{
    union {
        char bytes[CMSG_SPACE(sizeof in->fds)];
        struct cmsghdr align;
    } control;
    struct iovec rest = {in->bytes + in->got, sizeof in->bytes - in->got};
    struct msghdr message = {
        .msg_iov = &rest,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof control.bytes,
    };
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);

    if (n == 0)
        return libd_fail(err, LIBD_ECLOSED, 2, 0);
    if (n < 0)
        return errno != EINTR && errno != EAGAIN ? lost(err, errno) : interrupted(err);
    struct cmsghdr *h = CMSG_FIRSTHDR(&message);
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
        drop_descriptors(in); /* none of a server that passes some twice stay behind */
        in->nfds = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof *in->fds);
        memcpy(in->fds, CMSG_DATA(h), (size_t)in->nfds * sizeof *in->fds);
    }
    in->got += (size_t)n;
    return message.msg_flags & MSG_CTRUNC ? libd_fail(err, LIBD_EPROTO, 0, 0) : LIBD_OK;
}

/* The next `size` bytes, by `until`, however little comes at a time. */
static int take(int fd, struct arrivals *in, void *data, size_t size, double until, struct libd_error *err)
{
    if (size > sizeof in->bytes - in->used)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    while (in->got - in->used < size) {
        double left = until - libd_now();
        if (left <= 0)
            return lost(err, ETIMEDOUT);
        if (left < SIGNAL_CHECK)
            set_deadline(fd, left);
        if (receive(fd, in, err))
            return err->code;
    }
    memcpy(data, in->bytes + in->used, size);
    in->used += size;
    return LIBD_OK;
}

/* The reply to what was sent as number `id`. */
static int take_reply(int fd, struct arrivals *in, uint16_t op, uint64_t id, struct libd_reply *reply, double until,
                      struct libd_error *err)
{
    int code = take(fd, in, reply, sizeof *reply, until, err);

    if (code)
        return code;
    if (reply->magic != LIBD_REPLY_MAGIC || reply->op != op || reply->id != id || (reply->code && reply->length))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    return LIBD_OK;
}

/* With `arena`, ATTACH goes out with the greeting: one round trip for both. */
static int greet(int fd, const struct libd_address *address, struct libd_welcome *who, char *name, struct arena *arena,
                 double until, struct libd_error *err)
{
    struct {
        struct libd_hello hello;
        char rest[LIBD_MAX_TOKEN + sizeof(struct libd_request)];
    } greeting = {
        .hello = {
            .magic = LIBD_MAGIC,
            .version = LIBD_VERSION,
            .kind = address->kind,
            .tenant = address->tenant,
            .element = address->element,
        },
    };
    const struct libd_request attach = {.op = LIBD_OP_ATTACH, .id = ATTACH_ID};
    struct libd_reply reply;
    struct arrivals in = {.got = 0};
    size_t token = address->token ? strlen(address->token) : 0, size = sizeof greeting.hello + token;
    int code;

    if (token > LIBD_MAX_TOKEN)
        return libd_fail(err, LIBD_EAUTH, 0, 0);
    greeting.hello.token_length = (uint16_t)token;
    memcpy(greeting.hello.key, address->key, sizeof greeting.hello.key);
    if (token)
        memcpy(greeting.rest, address->token, token);
    if (arena) {
        memcpy(greeting.rest + token, &attach, sizeof attach);
        size += sizeof attach;
    }
    code = send_all(fd, &greeting, size, err);
    if (!code)
        code = take_reply(fd, &in, 0, 0, &reply, until, err);
    if (!code && reply.code)
        code = stream_told(err, &reply);
    if (!code && (reply.length < sizeof *who || reply.length > sizeof *who + LIBD_MAX_NAME))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code)
        code = take(fd, &in, who, sizeof *who, until, err);
    if (!code && (who->name_length != reply.length - sizeof *who || who->root >= LIBD_SLOTS))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code)
        code = take(fd, &in, name, who->name_length, until, err);
    if (!code)
        name[who->name_length] = '\0';
    if (!code && arena)
        code = take_reply(fd, &in, LIBD_OP_ATTACH, ATTACH_ID, &reply, until, err);
    if (!code && arena && reply.code)
        code = stream_told(err, &reply);
    if (!code && (in.got != in.used || in.nfds != (arena ? 2 : 0)))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    if (!code && arena) {
        *arena = (struct arena){{in.fds[0], in.fds[1]}, reply.a};
        return LIBD_OK;
    }
    drop_descriptors(&in);
    return code;
}

/* Leases belong to the connection that asked for them: on another one they are asked for again, many at a time. One that has
 * run out meanwhile is found out when it is used. */
static int hold(int fd, const struct held *held, size_t count, double until, struct libd_error *err)
{
    struct libd_request requests[RENEWALS];
    struct libd_reply reply;
    struct arrivals in = {.got = 0};
    int code = LIBD_OK;

    for (size_t sent = 0, taken = 0; taken < count && !code; taken++) {
        if (taken == sent) {
            size_t n = count - sent < RENEWALS ? count - sent : RENEWALS;
            for (size_t i = 0; i < n; i++) {
                const struct held *h = &held[sent + i];
                requests[i] = (struct libd_request){
                    .op = LIBD_OP_RENEW, .id = sent + i, .addr = h->addr, .epoch = h->epoch, .size = h->ms};
            }
            code = send_all(fd, requests, n * sizeof *requests, err);
            sent += n;
        }
        in.got -= in.used;
        memmove(in.bytes, in.bytes + in.used, in.got);
        in.used = 0;
        if (!code)
            code = take_reply(fd, &in, LIBD_OP_RENEW, taken, &reply, until, err);
        if (!code && reply.length)
            code = libd_fail(err, LIBD_EPROTO, 0, 0);
    }
    if (!code && (in.got != in.used || in.nfds))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    drop_descriptors(&in);
    return code;
}

/* Whether a server on this host is this user's own, as it asks of its clients. The name of one that has ended is free for
 * anybody to take, who is not to be shown a token. */
static int familiar(int fd, struct libd_error *err)
{
    uid_t user;

    if (!net_peer_user(fd, &user))
        return lost(err, errno);
    return user == geteuid() ? LIBD_OK : libd_fail(err, LIBD_EAUTH, LIBD_STRANGER, user);
}

int stream_connect(const struct libd_address *address, const struct held *held, size_t held_count,
                   struct libd_welcome *who, char *name, struct arena *arena, struct libd_error *err)
{
    double until = libd_now() + address->timeout;
    int fd = address->path ? net_connect_unix(address->path, address->timeout)
                           : net_connect_tcp(address->host, address->port, address->timeout);

    if (fd == -EINTR) { /* a signal handler raised */
        libd_fail(err, LIBD_ESIGNAL, 0, 0);
        return -1;
    }
    if (fd < 0) {
        libd_fail(err, fd == -ETIMEDOUT ? LIBD_ETIMEOUT : LIBD_ECLOSED, fd == -ETIMEDOUT ? ETIMEDOUT : 3, (uint64_t)-fd);
        return -1;
    }
    set_deadline(fd, SIGNAL_CHECK);
    int code = address->path ? familiar(fd, err) : LIBD_OK;
    if (!code)
        code = greet(fd, address, who, name, arena, until, err);
    if (!code)
        code = hold(fd, held, held_count, until, err);
    if (code) {
        close(fd);
        return -1;
    }
    if (until - libd_now() < SIGNAL_CHECK) /* it was shortened towards the end */
        set_deadline(fd, SIGNAL_CHECK);
    return fd;
}
