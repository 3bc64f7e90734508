/* Requests over stream sockets: rdma_tcp as a whole, the control half of rdma_shm and of verbs, and the administrator.
 *
 * A stream has one or more lanes: connections to the same element. Requests go out on a lane in order and their replies
 * may come back in any order; a large transfer is cut up over all lanes. There is no thread: whoever waits for something
 * receives for everybody (one thread per lane at a time, without the lock), and whoever submits sends. */
#ifndef LIBD_STREAM_H
#define LIBD_STREAM_H

#include <sys/uio.h>

#include "held.h"
#include "transport.h"

#define LANES_MAX 16
#define IOV_BATCH 128
/* Seconds after which a system call that waits looks for signals: one that arrived just before the call began does not
 * interrupt it. */
#define SIGNAL_CHECK 0.25

struct lane {
    int fd;                /* -1: not connected */
    bool reading, writing; /* a thread is in a system call with it, without the lock */
    bool backlog;          /* the socket did not take everything */
    uint64_t writes;       /* system calls that wrote, and of which the outcome was noted */
    struct libd_call *first, *last; /* not answered yet, oldest first */
    struct libd_call *unsent;       /* the first of them that is not out */
    struct libd_call *current;      /* whose payload is arriving; NULL: a header comes next */
    uint64_t got;                   /* bytes of that header */
    uint64_t load;                  /* bytes that its calls have still to move */
    uint32_t watched;               /* epoll events that it is registered for */
};

struct stream {
    struct libd_transport transport; /* first: a stream is a transport */
    struct libd_address address;     /* with strings of its own: for connecting again */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* a batch or call is done, a role is free, a connection is made or lost */
    unsigned waiting;       /* threads that wait for that */
    unsigned in_calls;      /* lanes being read or written */
    struct lane lanes[LANES_MAX];
    unsigned lane_count, lanes_wanted;
    _Atomic uint64_t connection; /* counts up with each time that it connects */
    bool broken;     /* the lanes are shut down; the next request connects again */
    bool connecting; /* a thread does that, without the lock */
    bool stale;      /* another server is there now: what this transport knew is gone */
    int cause, cause_detail; /* of `broken`: a code, and an errno */
    struct holdings holdings;
    uint64_t next_id;
    uint64_t moved;  /* bytes that came and went */
    uint64_t seen;   /* of them at `since`, when somebody first found that nothing moved */
    double since;
    double refused;  /* when connecting again last failed */
    int epoll, event; /* for event loops; -1 until they are asked for */
};

static inline struct stream *stream_of(struct libd_transport *t) { return (struct stream *)t; }

/* ---- connect.c ---- */

/* A tenant's arena and its table of regions, as ATTACH passes them. */
struct arena {
    int fds[2]; /* the receiver's own */
    uint64_t size;
};

/* Connects, greets, and holds the regions that the stream has leased; the descriptor, or -1 and `err`. With `arena` it asks
 * for that, too, in the same round trip. */
int stream_connect(const struct libd_address *address, const struct held *held, size_t held_count,
                   struct libd_welcome *who, char *name, struct arena *arena, struct libd_error *err);
/* A stream that is connected; with `arena`, as above. */
int stream_open(const struct libd_address *address, struct arena *arena, struct libd_transport **out,
                struct libd_error *err);
/* What the server says went wrong. */
int stream_told(struct libd_error *err, const struct libd_reply *reply);

/* ---- lane.c, lane_send.c, lane_receive.c: with the stream's lock held; they drop it around system calls ---- */

void lane_append(struct stream *s, struct lane *lane, struct libd_call *call);
/* Sends what the socket takes, or (`until` set, and nothing else under way) waits until that call is out. Bytes sent. */
uint64_t lane_send(struct stream *s, struct lane *lane, const struct libd_call *until);
/* Receives what is there; `block`: waits for it, at most SIGNAL_CHECK. Bytes received. */
uint64_t lane_receive(struct stream *s, struct lane *lane, bool block, bool *interrupted);
/* Ends every call and batch of a broken stream, once no thread is in a system call for it. */
void stream_fail_all(struct stream *s);
/* Frees what submitting made. */
void libd_batch_release(struct libd_batch *batch);
void stream_break(struct stream *s, int code, int detail);

/* ---- revive.c: with the lock held, which they may drop and take again ---- */

/* Whether requests can be sent; connects again if the connection was lost. What was under way then has failed. */
int stream_ready(struct stream *s, struct libd_error *err);
/* As many lanes as are wanted, or as can be had. */
int stream_widen(struct stream *s, struct libd_error *err);
void stream_open_lane(struct stream *s, int fd);
void stream_close_lanes(struct stream *s);
void stream_watch(struct stream *s, struct lane *lane);
/* Waits for `changed` for at most a while. */
void stream_pause(struct stream *s, double seconds);
/* Whether a signal handler raised. */
int stream_interrupted(struct stream *s, struct libd_error *err);

/* ---- wait.c ---- */

/* What a thread waits for: a batch, a call, or all that was submitted up to a number. */
struct goal {
    const struct libd_batch *batch;
    const struct libd_call *call;
    uint64_t mark;
};

/* With the lock held. Seconds: 0 does not wait, negative waits for ever. */
int stream_await(struct stream *s, const struct goal *goal, double timeout, struct libd_error *err);
int stream_progress(struct libd_transport *t, struct libd_batch *batch, double timeout, struct libd_error *err);
void stream_abandon(struct libd_transport *t);
int stream_fd(struct libd_transport *t);

/* ---- batch.c ---- */

int stream_submit(struct libd_transport *t, struct libd_batch *batch, struct libd_error *err);

/* ---- stream.c ---- */

struct lane *stream_least_loaded(struct stream *s);
/* What rdma_shm asks of the server, as rdma_tcp does. */
int stream_renew(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t lease_ms, struct libd_error *err);
int stream_alloc(struct libd_transport *t, const struct libd_wanted *wanted, uint32_t *region, uint64_t *epoch,
                 struct libd_error *err);
int stream_free(struct libd_transport *t, uint64_t addr, uint64_t epoch, struct libd_error *err);
int stream_extend(struct libd_transport *t, uint64_t addr, uint64_t epoch, uint64_t size, uint32_t *region,
                  uint64_t *new_epoch, struct libd_error *err);
int stream_stat(struct libd_transport *t, struct libd_element_stats *out, struct libd_error *err);
void stream_shutdown(struct libd_transport *t);
void stream_destroy(struct libd_transport *t);
/* A descriptor, the caller's own, that hangs up when the connection of now ends; -1: there is none. */
int stream_connection(struct libd_transport *t, uint64_t *number);

#endif
