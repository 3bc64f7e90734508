/* Waiting for what is under way on a stream: whoever waits receives for everybody. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "stream.h"

#define LOOK_BYTES (UINT64_C(4) << 20) /* after so many moved a look that does not wait ends, however many more there are */

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
        stream_pause(s, seconds < 0.1 ? seconds : 0.1);
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
    /* While a later lane was sent on, somebody else may have begun to receive on this one. */
    if (owing == 1 && !behind && block && !s->broken && owed(last)) {
        moved += lane_receive(s, last, true, blocked);
    } else {
        for (unsigned i = 0; i < s->lane_count && !s->broken; i++)
            if (owed(&s->lanes[i]))
                moved += lane_receive(s, &s->lanes[i], false, blocked);
    }
    return moved != 0;
}

/* Whether something is owed and nothing has moved for too long, whoever looked and however briefly. */
static bool stalled(struct stream *s)
{
    bool owing = false;

    for (unsigned i = 0; i < s->lane_count; i++)
        owing |= s->lanes[i].first != NULL;
    if (s->broken)
        return false;
    if (!owing || s->moved != s->seen || s->since == 0) {
        s->seen = s->moved;
        s->since = owing ? libd_now() : 0;
        return false;
    }
    return libd_now() - s->since > s->address.stall;
}

/* With the lock held. Seconds: 0 does not wait, negative waits for ever. */
int stream_await(struct stream *s, const struct goal *goal, double timeout, struct libd_error *err)
{
    const struct libd_call *until = timeout >= 0 ? NULL : goal->call ? goal->call
                                    : goal->batch && goal->batch->part_count == 1 ? &goal->batch->part : NULL;
    double deadline = timeout > 0 ? libd_now() + timeout : 0;
    uint64_t begun = s->moved;
    int code = LIBD_OK;

    while (!reached(s, goal)) {
        bool blocked = false;
        double left = SIGNAL_CHECK;
        if (s->broken) {
            stream_fail_all(s);
            if (s->in_calls) /* whoever is in a call comes back now */
                stream_pause(s, 0.1);
            else if (!goal->batch && !goal->call)
                break;
            continue;
        }
        if (turn(s, until, timeout < 0, &blocked) || reached(s, goal)) {
            if (timeout == 0 && s->moved - begun >= LOOK_BYTES)
                break; /* an event loop, which has others to see to, is told that there is more */
            continue;
        }
        if (stalled(s)) {
            stream_break(s, LIBD_ETIMEOUT, ETIMEDOUT);
            continue;
        }
        if (timeout == 0)
            break;
        if (timeout > 0 && (left = deadline - libd_now()) <= 0)
            break;
        if (!blocked)
            look(s, left < SIGNAL_CHECK ? left : SIGNAL_CHECK);
        if (stream_interrupted(s, err)) {
            code = err->code;
            break;
        }
    }
    if (s->waiting)
        pthread_cond_broadcast(&s->changed); /* somebody else goes on with the lanes */
    return code;
}

/* An event loop is woken for every lane, also for one that owes nothing: its end must be taken note of. */
static void look_at_idle_lanes(struct stream *s)
{
    for (unsigned i = 0; i < s->lane_count && !s->broken; i++) {
        struct lane *lane = &s->lanes[i];
        char byte;
        if (lane->first || lane->reading)
            continue;
        ssize_t n = recv(lane->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        if (n >= 0 || (errno != EAGAIN && errno != EINTR))
            stream_break(s, n > 0 ? LIBD_EPROTO : LIBD_ECLOSED, n < 0 ? errno : 0);
    }
}

int stream_progress(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err)
{
    struct stream *s = stream_of(t);
    struct goal goal = {.batch = batch, .mark = UINT64_MAX};
    eventfd_t ignored;
    int code;

    if (t->generation != libd_generation())
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    pthread_mutex_lock(&s->lock);
    if (s->event >= 0) {
        eventfd_read(s->event, &ignored);
        look_at_idle_lanes(s);
    }
    code = stream_await(s, &goal, timeout, err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

void stream_abandon(struct libd_transport *t)
{
    struct stream *s = stream_of(t);

    pthread_mutex_lock(&s->lock);
    stream_break(s, LIBD_ECLOSED, -1);
    pthread_mutex_unlock(&s->lock);
}

int stream_fd(struct libd_transport *t)
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
