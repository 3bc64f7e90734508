#ifndef LIBD_STREAM_H
#define LIBD_STREAM_H

#include "transport.h"

struct stream {
    struct libd_transport transport; /* first: a stream is a transport */
    int fd;
    bool broken;
    uint64_t next_id;
    pthread_mutex_t lock;
};

int libd_stream_call_fds(struct libd_transport *t, struct libd_call *call, int *fds, int *nfds, struct libd_error *err);

#endif
