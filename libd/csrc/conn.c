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

#define REQUEST_COST (UINT64_C(16) << 10) /* of a turn, whatever it moves */
#define PIECES_PER_CALL 64

/* ---- connections ------------------------------------------------------------------------------------------------- */

void server_watch(struct server *server, struct watched *w, uint32_t events, int op)
{
    struct epoll_event event = {.events = events, .data.ptr = w};

    epoll_ctl(server->epoll, op, w->fd, &event);
}

void conn_queue(struct conn *conn)
{
    struct server *server = conn->server;

    if (conn->queued)
        return;
    conn->queued = true;
    conn->queue_next = NULL;
    *(server->queue ? &server->queue_last->queue_next : &server->queue) = conn;
    server->queue_last = conn;
}

static void dequeue(struct conn *conn)
{
    struct server *server = conn->server;
    struct conn *before = NULL;

    if (!conn->queued)
        return;
    conn->queued = false;
    for (struct conn *c = server->queue; c != conn; c = c->queue_next)
        before = c;
    *(before ? &before->queue_next : &server->queue) = conn->queue_next;
    if (server->queue_last == conn)
        server->queue_last = before;
}

void server_next_turns(struct server *server)
{
    unsigned count = 0;

    /* Those that have still more to do go behind the others, and come when events have been looked for. */
    for (const struct conn *c = server->queue; c; c = c->queue_next)
        count++;
    for (; count && server->queue; count--) {
        struct conn *conn = server->queue;
        dequeue(conn);
        conn_serve(conn);
    }
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
    dequeue(conn);
    /* Not merely closed: a child of fork may hold the descriptor too, and the peer would wait forever. */
    shutdown(conn->watched.fd, SHUT_RDWR);
    close(conn->watched.fd);
    if (conn->move) /* goes on without it */
        conn->move->over = NULL;
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

static void spend(uint64_t *turn, uint64_t amount) { *turn = *turn > amount ? *turn - amount : 0; }

/* ---- sending ----------------------------------------------------------------------------------------------------- */

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
    return next.length == 0 && next.size <= CONN_TURN;
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
        spend(turn, rest);
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

/* recv with the loop's answers: 1 something came, 0 nothing there, -1 the connection is closed.
 *
 * Less than it has room for was all that there was, and what comes later makes an event, which saves the look that would find
 * nothing; but behind the last bytes of a peer that has hung up comes the end, which makes none. */
static int receive(struct conn *conn, struct iovec *iov, int count, size_t size, size_t *got)
{
    struct msghdr message = {.msg_iov = iov, .msg_iovlen = (size_t)count};

    while (conn->readable) {
        ssize_t n = count == 1 ? recv(conn->watched.fd, iov->iov_base, size, MSG_DONTWAIT)
                               : recvmsg(conn->watched.fd, &message, MSG_DONTWAIT);
        if (n > 0) {
            conn->readable = (size_t)n == size || conn->ended;
            *got = (size_t)n;
            return 1;
        }
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            conn->readable = false;
            return 0;
        }
        conn_close(conn);
        return -1;
    }
    return 0;
}

/* Has `size` bytes at the front of the input buffer; false: not yet. */
static bool have(struct conn *conn, uint32_t size)
{
    while (buffered(conn) < size) {
        size_t got;
        if (conn->input_first) {
            memmove(conn->input, conn->input + conn->input_first, buffered(conn));
            conn->input_last -= conn->input_first;
            conn->input_first = 0;
        }
        struct iovec iov = {conn->input + conn->input_last, CONN_INPUT - conn->input_last};
        if (receive(conn, &iov, 1, iov.iov_len, &got) <= 0)
            return false;
        conn->input_last += (uint32_t)got;
    }
    return true;
}

/* Up to `size` payload bytes to `out`: first what is buffered, then from the socket, which may have the next request behind
 * them. Returns like `receive`. */
static int payload(struct conn *conn, uint8_t *out, uint64_t size, size_t *got)
{
    uint32_t n = buffered(conn);

    if (n == 0) {
        struct iovec iov[] = {{out, size}, {conn->input, CONN_INPUT}};
        int code = receive(conn, iov, 2, size + CONN_INPUT, got);
        conn->input_first = conn->input_last = 0;
        if (code > 0 && *got > size) {
            conn->input_last = (uint32_t)(*got - size);
            *got = size;
        }
        return code;
    }
    if (n > size)
        n = (uint32_t)size;
    memcpy(out, conn->input + conn->input_first, n);
    conn->input_first += n;
    *got = n;
    return 1;
}

static bool step_hello(struct conn *conn)
{
    struct libd_hello hello;

    if (!have(conn, sizeof hello))
        return false;
    memcpy(&hello, conn->input + conn->input_first, sizeof hello);
    if (memcmp(hello.magic, LIBD_MAGIC, sizeof hello.magic) != 0 || hello.token_length > LIBD_MAX_TOKEN) {
        conn->server->refused++;
        conn_close(conn);
        return false;
    }
    if (!have(conn, (uint32_t)sizeof hello + hello.token_length))
        return false;
    serve_hello(conn, &hello, (const char *)conn->input + conn->input_first + sizeof hello);
    conn->input_first += (uint32_t)sizeof hello + hello.token_length;
    return true;
}

static bool step_header(struct conn *conn, uint64_t *turn)
{
    if (!have(conn, sizeof conn->request))
        return false;
    spend(turn, REQUEST_COST); /* who goes on asking for nothing must not keep the loop either */
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
        spend(turn, got);
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
        spend(turn, got);
    }
    conn->state = CONN_SEND;
    return true;
}

static bool step_linger(struct conn *conn, uint64_t *turn)
{
    uint8_t scratch[4096];
    size_t got;

    if (receive(conn, &(struct iovec){scratch, sizeof scratch}, 1, sizeof scratch, &got) <= 0)
        return false;
    spend(turn, got); /* who goes on sending must not keep the loop from ending */
    return true;
}

void conn_event(struct conn *conn, uint32_t events)
{
    const uint32_t end = EPOLLRDHUP | EPOLLHUP | EPOLLERR;

    conn->ended |= (events & end) != 0;
    conn->readable |= (events & (EPOLLIN | end)) != 0;
}

void conn_serve(struct conn *conn)
{
    uint64_t turn = CONN_TURN;
    bool go = true;

    while (go && !conn->dead && turn) {
        switch (conn->state) {
        case CONN_HELLO:
            go = step_hello(conn);
            break;
        case CONN_HEADER:
            go = step_header(conn, &turn);
            break;
        case CONN_BODY:
            go = step_body(conn);
            break;
        case CONN_DATA:
            go = step_data(conn, &turn);
            break;
        case CONN_MOVE:
            go = false;
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
    /* What it has not come to makes no event. */
    if (!conn->dead && turn == 0)
        conn_queue(conn);
}
