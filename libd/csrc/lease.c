#include "lease.h"

#include <stdlib.h>

/* ---- the heap ---------------------------------------------------------------------------------------------------- */

static void put(struct leases *all, size_t at, struct lease *lease)
{
    all->heap[at] = lease;
    lease->at = at;
}

static void settle(struct leases *all, size_t at, struct lease *lease)
{
    while (at && all->heap[(at - 1) / 2]->deadline > lease->deadline) {
        put(all, at, all->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= all->running)
            break;
        if (child + 1 < all->running && all->heap[child + 1]->deadline < all->heap[child]->deadline)
            child++;
        if (all->heap[child]->deadline >= lease->deadline)
            break;
        put(all, at, all->heap[child]);
        at = child;
    }
    put(all, at, lease);
}

/* ---- holders ----------------------------------------------------------------------------------------------------- */

static void hang(struct lease *lease, struct holder *holder)
{
    lease->holder = holder;
    lease->prev = NULL;
    lease->next = holder->first;
    if (holder->first)
        holder->first->prev = lease;
    holder->first = lease;
}

static void detach(struct lease *lease)
{
    if (lease->holder) {
        if (lease->prev)
            lease->prev->next = lease->next;
        else
            lease->holder->first = lease->next;
        if (lease->next)
            lease->next->prev = lease->prev;
    } else {
        struct leases *all = lease->all;
        struct lease *last = all->heap[--all->running];
        if (last != lease)
            settle(all, lease->at, last);
    }
}

struct lease *lease_new(struct leases *all, struct holder *holder, struct element *element, uint32_t slot, uint64_t ms)
{
    struct lease *lease;

    /* There is room for all to run at once: when a holder goes, nothing may fail. */
    if (all->held == all->room) {
        size_t room = all->room ? 2 * all->room : 16;
        struct lease **more = realloc(all->heap, room * sizeof *more);
        if (!more)
            return NULL;
        all->heap = more;
        all->room = room;
    }
    lease = calloc(1, sizeof *lease);
    if (!lease)
        return NULL;
    *lease = (struct lease){.all = all, .element = element, .slot = slot, .ms = ms};
    hang(lease, holder);
    all->held++;
    return lease;
}

void lease_renew(struct lease *lease, struct holder *holder, uint64_t ms)
{
    detach(lease);
    lease->ms = ms;
    hang(lease, holder);
}

void lease_end(struct lease *lease)
{
    detach(lease);
    lease->all->held--;
    free(lease);
}

void lease_run(struct leases *all, struct holder *holder, double now)
{
    while (holder->first) {
        struct lease *lease = holder->first;
        detach(lease);
        lease->holder = NULL;
        lease->deadline = now + (double)lease->ms / 1000;
        all->running++;
        settle(all, all->running - 1, lease);
    }
}

struct lease *lease_next(const struct leases *all) { return all->running ? all->heap[0] : NULL; }

void leases_destroy(struct leases *all) { free(all->heap); }
