/* The connections of a stream: as many as are wanted, and new ones after they were lost. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"

#define REFUSAL 0.05 /* seconds for which a server that could not be reached is not asked again */

void stream_watch(struct stream *s, struct lane *lane)
{
    uint32_t events = EPOLLIN | (lane->backlog ? EPOLLOUT : 0);
    struct epoll_event event = {.events = events};

    if (lane->fd >= 0 && lane->watched != events &&
        epoll_ctl(s->epoll, lane->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, lane->fd, &event) == 0)
        lane->watched = events;
}

void stream_open_lane(struct stream *s, int fd)
{
    s->lanes[s->lane_count] = (struct lane){.fd = fd};
    if (s->lane_count == 0)
        atomic_fetch_add(&s->connection, 1);
    if (s->epoll >= 0)
        stream_watch(s, &s->lanes[s->lane_count]);
    s->lane_count++;
}

void stream_close_lanes(struct stream *s)
{
    /* What a child of fork has is the parent's epoll instance, which goes on watching. */
    bool watched = s->epoll >= 0 && s->transport.generation == libd_generation();

    for (unsigned i = 0; i < s->lane_count; i++) {
        /* A child of fork may have the descriptor, too, and then closing it here does not unregister it. */
        if (watched)
            epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->lanes[i].fd, NULL);
        close(s->lanes[i].fd);
    }
    s->lane_count = 0;
}

/* With the lock held; drops it to wait for at most a while. */
void stream_pause(struct stream *s, double seconds)
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
int stream_interrupted(struct stream *s, struct libd_error *err)
{
    int raised;

    pthread_mutex_unlock(&s->lock);
    raised = libd_check_signals && libd_check_signals();
    pthread_mutex_lock(&s->lock);
    return raised ? libd_fail(err, LIBD_ESIGNAL, 0, 0) : LIBD_OK;
}

/* One more connection to what this stream is connected to, without the lock meanwhile. */
static int another(struct stream *s, bool first, int *fd, struct libd_error *err)
{
    struct held *held = NULL;
    size_t count = first ? s->holdings.count : 0;
    const struct libd_welcome *who = &s->transport.who;
    struct libd_welcome now;
    char name[LIBD_MAX_NAME + 1];

    if (count) {
        held = malloc(count * sizeof *held);
        if (!held)
            return libd_fail(err, LIBD_ENOMEM, 0, 0);
        memcpy(held, s->holdings.all, count * sizeof *held);
    }
    s->connecting = true;
    pthread_mutex_unlock(&s->lock);
    *fd = stream_connect(&s->address, held, count, &now, name, NULL, err);
    free(held);
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
int stream_ready(struct stream *s, struct libd_error *err)
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
        stream_pause(s, 0.1);
        if (stream_interrupted(s, err))
            return err->code;
    }
    if (libd_now() - s->refused < REFUSAL)
        return libd_fail(err, LIBD_ECLOSED, 2, s->cause_detail > 0 ? (uint64_t)s->cause_detail : 0);
    if (another(s, true, &fd, err)) {
        if (err->code == LIBD_ESIGNAL || err->code == LIBD_ESTALE)
            return err->code;
        s->refused = libd_now();
        if (err->code == LIBD_ECAPACITY) /* it is there, and says why */
            return err->code;
        return libd_fail(err, LIBD_ECLOSED, 2, err->code == LIBD_ETIMEOUT ? ETIMEDOUT : err->have);
    }
    stream_close_lanes(s);
    stream_open_lane(s, fd);
    s->broken = false;
    return LIBD_OK;
}

/* As many lanes as are wanted, or as can be had. */
int stream_widen(struct stream *s, struct libd_error *err)
{
    while (s->lane_count < s->lanes_wanted) {
        int fd;
        if (s->connecting)
            break; /* another thread sees to it */
        if (another(s, false, &fd, err)) {
            if (err->code == LIBD_ESIGNAL || err->code == LIBD_ESTALE)
                return err->code;
            s->lanes_wanted = s->lane_count;
            break;
        }
        if (s->broken) {
            close(fd);
            break;
        }
        stream_open_lane(s, fd);
    }
    return stream_ready(s, err);
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
    code = stream_ready(s, err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

uint64_t libd_stream_connections(struct libd_transport *t) { return atomic_load(&stream_of(t)->connection); }
