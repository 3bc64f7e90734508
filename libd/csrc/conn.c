/* A connection: a small state machine that receives requests, and sends replies. */
#define _GNU_SOURCE
#include "conn.h"

#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- connections ------------------------------------------------------------------------------------------------- */

void server_watch(struct server *server, struct watched *w, uint32_t events, int op)
{
    struct epoll_event event = {.events = events, .data.ptr = w};

    epoll_ctl(server->epoll, op, w->fd, &event);
}

/* Of a Unix socket every reply that the peer takes would make an event; of a TCP socket only what ends a want of room does,
 * so there it stays on. */
void conn_want_room(struct conn *conn, bool wanted)
{
    if (conn->room_wanted == wanted || (!wanted && !conn->local))
        return;
    conn->room_wanted = wanted;
    server_watch(conn->server, &conn->watched, CONN_EVENTS | (wanted ? EPOLLOUT : 0), EPOLL_CTL_MOD);
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
    /* Not merely closed: a child of fork may hold the descriptor too. The peer would wait forever, and there would be
     * events of memory that is about to be freed. */
    shutdown(conn->watched.fd, SHUT_RDWR);
    server_watch(server, &conn->watched, 0, EPOLL_CTL_DEL);
    close(conn->watched.fd);
    if (conn->move) /* goes on without it */
        conn->move->over = NULL;
    if (conn->clearing)
        conn->clearing->over = NULL;
    lease_run(&server->pool.leases, &conn->holder, libd_now());
    drop_request(conn);
    if (conn->link)
        verbs_hang_up(conn);
    if (conn->state == CONN_HELLO)
        server->greeting--;
    if (conn->tenant)
        conn->tenant->connections--;
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

void conn_linger(struct conn *conn)
{
    shutdown(conn->watched.fd, SHUT_WR);
    conn->state = CONN_LINGER;
    conn->input_first = conn->input_last = 0;
}

static void finish(struct conn *conn)
{
    const struct libd_request *r = &conn->request;

    drop_request(conn);
    conn_want_room(conn, false);
    conn->payload_size = 0;
    if ((r->op == LIBD_OP_READ || r->op == LIBD_OP_READV) && r->flags)
        conn->parts_follow = (r->flags & LIBD_PART_MORE) != 0;
    conn->state = CONN_HEADER;
    if (conn->closing)
        conn_close(conn);
    else if (conn->server->draining && !conn->admin && !conn->parts_follow)
        conn_linger(conn);
}

/* ---- being served ------------------------------------------------------------------------------------------------ */

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
        if (conn->state != CONN_SEND) {
            go = conn_receive(conn, &turn);
        } else {
            go = conn_send(conn, &turn);
            if (go)
                finish(conn);
        }
    }
    /* What it has not come to makes no event. */
    if (!conn->dead && turn == 0)
        conn_queue(conn);
}
