/* The server's thread: it accepts connections, gives each its turn, and does what is due between events. */
#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "conn.h"
#include "net.h"
#include "transport.h"

#define EVENTS 64
#define GREETING_TIME 10.0 /* seconds in which a stranger must have said who it is */
#define LAPSES 1024 /* leases that end before connections get their turn again */

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static bool allowed(int fd, uid_t user)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == user;
}

static void take_connection(struct server *server, const struct watched *listener)
{
    const int flags = SOCK_CLOEXEC | SOCK_NONBLOCK;
    int fd = accept4(listener->fd, NULL, NULL, flags);

    /* Who greets at once, as clients and administrators do, is not kept out by those who never do. */
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && make_room(server))
        fd = accept4(listener->fd, NULL, NULL, flags);
    if (fd < 0) {
        /* Out of descriptors: turn the stranger away rather than spin on it. */
        if ((errno == EMFILE || errno == ENFILE) && server->spare >= 0) {
            server->turned_away++;
            close(server->spare);
            fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                close(fd);
            server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
        return;
    }
    bool local = listener->kind == WATCH_UNIX;
    struct conn *conn = local && !allowed(fd, server->user) ? NULL : calloc(1, sizeof *conn);
    if (!conn) {
        server->refused++;
        close(fd);
        return;
    }
    if (!local)
        net_tune_tcp(fd);
    conn->watched = (struct watched){WATCH_CONN, fd};
    conn->server = server;
    conn->local = local;
    conn->state = CONN_HELLO;
    conn->accepted = libd_now();
    conn->next = server->conns;
    if (server->conns)
        server->conns->prev = conn;
    server->conns = conn;
    server->conn_count++;
    server->accepted++;
    server->greeting++;
    server_watch(server, &conn->watched, CONN_EVENTS, EPOLL_CTL_ADD);
    /* Whoever connects says at once what for. */
    conn->readable = true;
    conn_serve(conn);
}

static void bury(struct server *server)
{
    while (server->graveyard) {
        struct conn *conn = server->graveyard;
        server->graveyard = conn->next;
        free(conn);
    }
}

static void end_lingering(struct server *server)
{
    for (struct conn *c = server->conns, *next; c; c = next) {
        int unsent = 0;
        next = c->next;
        if (c->state == CONN_LINGER && (ioctl(c->watched.fd, SIOCOUTQ, &unsent) != 0 || unsent == 0))
            conn_close(c);
    }
}

static void dismiss_silent(struct server *server)
{
    double now = libd_now();

    for (struct conn *c = server->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_HELLO && now - c->accepted > GREETING_TIME)
            conn_close(c);
    }
}

/* ---- the loop ---------------------------------------------------------------------------------------------------- */

static int listen_all(struct server *server, struct libd_error *err)
{
    const struct server_options *o = &server->options;

    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    server->stop = (struct watched){WATCH_STOP, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    server->alarm = (struct watched){WATCH_ALARM, timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
    if (server->epoll < 0 || server->stop.fd < 0 || server->alarm.fd < 0)
        return libd_fail(err, LIBD_ESYS, (uint64_t)errno, 0);
    server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    server_watch(server, &server->stop, EPOLLIN, EPOLL_CTL_ADD);
    server_watch(server, &server->alarm, EPOLLIN, EPOLL_CTL_ADD);
    if (o->host) {
        int fd = net_listen_tcp(o->host, o->port, &server->port);
        if (fd < 0)
            return libd_fail(err, LIBD_ESYS, (uint64_t)-fd, 0);
        server->tcp = (struct watched){WATCH_TCP, fd};
        server_watch(server, &server->tcp, EPOLLIN, EPOLL_CTL_ADD);
    }
    if (o->path) {
        int fd = net_listen_unix(o->path);
        if (fd < 0)
            return libd_fail(err, LIBD_ESYS, (uint64_t)-fd, 0);
        server->path = (struct watched){WATCH_UNIX, fd};
        server_watch(server, &server->path, EPOLLIN, EPOLL_CTL_ADD);
    }
    server->others = server_open_descriptors();
    return LIBD_OK;
}

static int prepare(struct server *server, struct libd_error *err)
{
    const struct server_options *o = &server->options;
    struct tenant *tenant;
    int code = pool_init(&server->pool, o->size, false, err);

    server->pool.keep_warm = o->keep_warm;
    if (!code && o->device)
        code = verbs_server_start(server, err);
    if (!code && o->default_region) {
        code = pool_tenant_create(&server->pool, "default", o->default_region, &tenant, err);
        if (!code)
            code = pool_element_create(tenant, "", o->default_region, false, 0, &server->default_element, err);
    }
    return code ? code : listen_all(server, err);
}

/* How long the loop may sleep, in ms: until something is due; -1: for ever. */
static int patience(const struct server *server)
{
    const struct lease *next = lease_next(&server->pool.leases);
    double now = next || server->draining ? libd_now() : 0, due = server->greeting ? 1.0 : 1e9;

    if (next && next->deadline - now < due)
        due = next->deadline - now;
    if (server->pool.attached && due > POOL_GUARD_EVERY)
        due = POOL_GUARD_EVERY;
    if (server->pool.cool_at > 0 && due > 0) {
        now = libd_now();
        due = server->pool.cool_at - now < due ? server->pool.cool_at - now : due;
    }
    if (server->pool.unsettled && due > POOL_SETTLE_EVERY)
        due = POOL_SETTLE_EVERY;
    if (server->draining) /* nobody says when a peer has received everything */
        due = 0.005;
    if (due >= 1e6)
        return next ? 1000000000 : -1; /* no lease is too long for an int */
    return due > 0 ? (int)(due * 1000) + 1 : 0;
}

/* How long epoll_wait may take: 0, or -1 because the alarm goes off in time. A timeout would have the kernel start and stop
 * a timer around every request; the alarm is only ever set earlier, and what it rings for in vain is some of it. */
static int wait_limit(struct server *server)
{
    int ms = patience(server);
    struct itimerspec timer = {0};
    double at;

    if (ms <= 0)
        return ms;
    at = libd_now() + ms / 1000.0;
    if (server->alarm_at > 0 && server->alarm_at <= at)
        return -1;
    timer.it_value = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
    if (timerfd_settime(server->alarm.fd, 0, &timer, NULL))
        return ms;
    server->alarm_at = at;
    return -1;
}

static void rung(struct server *server)
{
    uint64_t times;

    server->alarm_at = 0;
    if (read(server->alarm.fd, &times, sizeof times) < 0)
        return; /* it was set anew meanwhile */
}

static void expire(struct server *server)
{
    double now = libd_now();
    struct lease *next;

    for (int i = 0; i < LAPSES && (next = lease_next(&server->pool.leases)) && next->deadline <= now; i++)
        serve_expired(server, next);
}

/* Takes no more connections and requests, and lets those that have begun come to their end; false: stop now. */
static bool drain(struct server *server)
{
    uint64_t ms = atomic_exchange(&server->drain_ms, 0);
    struct watched *listeners[] = {&server->tcp, &server->path};
    eventfd_t ignored;

    eventfd_read(server->stop.fd, &ignored);
    if (!ms || server->draining)
        return false;
    server->drain_until = libd_now() + (double)ms / 1000;
    for (size_t i = 0; i < sizeof listeners / sizeof *listeners; i++)
        if (listeners[i]->fd >= 0) {
            server_watch(server, listeners[i], 0, EPOLL_CTL_DEL);
            close(listeners[i]->fd);
            listeners[i]->fd = -1;
        }
    for (struct conn *c = server->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_HELLO)
            conn_close(c);
        else if (c->state == CONN_HEADER && !c->admin && !c->parts_follow)
            conn_linger(c);
    }
    pthread_mutex_lock(&server->lock);
    server->draining = true;
    pthread_cond_broadcast(&server->ready);
    pthread_mutex_unlock(&server->lock);
    return true;
}

/* Whether nobody is left whom it would cut off; administrators may look on until then. */
static bool idle(const struct server *server)
{
    for (const struct conn *c = server->conns; c; c = c->next)
        if (!c->admin || c->state != CONN_HEADER)
            return false;
    return true;
}

/* Each gets a turn, as connections do. */
static void move_regions(struct server *server)
{
    for (struct move *move = server->pool.moves, *next; move; move = next) {
        next = move->next; /* only `move` itself can end here */
        pool_move(move, CONN_TURN);
    }
}

/* Whether there is something to do that makes no event. */
static bool busy(const struct server *server)
{
    return server->queue || server->pool.moves || server->pool.clearings || server->pool.leaving;
}

static void give_back(struct server *server)
{
    for (struct clearing *c = server->pool.clearings, *next; c; c = next) {
        next = c->next;
        pool_clear(c, POOL_CLEAR_TURN);
    }
    if (pool_vacate(&server->pool, POOL_CLEAR_TURN))
        serve_waiting(server);
}

static void loop(struct server *server)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int n = epoll_wait(server->epoll, events, EVENTS, busy(server) ? 0 : wait_limit(server));
        bool asked = false;
        for (int i = 0; i < n; i++) {
            struct watched *w = events[i].data.ptr;
            if (w->kind == WATCH_STOP) {
                if (!drain(server))
                    return;
                continue;
            }
            if (w->kind == WATCH_ALARM) {
                rung(server);
                continue;
            }
            asked = true;
            if (w->kind == WATCH_CONN) {
                struct conn *conn = (struct conn *)w;
                if (conn->dead)
                    continue;
                conn_event(conn, events[i].events);
                conn_serve(conn);
            } else {
                take_connection(server, w);
            }
        }
        /* Clients that have an arena mapped draw on it without asking for anything. */
        server->pool.unsettled |= asked || server->pool.attached;
        server_next_turns(server);
        move_regions(server);
        give_back(server);
        if (server->pool.attached)
            serve_guard(server);
        if (server->pool.cool_at > 0)
            pool_cool(&server->pool, libd_now());
        if (server->pool.unsettled)
            pool_settle(&server->pool, libd_now());
        bury(server);
        if (server->greeting)
            dismiss_silent(server);
        if (lease_next(&server->pool.leases))
            expire(server);
        if (server->draining)
            end_lingering(server);
        if (server->draining && (idle(server) || libd_now() >= server->drain_until))
            return;
    }
}

static void release(struct server *server)
{
    while (server->conns)
        conn_close(server->conns);
    bury(server);
    pool_destroy(&server->pool);
    verbs_server_stop(server);
    const int fds[] = {server->epoll, server->spare, server->stop.fd, server->alarm.fd, server->tcp.fd, server->path.fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

void *server_run(void *argument)
{
    struct server *server = argument;
    struct libd_error err = {0};
    int code;

    prctl(PR_SET_NAME, "libd-server");
    code = prepare(server, &err);
    pthread_mutex_lock(&server->lock);
    server->outcome = code;
    server->error = err;
    server->looping = !code;
    pthread_cond_signal(&server->ready);
    pthread_mutex_unlock(&server->lock);
    if (!code)
        loop(server);
    pthread_mutex_lock(&server->lock);
    server->looping = false;
    pthread_cond_broadcast(&server->ready);
    pthread_mutex_unlock(&server->lock);
    release(server);
    pthread_mutex_lock(&server->lock);
    server->outcome = -2;
    pthread_cond_broadcast(&server->ready);
    pthread_mutex_unlock(&server->lock);
    return NULL;
}
