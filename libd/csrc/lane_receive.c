/* Receiving on a lane: putting replies where they belong. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "lane.h"

/* Where the next bytes should go if the replies come in the order of the requests and every request succeeds. What comes
 * differently is sorted out by `consume`. */
static size_t expect(struct lane *lane, struct iovec *iov)
{
    struct libd_call *call = lane->first;
    uint64_t got = lane->got;
    size_t n = 0;

    if (lane->current) {
        struct libd_call *c = lane->current;
        n = c->in_count ? lane_scatter(c->in, c->in_count, c->in_at, iov, IOV_BATCH)
                        : (iov[0] = (struct iovec){(char *)c->reply_payload + c->in_at.done,
                                                   c->reply.length - c->in_at.done},
                           1);
        if (c != lane->first || n == IOV_BATCH)
            return n;
        call = c->next;
    }
    for (; call && call != lane->unsent && n < IOV_BATCH - 1; call = call->next, got = 0) {
        iov[n++] = (struct iovec){(char *)&call->reply + got, sizeof call->reply - got};
        /* A short read's answer may come first. Then what follows must not lie where the caller can write to it, in another
         * read of the same memory for example: it has headers. */
        if (call->request.op == LIBD_OP_READ && call->request.size > LIBD_SHORT_READ)
            break;
        if (call->reply_room) {
            iov[n++] = (struct iovec){call->reply_payload, call->reply_room};
            break; /* how long it is nobody knows yet */
        }
        n += lane_scatter(call->in, call->in_count, call->in_at, iov + n, IOV_BATCH - n);
    }
    return n;
}

/* Takes up the header that has arrived in `first->reply`. */
static int begin(struct stream *s, struct lane *lane)
{
    struct libd_call *first = lane->first, *call = first;
    struct libd_reply reply = first->reply;
    struct libd_error err = {0};

    if (reply.magic != LIBD_REPLY_MAGIC)
        return LIBD_EPROTO;
    while (call && call->request.id != reply.id)
        call = call->next;
    if (!call || !call->sent || reply.op != call->request.op)
        return LIBD_EPROTO;
    call->reply = reply;
    lane->got = 0;
    if (reply.code ? reply.length != 0
                   : call->in_count ? reply.length != call->expected : reply.length > call->reply_room)
        return LIBD_EPROTO;
    if (reply.length) {
        lane->current = call;
        lane_forward(call->in, call->in_count, &call->in_at, 0); /* past empty segments */
        return LIBD_OK;
    }
    if (reply.code)
        stream_told(&err, &reply);
    lane_unlink(lane, call);
    lane_finish(s, call, &err);
    return LIBD_OK;
}

/* Where the parser wants the next bytes, and how many of them. */
static uint8_t *wanted(struct lane *lane, uint64_t *room)
{
    struct libd_call *call = lane->current;

    if (!call) {
        call = lane->first;
        *room = sizeof call->reply - lane->got;
        return (uint8_t *)&call->reply + lane->got;
    }
    if (!call->in_count) {
        *room = call->reply.length - call->in_at.done;
        return (uint8_t *)call->reply_payload + call->in_at.done;
    }
    *room = call->in[call->in_at.index].size - call->in_at.done;
    return (uint8_t *)call->in[call->in_at.index].data + call->in_at.done;
}

static int took(struct stream *s, struct lane *lane, uint64_t bytes)
{
    struct libd_call *call = lane->current;
    struct libd_error err = {0};

    if (!call) {
        lane->got += bytes;
        return lane->got == sizeof call->reply ? begin(s, lane) : LIBD_OK;
    }
    if (call->in_count) {
        lane_forward(call->in, call->in_count, &call->in_at, bytes);
        if (call->in_at.index < call->in_count)
            return LIBD_OK;
    } else {
        call->in_at.done += bytes;
        if (call->in_at.done < call->reply.length)
            return LIBD_OK;
    }
    lane_unlink(lane, call);
    lane_finish(s, call, &err);
    return LIBD_OK;
}

/* Whether what follows `first`'s header, which is complete, is where `expect` wanted it: `after` bytes have arrived. */
static bool as_expected(const struct libd_call *first, uint64_t after)
{
    const struct libd_reply *reply = &first->reply;

    return after == 0 || (reply->id == first->request.id &&
                          (first->reply_room ? after <= reply->length : reply->length == first->expected));
}

static uint8_t *set_aside(const struct iovec *iov, uint64_t bytes)
{
    uint8_t *aside = malloc(bytes), *end = aside;

    for (; aside && bytes; iov++) {
        size_t n = iov->iov_len < bytes ? iov->iov_len : bytes;
        memcpy(end, iov->iov_base, n);
        end += n;
        bytes -= n;
    }
    return aside;
}

/* Takes `bytes` that arrived in `iov`. As long as they are where they belong nothing is copied. If a reply is not the one
 * that was expected, the rest is set aside and dealt out from there: before its header is taken up, because then a call
 * may be over, and the memory that the rest lies in be its owner's again. */
static int consume(struct stream *s, struct lane *lane, struct iovec *iov, uint64_t bytes)
{
    uint8_t *aside = NULL;
    struct iovec rest;
    int code = LIBD_OK;

    while (bytes && !code) {
        uint64_t room;
        if (iov->iov_len == 0) {
            iov++;
            continue;
        }
        if (!lane->first) { /* nobody asked for this */
            code = LIBD_EPROTO;
            break;
        }
        uint8_t *to = wanted(lane, &room);
        uint64_t n = iov->iov_len < bytes ? iov->iov_len : bytes;
        if (n > room)
            n = room;
        if (to != iov->iov_base)
            memcpy(to, iov->iov_base, n);
        iov->iov_base = (char *)iov->iov_base + n;
        iov->iov_len -= n;
        bytes -= n;
        if (!aside && !lane->current && n == room && !as_expected(lane->first, bytes)) {
            aside = set_aside(iov, bytes);
            if (!aside)
                return LIBD_ENOMEM;
            rest = (struct iovec){aside, bytes};
            iov = &rest;
        }
        code = took(s, lane, n);
    }
    free(aside);
    return code;
}

uint64_t lane_receive(struct stream *s, struct lane *lane, bool block, bool *interrupted)
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov[IOV_BATCH];
    struct msghdr message = {.msg_iov = iov};
    struct libd_call *first = lane->first;
    ssize_t n;
    int error;

    message.msg_iovlen = expect(lane, iov);
    if (message.msg_iovlen == 0)
        return 0;
    if (first && first->fds) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof control.bytes;
    }
    lane->reading = true;
    s->in_calls++;
    pthread_mutex_unlock(&s->lock);
    n = recvmsg(lane->fd, &message, MSG_CMSG_CLOEXEC | (block ? 0 : MSG_DONTWAIT));
    error = errno;
    pthread_mutex_lock(&s->lock);
    /* The answer may be to a request of which its sender has not noted yet that it is sent. */
    for (uint64_t writes = lane->writes; n > 0 && lane->writing && lane->writes == writes && !s->broken;)
        stream_pause(s, SIGNAL_CHECK);
    lane->reading = false;
    s->in_calls--;
    struct cmsghdr *h = n > 0 && message.msg_control ? CMSG_FIRSTHDR(&message) : NULL;
    if (h && h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS) {
        *first->nfds = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(first->fds, CMSG_DATA(h), (size_t)*first->nfds * sizeof(int));
    }
    if (s->broken) {
        stream_fail_all(s);
    } else if (n > 0) {
        int code = consume(s, lane, iov, (uint64_t)n);
        s->moved += (uint64_t)n;
        if (code)
            stream_break(s, code, 0);
        return (uint64_t)n;
    } else if (n == 0) {
        stream_break(s, LIBD_ECLOSED, 0);
    } else if (error == EINTR || error == EAGAIN) {
        *interrupted = block;
    } else {
        stream_break(s, error == ETIMEDOUT ? LIBD_ETIMEOUT : LIBD_ECLOSED, error);
    }
    return 0;
}
