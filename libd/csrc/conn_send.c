/* Sending the replies of a connection, the arena's bytes straight out of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "conn.h"
#include "net.h"

#define PIECES_PER_CALL 64

static bool reads(const struct conn *conn)
{
    return conn->reply.code == LIBD_OK && (conn->request.op == LIBD_OP_READ || conn->request.op == LIBD_OP_READV);
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

bool conn_send(struct conn *conn, uint64_t *turn)
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
            if (errno == EAGAIN)
                conn_want_room(conn, true);
            else
                conn_close(conn);
            return false;
        }
        uint64_t rest = (uint64_t)sent;
        conn_spend(turn, rest);
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
