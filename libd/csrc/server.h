/* The memory server: one thread, one epoll loop, any number of connections, each a small state machine. */
#ifndef LIBD_SERVER_H
#define LIBD_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "codes.h"

struct server;

struct server_options {
    uint64_t size;           /* of the pool */
    uint64_t default_region; /* bytes of the default region; 0: none */
    const char *host;        /* NULL: no TCP */
    uint16_t port;           /* 0: any */
    const char *path;        /* abstract Unix socket without '@'; NULL: none */
    const char *token;       /* of the default region; NULL: open */
    const char *admin_token; /* NULL: nobody administers this server */
    const char *device;      /* RDMA: NAME[:PORT[:GID INDEX]], "": any; NULL: none */
    bool device_optional;    /* go without one if there is none */
    double keep_warm;        /* seconds for which freed memory stays with its tenant; twice that at most */
};

/* Starts the server's thread, and returns once it listens. */
int server_start(const struct server_options *options, struct server **out, struct libd_error *err);
uint16_t server_port(const struct server *server);
/* Takes no more connections and requests, lets those that have begun come to their end for at most `ms`, and ends; 0, or a
 * second time: ends now. Returns when that has
 * begun. */
void server_drain(struct server *server, uint64_t ms);
/* Whether it has ended, waiting for that for at most `seconds`. */
bool server_over(struct server *server, double seconds);
/* The RDMA device that it serves, or NULL. */
const char *server_device(const struct server *server);
/* Stops the thread, closes every connection, gives the memory back. In a child of fork it only forgets. */
void server_stop(struct server *server);

#endif
