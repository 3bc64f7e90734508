/* A connection: a small state machine that receives requests, and sends replies. */
#define _GNU_SOURCE
#include "conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "net.h"

#define TURN (UINT64_C(4) << 20) /* bytes that one connection may move before others get their turn */
#define PIECES_PER_CALL 64

/* ---- connections ------------------------------------------------------------------------------------------------- */

void server_watch(struct server *server, struct watched *w, uint32_t events, int op)
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
        server_watch(conn->server, &conn->watched, on ? EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
    }
}

static bool reads(const struct conn *conn)
{
    return conn->reply.code == LIBD_OK && (conn->request.op == LIBD_OP_READ || conn->request.op == LIBD_OP_READV);
}

void conn_linger(struct conn *conn)
{
    shutdown(conn->watched.fd, SHUT_WR);
    conn->state = CONN_LINGER;
    conn->input_first = conn->input_last = 0;
}

static void finish(struct conn *conn)
{
    drop_request(conn);
    conn->payload_size = 0;
    conn->state = CONN_HEADER;
    if (conn->closing)
        conn_close(conn);
    else if (conn->server->draining && !conn->admin)
        conn_linger(conn);
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

void conn_serve(struct conn *conn)
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
