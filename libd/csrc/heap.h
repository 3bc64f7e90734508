/* Ranges inside an arena: address-ordered blocks, split and coalesced; the free ones in a search tree by size, so that no
 * request of a client costs more than the logarithm of what clients left behind. Keeps its books outside of the memory
 * that it hands out, which clients can write. Not thread-safe. */
#ifndef LIBD_HEAP_H
#define LIBD_HEAP_H

#include <stdbool.h>
#include <stdint.h>

#define HEAP_GRAIN 64u
#define HEAP_PAGE UINT64_C(4096)
#define HEAP_LOOKS 16 /* blocks that may or may not fit an alignment, tried before one that certainly does */

struct block {
    uint64_t off, size;
    uint64_t warm_from, warm_to; /* what was ever touched of it lies between; equal: nothing was */
    struct block *prev, *next;   /* neighbours by address */
    struct block *less, *more;   /* subtrees, while free */
    uint64_t rank;               /* random: above its subtrees' */
    bool free;
};

struct heap {
    struct block *first;
    struct block *root; /* of the free blocks: a treap by size, then offset */
    uint64_t size, free_bytes, free_blocks;
    uint64_t live_pages; /* in which blocks that are not free have a part */
    uint64_t warm_bytes; /* of the other pages, as far as they may have been touched */
    uint64_t warm_least; /* the fewest that there were, between calls, since the owner of the heap set this */
    uint64_t dice;    /* where the next rank comes from */
    uint64_t visited; /* blocks that were looked at so far, in all searches */
};

bool heap_init(struct heap *heap, uint64_t size);
void heap_destroy(struct heap *heap);
/* A block of at least `size` bytes, its offset a multiple of `align` (a power of two); NULL if none fits. It is cut from
 * the smallest free block that will do, the first of equals. Only an alignment beyond HEAP_GRAIN that no block satisfies
 * wherever it begins makes it look at more than a few: at those that are large enough but for the alignment. */
struct block *heap_alloc(struct heap *heap, uint64_t size, uint64_t align);
void heap_free(struct heap *heap, struct block *block);
/* Grows `block` into the free bytes after it, or gives bytes back; false if it cannot. */
bool heap_resize(struct heap *heap, struct block *block, uint64_t size);
/* What may have been touched of a free block: whole pages, at most `most` bytes of them but at least one, and what it has of the
 * pages at its ends; nothing if it has no page to itself. */
void heap_warm(const struct heap *heap, const struct block *block, uint64_t most, uint64_t *from, uint64_t *to);
/* The bytes of a free block before `to` are zeros again, and their pages gone. */
void heap_cooled(struct heap *heap, struct block *block, uint64_t to);
/* Bytes of the largest free block. */
uint64_t heap_largest(struct heap *heap);
uint64_t heap_round(uint64_t size);

#endif
