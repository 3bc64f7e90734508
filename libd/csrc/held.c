#include "held.h"

#include <stdlib.h>
#include <string.h>

#include "wire.h"

static size_t region_of(uint64_t addr) { return (size_t)(addr >> LIBD_OFFSET_BITS); }

static struct held *find(const struct holdings *holdings, uint64_t addr)
{
    size_t region = region_of(addr);
    uint32_t place = region < holdings->regions ? holdings->places[region] : 0;

    return place ? &holdings->all[place - 1] : NULL;
}

static struct held *add(struct holdings *holdings, size_t region)
{
    if (region >= holdings->regions) {
        size_t more = holdings->regions ? holdings->regions : 64;
        while (more <= region)
            more *= 2;
        uint32_t *places = region < LIBD_SLOTS ? realloc(holdings->places, more * sizeof *places) : NULL;
        if (!places)
            return NULL;
        memset(places + holdings->regions, 0, (more - holdings->regions) * sizeof *places);
        holdings->places = places;
        holdings->regions = more;
    }
    if (holdings->count == holdings->room) {
        size_t room = holdings->room ? 2 * holdings->room : 16;
        struct held *more = realloc(holdings->all, room * sizeof *more);
        if (!more)
            return NULL;
        holdings->all = more;
        holdings->room = room;
    }
    holdings->places[region] = (uint32_t)++holdings->count;
    return &holdings->all[holdings->count - 1];
}

void held_put(struct holdings *holdings, uint64_t addr, uint64_t epoch, uint64_t ms)
{
    struct held *held = find(holdings, addr);

    if (!held)
        held = add(holdings, region_of(addr));
    if (held)
        *held = (struct held){addr & ~LIBD_OFFSET_MASK, epoch, ms};
}

void held_forget(struct holdings *holdings, uint64_t addr)
{
    struct held *held = find(holdings, addr), *last;

    if (!held)
        return;
    last = &holdings->all[--holdings->count];
    holdings->places[region_of(last->addr)] = holdings->places[region_of(addr)];
    holdings->places[region_of(addr)] = 0;
    *held = *last;
}

uint64_t held_ms(const struct holdings *holdings, uint64_t addr)
{
    const struct held *held = find(holdings, addr);

    return held ? held->ms : 0;
}

void held_destroy(struct holdings *holdings)
{
    free(holdings->all);
    free(holdings->places);
}
