/* Ranges inside an arena: address-ordered blocks, binned by size, split and coalesced. Keeps its books outside of the
 * memory that it hands out, which clients can write. Not thread-safe. */
#ifndef LIBD_HEAP_H
#define LIBD_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#define HEAP_GRAIN 64u
#define HEAP_BINS 64

struct block {
    uint64_t off, size;
    uint64_t warm_from, warm_to; /* what was ever touched of it lies between; equal: nothing was */
    struct block *prev, *next;         /* neighbours by address */
    struct block *bin_prev, *bin_next; /* others of its size class, while free */
    bool free;
};

struct heap {
    struct block *first;
    struct block *bins[HEAP_BINS];
    uint64_t size, free_bytes, warm_bytes, free_blocks;
};

bool heap_init(struct heap *heap, uint64_t size);
void heap_destroy(struct heap *heap);
/* A block of at least `size` bytes, its offset a multiple of `align` (a power of two); NULL if none fits. */
struct block *heap_alloc(struct heap *heap, uint64_t size, uint64_t align);
void heap_free(struct heap *heap, struct block *block);
/* Grows `block` into the free bytes after it, or gives bytes back; false if it cannot. */
bool heap_resize(struct heap *heap, struct block *block, uint64_t size);
uint64_t heap_largest(const struct heap *heap);
uint64_t heap_round(uint64_t size);

#endif
