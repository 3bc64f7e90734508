/* Connecting to a memory server: the greeting, and what is made of its refusals. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "net.h"
#include "stream.h"

/* What the server says went wrong. It is not believed blindly: codes that only this side gives itself do not come from it,
 * and an errno is a small number. */
int stream_told(struct libd_error *err, const struct libd_reply *reply)
{
    if (reply->code == LIBD_ECLOSED)
        return libd_fail(err, LIBD_ECLOSED, 4, 0); /* it is stopping */
    if (reply->code < 0 || reply->code == LIBD_ETIMEOUT || reply->code == LIBD_ESIGNAL ||
        (reply->code == LIBD_ESYS && reply->a > 4095))
        return libd_fail(err, LIBD_EPROTO, 0, 0);
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

/* By `until`, however little comes at a time. */
static int recv_all(int fd, void *data, size_t size, double until, struct libd_error *err)
{
    for (size_t done = 0; done < size;) {
        double left = until - libd_now();
        if (left <= 0)
            return lost(err, ETIMEDOUT);
        set_deadline(fd, left);
        ssize_t n = recv(fd, (char *)data + done, size - done, 0);
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            return libd_fail(err, LIBD_ECLOSED, 2, 0);
        else if (errno != EINTR)
            return lost(err, errno);
        else if (interrupted(err))
            return err->code;
    }
    return LIBD_OK;
}

static int greet(int fd, const struct libd_address *address, struct libd_welcome *who, char *name, double until,
                 struct libd_error *err)
{
    struct {
        struct libd_hello hello;
        char token[LIBD_MAX_TOKEN];
    } greeting = {
        .hello = {
            .magic = LIBD_MAGIC,
            .version = LIBD_VERSION,
            .kind = address->kind,
            .tenant = address->tenant,
            .element = address->element,
        },
    };
    struct libd_reply reply;
    size_t token = address->token ? strlen(address->token) : 0;
    int code;

    if (token > LIBD_MAX_TOKEN)
        return libd_fail(err, LIBD_EAUTH, 0, 0);
    greeting.hello.token_length = (uint16_t)token;
    memcpy(greeting.hello.key, address->key, sizeof greeting.hello.key);
    if (token)
        memcpy(greeting.token, address->token, token);
    code = send_all(fd, &greeting, sizeof greeting.hello + token, err);
    if (!code)
        code = recv_all(fd, &reply, sizeof reply, until, err);
    if (code)
        return code;
    if (reply.magic != LIBD_REPLY_MAGIC)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    if (reply.code)
        return stream_told(err, &reply);
    if (reply.length < sizeof *who || reply.length > sizeof *who + LIBD_MAX_NAME)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    code = recv_all(fd, who, sizeof *who, until, err);
    if (code)
        return code;
    if (who->name_length != reply.length - sizeof *who || who->root >= LIBD_SLOTS)
        return libd_fail(err, LIBD_EPROTO, 0, 0);
    name[who->name_length] = '\0';
    return recv_all(fd, name, who->name_length, until, err);
}

/* A lease belongs to the connection that asked for it: on another one it is asked for again. One that has run out meanwhile is
 * found out when it is used. */
static int hold(int fd, const struct held *held, double until, struct libd_error *err)
{
    struct libd_request request = {.op = LIBD_OP_RENEW, .addr = held->addr, .epoch = held->epoch, .size = held->ms};
    struct libd_reply reply;
    int code = send_all(fd, &request, sizeof request, err);

    if (!code)
        code = recv_all(fd, &reply, sizeof reply, until, err);
    if (!code && (reply.magic != LIBD_REPLY_MAGIC || reply.op != LIBD_OP_RENEW || reply.length))
        code = libd_fail(err, LIBD_EPROTO, 0, 0);
    return code;
}

int stream_connect(const struct libd_address *address, const struct held *held, size_t held_count,
                   struct libd_welcome *who, char *name, struct libd_error *err)
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
    set_deadline(fd, address->timeout);
    int code = greet(fd, address, who, name, until, err);
    for (size_t i = 0; i < held_count && !code; i++)
        code = hold(fd, &held[i], until, err);
    if (code) {
        close(fd);
        return -1;
    }
    set_deadline(fd, SIGNAL_CHECK);
    return fd;
}
