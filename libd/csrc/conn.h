/* Inside of the server: connections, and who handles which request. */
#ifndef LIBD_CONN_H
#define LIBD_CONN_H

#include <pthread.h>
#include <sys/types.h>

#include "pool.h"
#include "server.h"

#define CONN_INPUT 4096u
#define BODY_MAX (LIBD_MAX_SEGMENTS * sizeof(struct libd_segment))
#define PAYLOAD_MAX 768u
#define KEPT_MAX 1024u
#define CONN_TURN (UINT64_C(4) << 20) /* bytes that one connection may move before others get their turn */

enum conn_state {
    CONN_HELLO,  /* waiting for the greeting */
    CONN_HEADER, /* waiting for a request */
    CONN_BODY,   /* receiving segments or names */
    CONN_DATA,   /* receiving into the arena */
    CONN_MOVE,   /* its region is being copied, or its element cleared */
    CONN_ROOM,   /* waiting for the memory of tenants that were dropped */
    CONN_DRAIN,  /* skipping the data of a request that was refused */
    CONN_SEND,   /* sending a reply, the arena's bytes included */
    CONN_LINGER, /* all is said; waiting for the peer to hang up, so that what was sent arrives */
};

/* What a watched descriptor is. */
enum watch { WATCH_STOP, WATCH_ALARM, WATCH_TCP, WATCH_UNIX, WATCH_CONN };

struct watched {
    enum watch kind;
    int fd;
};

struct conn {
    struct watched watched; /* first */
    struct server *server;
    struct conn *prev, *next;
    bool local, admin, closing, dead;
    bool readable, ended; /* there may be bytes in the socket; and the peer's end behind them */
    bool room_wanted;     /* epoll tells when there is room to send in */
    bool queued;          /* it waits for another turn, in the server's queue */
    struct conn *queue_next;
    enum conn_state state;
    double accepted;
    struct tenant *tenant;   /* NULL once dropped */
    struct element *element; /* NULL once dropped */
    struct holder holder;    /* of leases */

    uint8_t input[CONN_INPUT];
    uint32_t input_first, input_last;
    bool parts_follow;  /* of a transfer that has begun */
    unsigned overtaken; /* how often in a row a short read went before a long one that was there first */

    struct libd_request request;
    uint8_t *body;
    uint64_t body_size, body_got;
    /* What data moves to or from, with the slots and epochs filled in; in `body`, or `one`. Each is valid for as long as its
     * slot has its epoch. */
    struct libd_segment *pieces, one;
    uint32_t piece_count, piece_now;
    uint64_t piece_done, drain;

    struct libd_reply reply;
    uint32_t reply_done;
    uint8_t payload[PAYLOAD_MAX];
    uint8_t *large; /* in the place of `payload`, where that is too small */
    uint32_t payload_size;
    int fds[2], nfds;
    uint8_t kept[KEPT_MAX]; /* replies that go out with the next one */
    uint32_t kept_size, kept_done;
    struct move *move;       /* that it waits for; NULL: none */
    struct clearing *clearing; /* the same */
    struct verbs_link *link; /* its queue pair; NULL: none */
};

struct verbs_server;

struct server {
    struct server_options options;
    struct pool pool;
    struct element *default_element;
    struct verbs_server *verbs; /* NULL: no RDMA device */
    int epoll, spare;
    struct watched stop, alarm, tcp, path;
    double alarm_at; /* when the alarm goes off; 0: never */
    uint16_t port;
    pthread_t thread;
    unsigned generation;
    uid_t user; /* who may come by the Unix socket */
    struct conn *conns, *graveyard;
    struct conn *queue, *queue_last; /* whose turn was over while they had more to do */
    uint64_t conn_count, greeting;
    uint64_t others; /* descriptors that the process had when it began to listen */
    uint64_t accepted, requests, refused, turned_away, bytes_read, bytes_written;
    uint64_t operations[LIBD_OPERATIONS], errors[LIBD_ERRORS];
    bool draining;
    bool looping; /* its descriptors are open */
    double drain_until;
    _Atomic uint64_t drain_ms; /* what a stop asks for */
    double started;
    pthread_mutex_t lock; /* start-up only */
    pthread_cond_t ready;
    int outcome; /* -1: starting; -2: over */
    struct libd_error error;
};

/* Makes the reply of `conn`; the loop sends it. */
void conn_reply(struct conn *conn, int code, uint64_t a, uint64_t b);
void conn_close(struct conn *conn);
#define CONN_EVENTS (EPOLLIN | EPOLLRDHUP | EPOLLET)
/* Whether it waits for room to send in. */
void conn_want_room(struct conn *conn, bool wanted);
/* Takes note of what epoll says. */
void conn_event(struct conn *conn, uint32_t events);
/* Has it served once more without an event. */
void conn_queue(struct conn *conn);
/* Gives those another turn whose last one was too short. */
void server_next_turns(struct server *server);
/* conn_send.c: sends what it can; true if the reply is out. */
bool conn_send(struct conn *conn, uint64_t *turn);
/* conn_receive.c: takes a step of its state's; false: not before there is more. */
bool conn_receive(struct conn *conn, uint64_t *turn);
static inline void conn_spend(uint64_t *turn, uint64_t amount) { *turn = *turn > amount ? *turn - amount : 0; }
/* Does what can be done without waiting. */
void conn_serve(struct conn *conn);
/* A socket that is closed resets its connection if requests are unread or arrive later, and the peer may lose the last
 * reply: it is closed when the peer has that. */
void conn_linger(struct conn *conn);
void server_watch(struct server *server, struct watched *w, uint32_t events, int op); /* epoll_ctl */

/* loop.c */
/* What the thread of a `struct server` does, until it is stopped. */
void *server_run(void *server);

/* admission.c */
/* How many descriptors this process may have. */
uint64_t server_descriptors(void);
/* How many it has, about. */
uint64_t server_open_descriptors(void);
/* Counts one more connection of the tenant; false: it has as many as it may have, which is `most`. */
bool admit(struct conn *conn, struct tenant *tenant, uint64_t *most);
/* All descriptors are taken: closes the connection that has owed its greeting for longest; false: none does. */
bool make_room(struct server *server);

/* requests.c */
void serve_hello(struct conn *conn, const struct libd_hello *hello, const char *token);
/* A lease has run out. */
void serve_expired(struct server *server, struct lease *lease);
/* Drops a tenant that uses memory which it was not promised. */
void serve_guard(struct server *server);
void serve_request(struct conn *conn); /* the header has arrived, the body too if there is one */
/* Whether what failed may do once tenants that were dropped are gone: the connection waits for that. */
bool serve_later(struct conn *conn, const struct libd_error *err);
/* One of them is gone. */
void serve_waiting(struct server *server);
uint64_t serve_body_size(const struct conn *conn); /* bytes of the payload that are no data; UINT64_MAX: nonsense */
/* Where a piece's bytes are; NULL: it is not valid any more. */
uint8_t *serve_piece(const struct conn *conn, const struct libd_segment *piece);

/* verbs_server.c, or verbs_none.c where libibverbs' headers were not there. */
/* Opens the device that the options ask for; LIBD_OK without one if they only prefer it. */
int verbs_server_start(struct server *server, struct libd_error *err);
void verbs_server_stop(struct server *server);
const char *verbs_server_device(const struct server *server); /* its name, or NULL */
void serve_verbs(struct conn *conn);
void verbs_hang_up(struct conn *conn);
/* Ends its queue pair, if it has one, and the connection with that. */
void verbs_cut_off(struct conn *conn);

/* admin.c */
void serve_orphan(struct server *server, const struct tenant *tenant, const struct element *element);
void serve_admin(struct conn *conn);

#endif
