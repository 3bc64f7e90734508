/* What the two directions of a lane share. With the stream's lock held. */
#ifndef LIBD_LANE_H
#define LIBD_LANE_H

#include "stream.h"

/* The parts of scattered memory from `at` on. */
static inline size_t lane_scatter(const struct libd_vec *vec, size_t count, struct libd_place at, struct iovec *iov, size_t room)
{
    size_t n = 0;

    for (size_t i = at.index; i < count && n < room; i++, at.done = 0)
        if (vec[i].size > at.done)
            iov[n++] = (struct iovec){(char *)vec[i].data + at.done, vec[i].size - at.done};
    return n;
}

static inline void lane_forward(const struct libd_vec *vec, size_t count, struct libd_place *at, uint64_t bytes)
{
    at->done += bytes;
    while (at->index < count && at->done >= vec[at->index].size) {
        at->done -= vec[at->index].size;
        at->index++;
    }
}

/* Takes a call off its lane's queue. */
void lane_unlink(struct lane *lane, struct libd_call *call);
/* The call, and its batch if it was the last of it, belong to their owner again from here on. */
void lane_finish(struct stream *s, struct libd_call *call, const struct libd_error *err);

#endif
