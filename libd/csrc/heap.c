#include "heap.h"

#include <stdlib.h>
#include <string.h>

uint64_t heap_round(uint64_t size)
{
    if (size == 0)
        size = 1;
    return (size + HEAP_GRAIN - 1) & ~(uint64_t)(HEAP_GRAIN - 1);
}

static int bin_of(uint64_t size) { return 63 - __builtin_clzll(size | 1); }

static uint64_t warm(const struct block *block) { return block->warm_to - block->warm_from; }

static void set_warm(struct block *block, uint64_t from, uint64_t to)
{
    block->warm_from = from < to ? from : 0;
    block->warm_to = from < to ? to : 0;
}

static void bin_insert(struct heap *heap, struct block *block)
{
    struct block **bin = &heap->bins[bin_of(block->size)];

    block->free = true;
    block->bin_prev = NULL;
    block->bin_next = *bin; /* last freed first: its pages are the warmest */
    if (*bin)
        (*bin)->bin_prev = block;
    *bin = block;
    heap->free_bytes += block->size;
    heap->warm_bytes += warm(block);
    heap->free_blocks++;
}

static void bin_remove(struct heap *heap, struct block *block)
{
    if (block->bin_prev)
        block->bin_prev->bin_next = block->bin_next;
    else
        heap->bins[bin_of(block->size)] = block->bin_next;
    if (block->bin_next)
        block->bin_next->bin_prev = block->bin_prev;
    block->free = false;
    heap->free_bytes -= block->size;
    heap->warm_bytes -= warm(block);
    heap->free_blocks--;
}

/* Splits what is beyond `size` off `block` into a new block that is in no bin. */
static struct block *split(struct block *block, uint64_t size)
{
    struct block *rest = calloc(1, sizeof *rest);

    if (!rest)
        return NULL;
    rest->off = block->off + size;
    rest->size = block->size - size;
    set_warm(rest, block->warm_from > rest->off ? block->warm_from : rest->off, block->warm_to);
    rest->prev = block;
    rest->next = block->next;
    if (block->next)
        block->next->prev = rest;
    block->next = rest;
    block->size = size;
    set_warm(block, block->warm_from, block->warm_to < rest->off ? block->warm_to : rest->off);
    return rest;
}

/* Joins `block` with the block after it; neither is in a bin. */
static void join(struct block *block)
{
    struct block *next = block->next;

    block->size += next->size;
    if (!warm(block))
        set_warm(block, next->warm_from, next->warm_to);
    else if (warm(next)) /* what lies between the two counts too */
        block->warm_to = next->warm_to;
    block->next = next->next;
    if (next->next)
        next->next->prev = block;
    free(next);
}

bool heap_init(struct heap *heap, uint64_t size)
{
    memset(heap, 0, sizeof *heap);
    heap->size = size & ~(uint64_t)(HEAP_GRAIN - 1);
    if (heap->size == 0)
        return true;
    heap->first = calloc(1, sizeof *heap->first);
    if (!heap->first)
        return false;
    heap->first->size = heap->size;
    bin_insert(heap, heap->first);
    return true;
}

void heap_destroy(struct heap *heap)
{
    struct block *block = heap->first;

    while (block) {
        struct block *next = block->next;
        free(block);
        block = next;
    }
    memset(heap, 0, sizeof *heap);
}

static uint64_t lead(const struct block *block, uint64_t align)
{
    return (align - (block->off & (align - 1))) & (align - 1);
}

static bool fits(const struct block *block, uint64_t size, uint64_t align)
{
    uint64_t skip = lead(block, align);

    return block->size >= skip && block->size - skip >= size;
}

struct block *heap_alloc(struct heap *heap, uint64_t size, uint64_t align)
{
    struct block *found = NULL;

    size = heap_round(size);
    if (align < HEAP_GRAIN)
        align = HEAP_GRAIN;
    for (int bin = bin_of(size); bin < HEAP_BINS && !found; bin++)
        for (struct block *block = heap->bins[bin]; block; block = block->bin_next)
            if (fits(block, size, align) && (!found || block->size < found->size)) {
                found = block;
                if (block->size == size)
                    break;
            }
    if (!found)
        return NULL;
    bin_remove(heap, found);
    uint64_t skip = lead(found, align);
    if (skip) {
        struct block *rest = split(found, skip);
        if (!rest) {
            bin_insert(heap, found);
            return NULL;
        }
        bin_insert(heap, found);
        found = rest;
    }
    if (found->size > size) {
        struct block *rest = split(found, size);
        if (rest) /* else the caller gets the whole block: wasteful, not wrong */
            bin_insert(heap, rest);
    }
    return found;
}

void heap_free(struct heap *heap, struct block *block)
{
    set_warm(block, block->off, block->off + block->size);
    if (block->next && block->next->free) {
        bin_remove(heap, block->next);
        join(block);
    }
    if (block->prev && block->prev->free) {
        block = block->prev;
        bin_remove(heap, block);
        join(block);
    }
    bin_insert(heap, block);
}

bool heap_resize(struct heap *heap, struct block *block, uint64_t size)
{
    size = heap_round(size);
    if (size == block->size)
        return true;
    if (size < block->size) {
        struct block *rest = split(block, size);
        if (!rest)
            return false;
        heap_free(heap, rest);
        return true;
    }
    struct block *next = block->next;
    if (!next || !next->free || block->size + next->size < size)
        return false;
    bin_remove(heap, next);
    uint64_t missing = size - block->size;
    if (next->size > missing) {
        struct block *rest = split(next, missing);
        if (!rest) {
            bin_insert(heap, next);
            return false;
        }
        bin_insert(heap, rest);
    }
    join(block);
    return true;
}

uint64_t heap_largest(const struct heap *heap)
{
    uint64_t largest = 0;

    for (int bin = HEAP_BINS - 1; bin >= 0 && !largest; bin--)
        for (const struct block *block = heap->bins[bin]; block; block = block->bin_next)
            if (block->size > largest)
                largest = block->size;
    return largest;
}
