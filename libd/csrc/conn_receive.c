/* Receiving the requests of a connection, and what is written straight into the arena. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "conn.h"

#define REQUEST_COST (UINT64_C(16) << 10) /* of a turn, whatever it moves */
#define OVERTAKEN_MAX 64

static uint32_t buffered(const struct conn *conn) { return conn->input_last - conn->input_first; }

/* recv with the loop's answers: 1 something came, 0 nothing there, -1 the connection is closed.
 *
 * Less than it has room for was all that there was, and what comes later makes an event, which saves the look that would
 * find nothing; but behind the last bytes of a peer that has hung up comes the end, which makes none. */
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

/* Takes what else is here into the buffer. It never closes: what came before the end is still to be answered, and who receives
 * next finds the end (or the error) once more. */
static void look_ahead(struct conn *conn)
{
    uint32_t room = CONN_INPUT - conn->input_last;

    if (!conn->readable || room == 0)
        return;
    ssize_t n = recv(conn->watched.fd, conn->input + conn->input_last, room, MSG_DONTWAIT);
    if (n > 0) {
        conn->input_last += (uint32_t)n;
        conn->readable = (size_t)n == room || conn->ended;
    } else if (n == 0) {
        conn->ended = true;
    } else if (errno == EAGAIN) {
        conn->readable = false;
    }
}

/* Reads that are here together are answered the short ones first, as far as no other request stands between them: these are
 * done in order. A long one is overtaken so many times at most. */
static void short_ones_first(struct conn *conn)
{
    struct libd_request first, other;
    uint32_t at = conn->input_first;

    memcpy(&first, conn->input + at, sizeof first);
    if (first.op != LIBD_OP_READ || first.size <= LIBD_SHORT_READ)
        return;
    unsigned overtaken = conn->overtaken;
    conn->overtaken = 0;
    if (overtaken == OVERTAKEN_MAX)
        return;
    look_ahead(conn);
    while ((at += sizeof other) + sizeof other <= conn->input_last) {
        memcpy(&other, conn->input + at, sizeof other);
        if (other.op != LIBD_OP_READ || other.length)
            return;
        if (other.size <= LIBD_SHORT_READ) {
            memmove(conn->input + conn->input_first + sizeof other, conn->input + conn->input_first, at - conn->input_first);
            memcpy(conn->input + conn->input_first, &other, sizeof other);
            conn->overtaken = overtaken + 1;
            return;
        }
    }
}

static bool step_header(struct conn *conn, uint64_t *turn)
{
    if (!have(conn, sizeof conn->request))
        return false;
    short_ones_first(conn);
    conn_spend(turn, REQUEST_COST); /* who goes on asking for nothing must not keep the loop either */
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
        const struct libd_segment *p = &conn->pieces[conn->piece_now];
        uint8_t *bytes = serve_piece(conn, p);
        uint64_t left = p->size - conn->piece_done;
        size_t got;

        if (left == 0) {
            conn->piece_now++;
            conn->piece_done = 0;
            continue;
        }
        /* Freed while its data was on the way: the rest is skipped, and the writer told. */
        if (!bytes) {
            conn->drain = left;
            for (uint32_t i = conn->piece_now + 1; i < conn->piece_count; i++)
                conn->drain += conn->pieces[i].size;
            conn->reply.code = LIBD_ESTALE;
            conn->state = CONN_DRAIN;
            return true;
        }
        if (*turn == 0)
            return false;
        if (payload(conn, bytes + conn->piece_done, left, &got) <= 0)
            return false;
        conn->piece_done += got;
        conn_spend(turn, got);
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
        conn_spend(turn, got);
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
    conn_spend(turn, got); /* who goes on sending must not keep the loop from ending */
    return true;
}

bool conn_receive(struct conn *conn, uint64_t *turn)
{
    switch (conn->state) {
    case CONN_HELLO:
        return step_hello(conn);
    case CONN_HEADER:
        return step_header(conn, turn);
    case CONN_BODY:
        return step_body(conn);
    case CONN_DATA:
        return step_data(conn, turn);
    case CONN_DRAIN:
        return step_drain(conn, turn);
    case CONN_LINGER:
        return step_linger(conn, turn);
    default:
        return false;
    }
}
