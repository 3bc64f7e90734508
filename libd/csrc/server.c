#define _GNU_SOURCE
#include "server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <linux/sockios.h>
#include <unistd.h>

#include "conn.h"
#include "net.h"
#include "transport.h"

#define EVENTS 64
#define TURN (UINT64_C(4) << 20) /* bytes that one connection may move before others get their turn */
#define GREETING_TIME 10.0       /* seconds in which a stranger must have said who it is */
#define PIECES_PER_CALL 64
#define LAPSES 1024 /* leases that end before connections get their turn again */

/* ---- connections ------------------------------------------------------------------------------------------------- */

static void watch(struct server *server, struct watched *w, uint32_t events, int op)
{
    struct epoll_event event = {.events = events, .data.ptr = w};

    epoll_ctl(server->epoll, op, w->fd, &event);
}

static void drop_request(struct conn *conn)
{
    if (conn->pieces != &conn->one)
        free(conn->pieces);
    conn->pieces = NULL;
    conn->piece_count = 0;
    free(conn->body);
    conn->body = NULL;
    free(conn->large);
    conn->large = NULL;
    conn->body_size = conn->body_got = 0;
}

void conn_close(struct conn *conn)
{
    struct server *server = conn->server;

    if (conn->dead)
        return;
    conn->dead = true;
    /* Not merely closed: a child of fork may hold the descriptor too, and the peer would wait forever. */
    shutdown(conn->watched.fd, SHUT_RDWR);
    close(conn->watched.fd);
    lease_run(&server->pool.leases, &conn->holder, libd_now());
    drop_request(conn);
    if (conn->link)
        verbs_hang_up(conn);
    if (conn->state == CONN_HELLO)
        server->greeting--;
    if (conn->prev)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next)
        conn->next->prev = conn->prev;
    server->conn_count--;
    /* Events of this round may still name it. */
    conn->next = server->graveyard;
    server->graveyard = conn;
}

static void bury(struct server *server)
{
    while (server->graveyard) {
        struct conn *conn = server->graveyard;
        server->graveyard = conn->next;
        free(conn);
    }
}

void conn_reply(struct conn *conn, int code, uint64_t a, uint64_t b)
{
    if (conn->state == CONN_HELLO)
        conn->server->greeting--;
    if (code)
        conn->payload_size = 0;
    if (code > 0 && code < LIBD_ERRORS)
        conn->server->errors[code]++;
    conn->reply = (struct libd_reply){
        .magic = LIBD_REPLY_MAGIC,
        .op = conn->request.op,
        .code = code,
        .id = conn->request.id,
        .a = a,
        .b = b,
        .length = conn->payload_size,
    };
    conn->reply_done = 0;
    conn->nfds = 0;
    conn->state = CONN_SEND;
}

/* ---- sending ----------------------------------------------------------------------------------------------------- */

static void want_write(struct conn *conn, bool on)
{
    if (conn->writing != on) {
        conn->writing = on;
        watch(conn->server, &conn->watched, on ? EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    }
}

static bool reads(const struct conn *conn)
{
    return conn->reply.code == LIBD_OK && (conn->request.op == LIBD_OP_READ || conn->request.op == LIBD_OP_READV);
}

/* A socket that is closed resets its connection if requests are unread or arrive later, and the peer may lose the last
 * reply: it is closed when the peer has that. */
static void linger(struct conn *conn)
{
    shutdown(conn->watched.fd, SHUT_WR);
    conn->state = CONN_LINGER;
    conn->input_first = conn->input_last = 0;
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

static void finish(struct conn *conn)
{
    drop_request(conn);
    conn->payload_size = 0;
    conn->state = CONN_HEADER;
    if (conn->closing)
        conn_close(conn);
    else if (conn->server->draining && !conn->admin)
        linger(conn);
}

/* Whether the next request is here and is answered without waiting for anything: its reply can go out with this one. */
static bool another_follows(const struct conn *conn)
{
    struct libd_request next;

    if (conn->closing || conn->server->draining || conn->input_last - conn->input_first < sizeof next)
        return false;
    memcpy(&next, conn->input + conn->input_first, sizeof next);
    return next.length == 0 && next.size <= TURN;
}

/* Sends what it can; true if the reply is out. */
static bool send_reply(struct conn *conn, uint64_t *turn)
{
    uint32_t fixed = (uint32_t)sizeof conn->reply + conn->payload_size;

    for (;;) {
        struct iovec iov[2 + PIECES_PER_CALL];
        int n = 0;
        uint64_t skip = conn->piece_done;

        if (conn->reply_done < sizeof conn->reply)
            iov[n++] = (struct iovec){(char *)&conn->reply + conn->reply_done, sizeof conn->reply - conn->reply_done};
        if (conn->reply_done < fixed && conn->payload_size) {
            uint32_t done = conn->reply_done > sizeof conn->reply ? conn->reply_done - (uint32_t)sizeof conn->reply : 0;
            iov[n++] = (struct iovec){(conn->large ? conn->large : conn->payload) + done, conn->payload_size - done};
        }
        if (reads(conn))
            for (uint32_t i = conn->piece_now; i < conn->piece_count && n < 2 + PIECES_PER_CALL; i++, skip = 0) {
                const struct piece *p = &conn->pieces[i];
                /* Nothing of a region that was freed meanwhile leaves the server, and a reply cannot be taken back. */
                if (!serve_piece_valid(conn, p)) {
                    conn_close(conn);
                    return false;
                }
                if (p->size > skip)
                    iov[n++] = (struct iovec){conn->tenant->arena + p->offset + skip, p->size - skip};
            }
        if (n == 0)
            return true;
        ssize_t sent = net_send_fds(conn->watched.fd, iov, n, conn->fds, conn->reply_done ? 0 : conn->nfds,
                                    another_follows(conn));
        if (sent < 0) {
            if (errno == EINTR)
                continue;
            if (errno != EAGAIN)
                conn_close(conn);
            return false;
        }
        uint64_t rest = (uint64_t)sent;
        *turn = *turn > rest ? *turn - rest : 0;
        uint64_t head = fixed - conn->reply_done < rest ? fixed - conn->reply_done : rest;
        conn->reply_done += (uint32_t)head;
        rest -= head;
        conn->piece_done += rest;
        while (reads(conn) && conn->piece_now < conn->piece_count &&
               conn->piece_done >= conn->pieces[conn->piece_now].size) {
            conn->piece_done -= conn->pieces[conn->piece_now].size;
            conn->piece_now++;
        }
        bool all = conn->reply_done == fixed && (!reads(conn) || conn->piece_now == conn->piece_count);
        if (all)
            return true;
        if (*turn == 0)
            return false;
    }
}

/* ---- receiving --------------------------------------------------------------------------------------------------- */

static uint32_t buffered(const struct conn *conn) { return conn->input_last - conn->input_first; }

/* recv with the loop's answers: 1 something came, 0 nothing there, -1 the connection is closed. */
static int receive(struct conn *conn, void *out, size_t size, size_t *got)
{
    for (;;) {
        ssize_t n = recv(conn->watched.fd, out, size, MSG_DONTWAIT);
        if (n > 0) {
            *got = (size_t)n;
            return 1;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return 0;
        conn_close(conn);
        return -1;
    }
}

/* Has `size` bytes at the front of the input buffer; false: not yet. */
static bool have(struct conn *conn, uint32_t size, bool *fresh)
{
    while (buffered(conn) < size) {
        size_t got;
        if (conn->input_first) {
            memmove(conn->input, conn->input + conn->input_first, buffered(conn));
            conn->input_last -= conn->input_first;
            conn->input_first = 0;
        }
        /* One look per event: a second one would mostly find nothing. */
        if (!*fresh || receive(conn, conn->input + conn->input_last, CONN_INPUT - conn->input_last, &got) <= 0)
            return false;
        *fresh = false;
        conn->input_last += (uint32_t)got;
    }
    return true;
}

/* Up to `size` payload bytes to `out`: first what is buffered, then from the socket. Returns like `receive`. */
static int payload(struct conn *conn, uint8_t *out, uint64_t size, size_t *got)
{
    uint32_t n = buffered(conn);

    if (n == 0)
        return receive(conn, out, size, got);
    if (n > size)
        n = (uint32_t)size;
    memcpy(out, conn->input + conn->input_first, n);
    conn->input_first += n;
    *got = n;
    return 1;
}

static bool step_hello(struct conn *conn, bool *fresh)
{
    struct libd_hello hello;

    if (buffered(conn) < sizeof hello && !have(conn, sizeof hello, fresh))
        return false;
    memcpy(&hello, conn->input + conn->input_first, sizeof hello);
    if (memcmp(hello.magic, LIBD_MAGIC, sizeof hello.magic) != 0 || hello.token_length > LIBD_MAX_TOKEN) {
        conn->server->refused++;
        conn_close(conn);
        return false;
    }
    if (!have(conn, (uint32_t)sizeof hello + hello.token_length, fresh))
        return false;
    serve_hello(conn, &hello, (const char *)conn->input + conn->input_first + sizeof hello);
    conn->input_first += (uint32_t)sizeof hello + hello.token_length;
    return true;
}

static bool step_header(struct conn *conn, bool *fresh)
{
    if (!have(conn, sizeof conn->request, fresh))
        return false;
    memcpy(&conn->request, conn->input + conn->input_first, sizeof conn->request);
    conn->input_first += (uint32_t)sizeof conn->request;
    conn->body_size = serve_body_size(conn);
    conn->body_got = 0;
    if (conn->body_size == UINT64_MAX || (conn->request.op == LIBD_OP_READV && conn->request.length != conn->body_size)) {
        conn->body_size = 0;
        conn->server->refused++;
        conn->closing = true;
        conn_reply(conn, LIBD_EPROTO, 0, 0);
        return true;
    }
    if (conn->body_size == 0) {
        serve_request(conn);
        return true;
    }
    conn->body = malloc(conn->body_size);
    if (!conn->body) {
        conn_close(conn);
        return false;
    }
    conn->state = CONN_BODY;
    return true;
}

static bool step_body(struct conn *conn)
{
    size_t got;

    while (conn->body_got < conn->body_size) {
        if (payload(conn, conn->body + conn->body_got, conn->body_size - conn->body_got, &got) <= 0)
            return false;
        conn->body_got += got;
    }
    serve_request(conn);
    return true;
}

static bool step_data(struct conn *conn, uint64_t *turn)
{
    while (conn->piece_now < conn->piece_count) {
        const struct piece *p = &conn->pieces[conn->piece_now];
        uint64_t left = p->size - conn->piece_done;
        size_t got;

        if (left == 0) {
            conn->piece_now++;
            conn->piece_done = 0;
            continue;
        }
        /* Freed while its data was on the way: the rest is skipped, and the writer told. */
        if (!serve_piece_valid(conn, p)) {
            conn->drain = left;
            for (uint32_t i = conn->piece_now + 1; i < conn->piece_count; i++)
                conn->drain += conn->pieces[i].size;
            conn->reply.code = LIBD_ESTALE;
            conn->state = CONN_DRAIN;
            return true;
        }
        if (*turn == 0)
            return false;
        if (payload(conn, conn->tenant->arena + p->offset + conn->piece_done, left, &got) <= 0)
            return false;
        conn->piece_done += got;
        *turn = *turn > got ? *turn - got : 0;
    }
    conn->state = CONN_SEND;
    return true;
}

static bool step_drain(struct conn *conn, uint64_t *turn)
{
    uint8_t scratch[16384];

    while (conn->drain) {
        size_t got;
        if (*turn == 0 ||
            payload(conn, scratch, conn->drain < sizeof scratch ? conn->drain : sizeof scratch, &got) <= 0)
            return false;
        conn->drain -= got;
        *turn = *turn > got ? *turn - got : 0;
    }
    conn->state = CONN_SEND;
    return true;
}

static bool step_linger(struct conn *conn, uint64_t *turn)
{
    uint8_t scratch[4096];
    size_t got;

    if (receive(conn, scratch, sizeof scratch, &got) <= 0)
        return false;
    *turn = *turn > got ? *turn - got : 0; /* who goes on sending must not keep the loop from ending */
    return true;
}

static void serve(struct conn *conn)
{
    uint64_t turn = TURN;
    bool fresh = true, go = true;

    while (go && !conn->dead && turn) {
        switch (conn->state) {
        case CONN_HELLO:
            go = step_hello(conn, &fresh);
            break;
        case CONN_HEADER:
            go = step_header(conn, &fresh);
            break;
        case CONN_BODY:
            go = step_body(conn);
            break;
        case CONN_DATA:
            go = step_data(conn, &turn);
            break;
        case CONN_DRAIN:
            go = step_drain(conn, &turn);
            break;
        case CONN_LINGER:
            go = step_linger(conn, &turn);
            break;
        case CONN_SEND:
            go = send_reply(conn, &turn);
            if (go)
                finish(conn);
            break;
        }
    }
    /* A reply that is not out yet, or requests that are buffered already, must not wait for an event that will not come. */
    if (!conn->dead)
        want_write(conn, conn->state == CONN_SEND || (turn == 0 && buffered(conn)));
}

/* ---- accepting --------------------------------------------------------------------------------------------------- */

static bool allowed(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
}

static void take_connection(struct server *server, const struct watched *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0) {
        /* Out of descriptors: turn the stranger away rather than spin on it. */
        if ((errno == EMFILE || errno == ENFILE) && server->spare >= 0) {
            close(server->spare);
            fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                close(fd);
            server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
        }
        return;
    }
    bool local = listener->kind == WATCH_UNIX;
    struct conn *conn = local && !allowed(fd) ? NULL : calloc(1, sizeof *conn);
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
    watch(server, &conn->watched, EPOLLIN, EPOLL_CTL_ADD);
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

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static int listen_all(struct server *server, struct libd_error *err)
{
    const struct server_options *o = &server->options;

    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    server->stop = (struct watched){WATCH_STOP, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
    if (server->epoll < 0 || server->stop.fd < 0)
        return libd_fail(err, LIBD_ESYS, (uint64_t)errno, 0);
    server->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    watch(server, &server->stop, EPOLLIN, EPOLL_CTL_ADD);
    if (o->host) {
        int fd = net_listen_tcp(o->host, o->port, &server->port);
        if (fd < 0)
            return libd_fail(err, LIBD_ESYS, (uint64_t)-fd, 0);
        server->tcp = (struct watched){WATCH_TCP, fd};
        watch(server, &server->tcp, EPOLLIN, EPOLL_CTL_ADD);
    }
    if (o->path) {
        int fd = net_listen_unix(o->path);
        if (fd < 0)
            return libd_fail(err, LIBD_ESYS, (uint64_t)-fd, 0);
        server->path = (struct watched){WATCH_UNIX, fd};
        watch(server, &server->path, EPOLLIN, EPOLL_CTL_ADD);
    }
    return LIBD_OK;
}

static int prepare(struct server *server, struct libd_error *err)
{
    const struct server_options *o = &server->options;
    struct tenant *tenant;
    int code = pool_init(&server->pool, o->size, false, err);

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
    if (server->draining) /* nobody says when a peer has received everything */
        due = 0.005;
    if (due >= 1e6)
        return next ? 1000000000 : -1; /* no lease is too long for an int */
    return due > 0 ? (int)(due * 1000) + 1 : 0;
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
            close(listeners[i]->fd);
            listeners[i]->fd = -1;
        }
    for (struct conn *c = server->conns, *next; c; c = next) {
        next = c->next;
        if (c->state == CONN_HELLO)
            conn_close(c);
        else if (c->state == CONN_HEADER && !c->admin)
            linger(c);
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

static void loop(struct server *server)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int n = epoll_wait(server->epoll, events, EVENTS, patience(server));
        for (int i = 0; i < n; i++) {
            struct watched *w = events[i].data.ptr;
            if (w->kind == WATCH_STOP) {
                if (!drain(server))
                    return;
                continue;
            }
            if (w->kind == WATCH_CONN) {
                struct conn *conn = (struct conn *)w;
                if (!conn->dead)
                    serve(conn);
            } else {
                take_connection(server, w);
            }
        }
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
    const int fds[] = {server->epoll, server->spare, server->stop.fd, server->tcp.fd, server->path.fd};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static void *run(void *argument)
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

static void forget(struct server *server)
{
    free((char *)server->options.host);
    free((char *)server->options.path);
    free((char *)server->options.token);
    free((char *)server->options.admin_token);
    free((char *)server->options.device);
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->ready);
    free(server);
}

static const char *copy(const char *text) { return text ? strdup(text) : NULL; }

int server_start(const struct server_options *options, struct server **out, struct libd_error *err)
{
    struct server *server = calloc(1, sizeof *server);
    sigset_t all, before;
    int code;

    if (!server)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    server->options = *options;
    server->options.host = copy(options->host);
    server->options.path = copy(options->path);
    server->options.token = copy(options->token);
    server->options.admin_token = copy(options->admin_token);
    server->options.device = copy(options->device);
    server->epoll = server->spare = server->stop.fd = server->tcp.fd = server->path.fd = -1;
    server->outcome = -1;
    server->started = libd_now();
    server->generation = libd_generation();
    /* A token that could not be copied must not open the server to everybody. */
    if ((options->host && !server->options.host) || (options->path && !server->options.path) ||
        (options->token && !server->options.token) || (options->admin_token && !server->options.admin_token) ||
        (options->device && !server->options.device)) {
        free((char *)server->options.host);
        free((char *)server->options.path);
        free((char *)server->options.token);
        free((char *)server->options.admin_token);
        free((char *)server->options.device);
        free(server);
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    }
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->ready, NULL);
    sigfillset(&all); /* signals are for the process's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    code = pthread_create(&server->thread, NULL, run, server);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (code) {
        forget(server);
        return libd_fail(err, LIBD_ESYS, (uint64_t)code, 0);
    }
    pthread_mutex_lock(&server->lock);
    while (server->outcome == -1)
        pthread_cond_wait(&server->ready, &server->lock);
    code = server->outcome == -2 ? server->error.code : server->outcome;
    *err = server->error;
    pthread_mutex_unlock(&server->lock);
    if (code) {
        pthread_join(server->thread, NULL);
        forget(server);
        return code;
    }
    *out = server;
    return LIBD_OK;
}

uint16_t server_port(const struct server *server) { return server->port; }

const char *server_device(const struct server *server) { return verbs_server_device(server); }

static void poke(struct server *server)
{
    uint64_t one = 1;
    ssize_t n;

    do
        n = write(server->stop.fd, &one, sizeof one);
    while (n < 0 && errno == EINTR);
}

void server_drain(struct server *server, uint64_t ms)
{
    if (server->generation != libd_generation())
        return;
    atomic_store(&server->drain_ms, ms);
    pthread_mutex_lock(&server->lock);
    if (server->looping)
        poke(server);
    while (ms && server->looping && !server->draining)
        pthread_cond_wait(&server->ready, &server->lock);
    pthread_mutex_unlock(&server->lock);
}

bool server_over(struct server *server, double seconds)
{
    struct timespec until;
    bool over;

    if (server->generation != libd_generation())
        return true;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)((seconds - (double)(time_t)seconds) * 1e9);
    until.tv_sec += (time_t)seconds + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&server->lock);
    while (server->outcome != -2 && pthread_cond_timedwait(&server->ready, &server->lock, &until) == 0)
        ;
    over = server->outcome == -2;
    pthread_mutex_unlock(&server->lock);
    return over;
}

void server_stop(struct server *server)
{

    if (server->generation != libd_generation())
        return; /* the thread is the parent's */
    server_drain(server, 0);
    pthread_join(server->thread, NULL);
    forget(server);
}
