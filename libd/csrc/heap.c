#include "heap.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

uint64_t heap_round(uint64_t size)
{
    if (size == 0)
        size = 1;
    return (size + HEAP_GRAIN - 1) & ~(uint64_t)(HEAP_GRAIN - 1);
}

static uint64_t warm(const struct block *block) { return block->warm_to - block->warm_from; }

static void set_warm(struct block *block, uint64_t from, uint64_t to)
{
    block->warm_from = from < to ? from : 0;
    block->warm_to = from < to ? to : 0;
}

/* ---- pages ------------------------------------------------------------------------------------------------------- */

static uint64_t page_down(uint64_t at) { return at & ~(HEAP_PAGE - 1); }

static uint64_t page_up(uint64_t at) { return page_down(at + HEAP_PAGE - 1); }

/* Bytes of warm pages that are the free block's alone. What its first and last page have of others is live: two free blocks
 * would be one. */
static uint64_t warm_alone(const struct heap *heap, const struct block *block)
{
    uint64_t end = block->off + block->size, from = page_down(block->warm_from), to = page_up(block->warm_to);

    if (!warm(block))
        return 0;
    if (end < heap->size) /* behind the last page is nobody */
        end = page_down(end);
    from = from > page_up(block->off) ? from : page_up(block->off);
    to = to < end ? to : end;
    return from < to ? to - from : 0;
}

void heap_warm(const struct heap *heap, const struct block *block, uint64_t most, uint64_t *from, uint64_t *to)
{
    uint64_t end = block->off + block->size;

    *from = *to = 0;
    if (!warm_alone(heap, block))
        return;
    *from = page_down(block->warm_from) > block->off ? page_down(block->warm_from) : block->off;
    *to = page_up(block->warm_to) < end ? page_up(block->warm_to) : end;
    uint64_t first = page_up(*from), last = page_down(*to);
    if (last > first && last - first > most)
        *to = first + (most > HEAP_PAGE ? page_down(most) : HEAP_PAGE);
}

/* Pages of a live block in which no other live block has a part. Up to 64 blocks lie in a page. */
static uint64_t pages_alone(const struct block *block)
{
    uint64_t first = block->off / HEAP_PAGE, last = (block->off + block->size - 1) / HEAP_PAGE, end = last + 1;
    const struct block *b;

    for (b = block->prev; b && (b->off + b->size - 1) / HEAP_PAGE == first; b = b->prev)
        if (!b->free) {
            first++;
            break;
        }
    for (b = block->next; b && b->off / HEAP_PAGE == last; b = b->next)
        if (!b->free) {
            end--;
            break;
        }
    return first < end ? end - first : 0;
}

static void note_warmth(struct heap *heap)
{
    if (heap->warm_bytes < heap->warm_least)
        heap->warm_least = heap->warm_bytes;
}

void heap_cooled(struct heap *heap, struct block *block, uint64_t to)
{
    heap->warm_bytes -= warm_alone(heap, block);
    set_warm(block, to > block->warm_from ? to : block->warm_from, block->warm_to);
    heap->warm_bytes += warm_alone(heap, block);
    note_warmth(heap);
}

/* ---- the tree of free blocks ------------------------------------------------------------------------------------- */

/* splitmix64; the seed is secret, so that no client can choose an order of requests that makes the tree a list. */
static uint64_t roll(struct heap *heap)
{
    uint64_t z = heap->dice += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static bool before(const struct block *a, const struct block *b)
{
    return a->size != b->size ? a->size < b->size : a->off < b->off;
}

static void tree_insert(struct heap *heap, struct block *block)
{
    struct block **link = &heap->root, **less = &block->less, **more = &block->more, *node;

    block->free = true;
    block->rank = roll(heap);
    while (*link && (*link)->rank >= block->rank) {
        heap->visited++;
        link = before(block, *link) ? &(*link)->less : &(*link)->more;
    }
    /* What was there is divided into what comes before the block and what comes after it. */
    for (node = *link; node; heap->visited++) {
        if (before(node, block)) {
            *less = node;
            less = &node->more;
            node = node->more;
        } else {
            *more = node;
            more = &node->less;
            node = node->less;
        }
    }
    *less = *more = NULL;
    *link = block;
    heap->free_bytes += block->size;
    heap->warm_bytes += warm_alone(heap, block);
    heap->free_blocks++;
}

static void tree_remove(struct heap *heap, struct block *block)
{
    struct block **link = &heap->root, *less = block->less, *more = block->more;

    while (*link != block) {
        heap->visited++;
        link = before(block, *link) ? &(*link)->less : &(*link)->more;
    }
    while (less && more) {
        heap->visited++;
        if (less->rank >= more->rank) {
            *link = less;
            link = &less->more;
            less = less->more;
        } else {
            *link = more;
            link = &more->less;
            more = more->less;
        }
    }
    *link = less ? less : more;
    block->less = block->more = NULL;
    block->free = false;
    heap->free_bytes -= block->size;
    heap->warm_bytes -= warm_alone(heap, block);
    heap->free_blocks--;
}

/* The first free block that comes at or after (size, off). */
static struct block *tree_find(struct heap *heap, uint64_t size, uint64_t off)
{
    const struct block key = {.off = off, .size = size};
    struct block *node = heap->root, *found = NULL;

    while (node) {
        heap->visited++;
        if (before(node, &key)) {
            node = node->more;
        } else {
            found = node;
            node = node->less;
        }
    }
    return found;
}

/* ---- blocks ------------------------------------------------------------------------------------------------------ */

/* Splits what is beyond `size` off `block` into a new block that is not in the tree. */
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

/* Joins `block` with the block after it; neither is in the tree. */
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
    if (getrandom(&heap->dice, sizeof heap->dice, GRND_NONBLOCK) != sizeof heap->dice)
        heap->dice = (uint64_t)(uintptr_t)heap; /* early at boot */
    heap->first = calloc(1, sizeof *heap->first);
    if (!heap->first)
        return false;
    heap->first->size = heap->size;
    tree_insert(heap, heap->first);
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

/* Looks at every block of at least `size` bytes. Its depth is the tree's: tens, not thousands. */
static struct block *scan(struct heap *heap, struct block *node, uint64_t size, uint64_t align)
{
    struct block *found = NULL;

    while (node && !found) {
        heap->visited++;
        if (node->size >= size) {
            found = scan(heap, node->less, size, align);
            if (!found && fits(node, size, align))
                found = node;
        }
        node = node->more;
    }
    return found;
}

/* The smallest free block that fits, or at least one of the smallest. */
static struct block *find(struct heap *heap, uint64_t size, uint64_t align)
{
    uint64_t certain = size + align - HEAP_GRAIN; /* fits wherever it begins */
    struct block *block = tree_find(heap, size, 0);

    for (int looks = 0; block && block->size < certain && looks < HEAP_LOOKS; looks++) {
        if (fits(block, size, align))
            return block;
        block = tree_find(heap, block->size, block->off + 1);
    }
    if (!block || block->size >= certain)
        return block;
    struct block *large = tree_find(heap, certain, 0);
    if (large)
        return large;
    return scan(heap, heap->root, size, align);
}

struct block *heap_alloc(struct heap *heap, uint64_t size, uint64_t align)
{
    struct block *found;

    if (align < HEAP_GRAIN)
        align = HEAP_GRAIN;
    if (size > heap->size)
        return NULL;
    size = heap_round(size);
    found = find(heap, size, align);
    if (!found)
        return NULL;
    tree_remove(heap, found);
    uint64_t skip = lead(found, align);
    if (skip) {
        struct block *rest = split(found, skip);
        if (!rest) {
            tree_insert(heap, found);
            return NULL;
        }
        tree_insert(heap, found);
        found = rest;
    }
    if (found->size > size) {
        struct block *rest = split(found, size);
        if (rest) /* else the caller gets the whole block: wasteful, not wrong */
            tree_insert(heap, rest);
    }
    heap->live_pages += pages_alone(found);
    note_warmth(heap);
    return found;
}

/* Puts what is no longer counted as live among the free blocks. */
static void give(struct heap *heap, struct block *block)
{
    set_warm(block, block->off, block->off + block->size);
    if (block->next && block->next->free) {
        tree_remove(heap, block->next);
        join(block);
    }
    if (block->prev && block->prev->free) {
        block = block->prev;
        tree_remove(heap, block);
        join(block);
    }
    tree_insert(heap, block);
}

void heap_free(struct heap *heap, struct block *block)
{
    heap->live_pages -= pages_alone(block);
    give(heap, block);
}

static bool resize(struct heap *heap, struct block *block, uint64_t size)
{
    if (size == block->size)
        return true;
    if (size < block->size) {
        struct block *rest = split(block, size);
        if (!rest)
            return false;
        give(heap, rest);
        return true;
    }
    struct block *next = block->next;
    if (!next || !next->free || block->size + next->size < size)
        return false;
    tree_remove(heap, next);
    uint64_t missing = size - block->size;
    if (next->size > missing) {
        struct block *rest = split(next, missing);
        if (!rest) {
            tree_insert(heap, next);
            return false;
        }
        tree_insert(heap, rest);
    }
    join(block);
    return true;
}

bool heap_resize(struct heap *heap, struct block *block, uint64_t size)
{
    heap->live_pages -= pages_alone(block);
    bool done = resize(heap, block, heap_round(size));
    heap->live_pages += pages_alone(block);
    note_warmth(heap);
    return done;
}

uint64_t heap_largest(struct heap *heap)
{
    const struct block *block = heap->root;

    for (; block && block->more; block = block->more)
        heap->visited++;
    return block ? block->size : 0;
}
