/* Sending the calls of a lane: as many of them with one system call as there are. */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>

#include "lane.h"

#define SEND_BYTES (UINT64_C(4) << 20) /* at a time: a server may take them as fast as they are sent */

static size_t outgoing(const struct libd_call *call, struct iovec *iov, size_t room)
{
    uint64_t head = sizeof call->request, done = call->head_done;
    size_t n = 0;

    if (done < head)
        iov[n++] = (struct iovec){(char *)&call->request + done, head - done};
    done = done > head ? done - head : 0;
    if (n < room && done < call->payload_size)
        iov[n++] = (struct iovec){(char *)call->payload + done, call->payload_size - done};
    return n + lane_scatter(call->out, call->out_count, call->out_at, iov + n, room - n);
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

    while (lane->unsent && !lane->writing && !s->broken && moved < SEND_BYTES) {
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
        lane->writes++;
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
        if (lane->reading && s->waiting)
            pthread_cond_broadcast(&s->changed);
    }
    lane->backlog = lane->unsent != NULL;
    if (s->epoll >= 0)
        stream_watch(s, lane);
    return moved;
}
