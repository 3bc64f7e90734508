/* One connection of a stream: its queue of calls, sending them, and putting replies where they belong. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "stream.h"

/* ---- scattered memory -------------------------------------------------------------------------------------------- */

static size_t scatter(const struct libd_vec *vec, size_t count, struct libd_place at, struct iovec *iov, size_t room)
{
    size_t n = 0;

    for (size_t i = at.index; i < count && n < room; i++, at.done = 0)
        if (vec[i].size > at.done)
            iov[n++] = (struct iovec){(char *)vec[i].data + at.done, vec[i].size - at.done};
    return n;
}

static void forward(const struct libd_vec *vec, size_t count, struct libd_place *at, uint64_t bytes)
{
    at->done += bytes;
    while (at->index < count && at->done >= vec[at->index].size) {
        at->done -= vec[at->index].size;
        at->index++;
    }
}

static uint64_t total(const struct libd_vec *vec, size_t count)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += vec[i].size;
    return sum;
}

/* ---- the queue --------------------------------------------------------------------------------------------------- */

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

static void unlink_call(struct lane *lane, struct libd_call *call)
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

/* The call, and its batch if it was the last of it, belong to their owner again from here on. */
static void finish(struct stream *s, struct libd_call *call, const struct libd_error *err)
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
            unlink_call(lane, call);
            finish(s, call, &err);
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

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static size_t outgoing(const struct libd_call *call, struct iovec *iov, size_t room)
{
    uint64_t head = sizeof call->request, done = call->head_done;
    size_t n = 0;

    if (done < head)
        iov[n++] = (struct iovec){(char *)&call->request + done, head - done};
    done = done > head ? done - head : 0;
    if (n < room && done < call->payload_size)
        iov[n++] = (struct iovec){(char *)call->payload + done, call->payload_size - done};
    return n + scatter(call->out, call->out_count, call->out_at, iov + n, room - n);
}

/* Whether `bytes` more make it whole; takes what belongs to it. */
static bool sent(struct libd_call *call, uint64_t *bytes)
{
    uint64_t head = sizeof call->request + call->payload_size - call->head_done;
    uint64_t n = head < *bytes ? head : *bytes;

    call->head_done += n;
    *bytes -= n;
    if (n < head)
        return false;
    while (call->out_at.index < call->out_count) {
        uint64_t left = call->out[call->out_at.index].size - call->out_at.done;
        if (*bytes < left) {
            call->out_at.done += *bytes;
            *bytes = 0;
            return false;
        }
        *bytes -= left;
        call->out_at = (struct libd_place){call->out_at.index + 1, 0};
    }
    return true;
}

uint64_t lane_send(struct stream *s, struct lane *lane, const struct libd_call *until)
{
    uint64_t moved = 0;

    while (lane->unsent && !lane->writing && !s->broken) {
        struct iovec iov[IOV_BATCH];
        struct msghdr message = {.msg_iov = iov};
        /* With an earlier request under way the server may be waiting for us to receive. */
        bool block = until && lane->unsent == until && lane->first == until;
        ssize_t n;
        int error;

        for (const struct libd_call *c = lane->unsent; c && message.msg_iovlen < IOV_BATCH - 2; c = block ? NULL : c->next) {
            size_t more = outgoing(c, iov + message.msg_iovlen, IOV_BATCH - message.msg_iovlen);
            message.msg_iovlen += more;
        }
        lane->writing = true;
        s->in_calls++;
        pthread_mutex_unlock(&s->lock);
        n = sendmsg(lane->fd, &message, MSG_NOSIGNAL | (block ? 0 : MSG_DONTWAIT));
        error = errno;
        pthread_mutex_lock(&s->lock);
        lane->writing = false;
        s->in_calls--;
        if (n >= 0) {
            uint64_t rest = (uint64_t)n;
            moved += rest;
            s->moved += rest;
            while (lane->unsent && sent(lane->unsent, &rest)) {
                lane->unsent->sent = true;
                lane->unsent = lane->unsent->next;
            }
            if (s->broken)
                stream_fail_all(s);
        } else if (s->broken) {
            stream_fail_all(s);
        } else if (error == EINTR) {
            if (block)
                break; /* the caller looks for signals */
        } else if (error == EAGAIN) {
            break;
        } else {
            stream_break(s, error == ETIMEDOUT ? LIBD_ETIMEOUT : LIBD_ECLOSED, error);
        }
    }
    lane->backlog = lane->unsent != NULL;
    if (s->epoll >= 0)
        stream_watch(s, lane);
    return moved;
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

/* Where the next bytes should go if the replies come in the order of the requests and every request succeeds. What comes
 * differently is sorted out by `consume`. */
static size_t expect(struct lane *lane, struct iovec *iov)
{
    struct libd_call *call = lane->first;
    uint64_t got = lane->got;
    size_t n = 0;

    if (lane->current) {
        struct libd_call *c = lane->current;
        n = c->in_count ? scatter(c->in, c->in_count, c->in_at, iov, IOV_BATCH)
                        : (iov[0] = (struct iovec){(char *)c->reply_payload + c->in_at.done,
                                                   c->reply.length - c->in_at.done},
                           1);
        if (c != lane->first || n == IOV_BATCH)
            return n;
        call = c->next;
    }
    for (; call && call != lane->unsent && n < IOV_BATCH - 1; call = call->next, got = 0) {
        iov[n++] = (struct iovec){(char *)&call->reply + got, sizeof call->reply - got};
        if (call->reply_room) {
            iov[n++] = (struct iovec){call->reply_payload, call->reply_room};
            break; /* how long it is nobody knows yet */
        }
        n += scatter(call->in, call->in_count, call->in_at, iov + n, IOV_BATCH - n);
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
        forward(call->in, call->in_count, &call->in_at, 0); /* past empty segments */
        return LIBD_OK;
    }
    if (reply.code)
        stream_told(&err, &reply);
    unlink_call(lane, call);
    finish(s, call, &err);
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
        forward(call->in, call->in_count, &call->in_at, bytes);
        if (call->in_at.index < call->in_count)
            return LIBD_OK;
    } else {
        call->in_at.done += bytes;
        if (call->in_at.done < call->reply.length)
            return LIBD_OK;
    }
    unlink_call(lane, call);
    finish(s, call, &err);
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
