/* Waiting for completions: one thread leads, polls for all and sleeps in the kernel when polling does not pay. */
#ifdef LIBD_HAVE_VERBS
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>

#include "verbs_client.h"

#define PATIENCE_MAX 16384u /* polls; some tenths of a millisecond */
#define PATIENCE_MIN 64u
#define EAGER 512u /* polls before it begins to spare the processor's other thread */
#define SHORT_NAP 50e-6 /* seconds; whoever sleeps less would have been better off polling */

static inline void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static unsigned size_class(const struct libd_batch *batch)
{
    uint64_t bytes = batch ? batch->bytes_in + batch->bytes_out : 0;
    unsigned n = 0;

    for (bytes >>= 8; bytes && n < SIZE_CLASSES - 1; bytes >>= 3)
        n++;
    return n;
}

/* Python's signal handlers take the GIL, whose holder may want the lock. */
static int interrupted(struct verbs *v, struct libd_error *err)
{
    int raised;

    pthread_mutex_unlock(&v->lock);
    raised = libd_check_signals && libd_check_signals();
    verbs_lock(v);
    return raised ? libd_fail(err, LIBD_ESIGNAL, 0, 0) : LIBD_OK;
}

static void make_way(struct verbs *v)
{
    pthread_mutex_unlock(&v->lock);
    sched_yield();
    verbs_lock(v);
}

static void drain_events(struct verbs *v)
{
    const struct verbs_lib *lib = v->domain->port.lib;
    struct ibv_cq *cq;
    void *cookie;
    unsigned n = 0;

    while (lib->get_cq_event(v->channel, &cq, &cookie) == 0)
        n++;
    if (n) {
        lib->ack_cq_events(v->cq, n);
        v->armed = false;
    }
}

/* Has the device tell when something completes; true if something has meanwhile. */
static bool arm(struct verbs *v)
{
    if (!v->armed && v->cq->context->ops.req_notify_cq(v->cq, 0) == 0)
        v->armed = true;
    return verbs_reap(v) || v->broken;
}

/* Sleeps until something completes, the server's connection ends, or `seconds` have passed. */
static void nap(struct verbs *v, double seconds)
{
    struct pollfd p[] = {
        {.fd = v->channel->fd, .events = POLLIN},
        {.fd = v->event, .events = POLLIN},
        {.fd = v->watch, .events = POLLRDHUP},
    };
    struct timespec t = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - (double)(time_t)seconds) * 1e9)};
    uint64_t connection = v->connection;
    eventfd_t ignored;

    pthread_mutex_unlock(&v->lock);
    int n = ppoll(p, sizeof p / sizeof *p, &t, NULL);
    verbs_lock(v);
    if (n <= 0)
        return;
    if (p[0].revents)
        drain_events(v);
    if (p[1].revents)
        eventfd_read(v->event, &ignored);
    if (p[2].revents && v->qp && v->connection == connection)
        v->cut = true;
}

/* Puts right what went wrong; LIBD_ESIGNAL is all that it fails with. */
static int mend(struct verbs *v, struct libd_error *err)
{
    if (v->linking)
        return LIBD_OK; /* another thread is at it */
    if (v->broken)
        return verbs_link_repair(v, err);
    return v->cut && v->qp ? verbs_link_restore(v, err) : LIBD_OK;
}

static bool over(const struct libd_batch *batch) { return batch && libd_batch_done(batch); }

/* Moves things along until the batch is done, or `deadline` (0: never; negative: at once). */
LIBD_HOT static int lead(struct verbs *v, const struct libd_batch *batch, double deadline, struct libd_error *err)
{
    uint32_t *patience = &v->patience[size_class(batch)], polls = 0;
    double left = SIGNAL_CHECK, looked = 0;

    for (;;) {
        if (v->first)
            verbs_pump(v);
        if (verbs_reap(v) && v->first) /* what is done makes room */
            continue;
        if ((v->broken || v->cut) && mend(v, err))
            return err->code;
        if (over(batch)) {
            if (polls < PATIENCE_MAX)
                *patience += ((int32_t)polls - (int32_t)*patience) / 8;
            return LIBD_OK;
        }
        if (deadline < 0) { /* one look more, at the connection too; an event loop is told when there is more to see */
            if (polls++)
                return LIBD_OK;
            nap(v, 0);
            if (v->epoll >= 0)
                arm(v);
            continue;
        }
        if (atomic_load_explicit(&v->wanting, memory_order_relaxed))
            make_way(v);
        if (++polls < 2 * *patience + PATIENCE_MIN) {
            if (polls > EAGER)
                relax();
            continue;
        }
        if (deadline > 0 && (left = deadline - libd_now()) <= 0)
            return LIBD_OK;
        if (arm(v))
            continue;
        double before = libd_now();
        nap(v, left < SIGNAL_CHECK ? left : SIGNAL_CHECK);
        double now = libd_now();
        if (now - before < SHORT_NAP) {
            if (*patience < PATIENCE_MAX / 2)
                *patience = 2 * *patience + 1;
        } else {
            *patience -= *patience / 4;
        }
        if (now - looked >= SIGNAL_CHECK / 2) {
            looked = now;
            if (interrupted(v, err))
                return err->code;
        }
        polls = PATIENCE_MAX; /* from now on it sleeps */
    }
}

static void follow(struct verbs *v, double seconds)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(seconds * 1e9);
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    v->waiting++;
    pthread_cond_timedwait(&v->changed, &v->lock, &until);
    v->waiting--;
}

LIBD_HOT int verbs_await(struct verbs *v, struct libd_batch *batch, double deadline, struct libd_error *err)
{
    int code = LIBD_OK;

    while (!code && !over(batch)) {
        if (!v->leading) {
            v->leading = true;
            code = lead(v, batch, deadline, err);
            v->leading = false;
            /* It may have taken the event that an event loop waits for, and given up before it asked for another. */
            if (v->epoll >= 0 && deadline >= 0 && !v->armed && v->head != v->tail)
                eventfd_write(v->event, 1);
            if (v->waiting)
                pthread_cond_broadcast(&v->changed);
            break;
        }
        double left = deadline > 0 ? deadline - libd_now() : SIGNAL_CHECK;
        if (deadline < 0 || left <= 0)
            break;
        follow(v, left < SIGNAL_CHECK ? left : SIGNAL_CHECK);
        if (!over(batch))
            code = interrupted(v, err);
    }
    return code;
}

LIBD_HOT int verbs_progress(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err)
{
    struct verbs *v = verbs_of(t);
    int code;

    if (t->generation != libd_generation())
        return libd_fail(err, LIBD_ECLOSED, 1, 0);
    verbs_lock(v);
    code = verbs_await(v, batch, timeout == 0 || !batch ? -1 : timeout < 0 ? 0 : libd_now() + timeout, err);
    pthread_mutex_unlock(&v->lock);
    return code;
}

int verbs_fd(struct libd_transport *t)
{
    struct verbs *v = verbs_of(t);
    int fd;

    verbs_lock(v);
    if (v->epoll < 0) {
        int fds[] = {v->channel->fd, v->event, v->watch};
        v->epoll = epoll_create1(EPOLL_CLOEXEC);
        for (int i = 0; i < 3 && v->epoll >= 0; i++) {
            struct epoll_event event = {.events = i == 2 ? EPOLLRDHUP : EPOLLIN};
            if (fds[i] >= 0)
                epoll_ctl(v->epoll, EPOLL_CTL_ADD, fds[i], &event);
        }
        arm(v);
    }
    fd = v->epoll;
    pthread_mutex_unlock(&v->lock);
    return fd;
}
#else
typedef int verbs_wait_is_not_built;
#endif
