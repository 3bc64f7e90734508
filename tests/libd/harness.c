/* What the tests call in heap.c without a server around them. */
#include <stdlib.h>

#include "heap.h"

#define EXPORT __attribute__((visibility("default")))

EXPORT struct heap *h_new(uint64_t size)
{
    struct heap *heap = malloc(sizeof *heap);

    if (!heap || !heap_init(heap, size))
        abort();
    return heap;
}

EXPORT void h_delete(struct heap *heap)
{
    heap_destroy(heap);
    free(heap);
}

EXPORT struct block *h_alloc(struct heap *heap, uint64_t size, uint64_t align) { return heap_alloc(heap, size, align); }
EXPORT void h_free(struct heap *heap, struct block *block) { heap_free(heap, block); }
EXPORT int h_resize(struct heap *heap, struct block *block, uint64_t size) { return heap_resize(heap, block, size); }
EXPORT uint64_t h_largest(struct heap *heap) { return heap_largest(heap); }
EXPORT uint64_t h_off(const struct block *block) { return block->off; }
EXPORT uint64_t h_size(const struct block *block) { return block->size; }
EXPORT uint64_t h_visited(const struct heap *heap) { return heap->visited; }
EXPORT uint64_t h_free_bytes(const struct heap *heap) { return heap->free_bytes; }
EXPORT uint64_t h_free_blocks(const struct heap *heap) { return heap->free_blocks; }
