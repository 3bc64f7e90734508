/* Memory elements. */
#include <stdlib.h>
#include <string.h>

#include "books.h"

int pool_element_begin(struct tenant *tenant, const char *name, uint64_t size, bool elastic, uint64_t limit,
                       struct element **out, struct libd_error *err)
{
    struct element *element;
    int code;

    if (size > (UINT64_C(1) << LIBD_OFFSET_BITS))
        return libd_fail(err, LIBD_ECAPACITY, LIBD_CAP_TENANT, tenant->quota - tenant->reserved);
    element = calloc(1, sizeof *element);
    if (!element)
        return libd_fail(err, LIBD_ENOMEM, 0, 0);
    element->tenant = tenant;
    element->id = tenant->pool->next_id++;
    element->elastic = elastic;
    element->limit = heap_round(elastic && limit < UINT64_MAX / 2 ? limit : elastic ? UINT64_MAX / 2 : size);
    element->created = element->since = libd_now();
    strncpy(element->name, name, LIBD_MAX_NAME);
    libd_random(element->key, sizeof element->key);
    if (!elastic) {
        code = element_charge(element, element->limit, err);
        if (code == LIBD_OK) {
            code = region_create(element, &tenant->heap, 0, size, PAGE, element->limit, &element->root, err);
            if (code)
                element_discharge(element, element->limit);
        }
        if (code == LIBD_OK && !heap_init(&element->window, size)) {
            region_destroy(element, &tenant->heap, element->root);
            code = libd_fail(err, LIBD_ENOMEM, 0, 0);
        }
        if (code) {
            free(element);
            return code;
        }
        /* A new element reads as zeros; what nobody has touched already does. */
        const struct region *region = &tenant->regions[element->root];
        if (region->block->warm_from == region->block->warm_to || element_clear(element))
            region_publish(tenant, element->root);
    }
    element->next = tenant->elements;
    tenant->elements = element;
    tenant->elements_live++;
    *out = element;
    return LIBD_OK;
}

int pool_element_create(struct tenant *tenant, const char *name, uint64_t size, bool elastic, uint64_t limit,
                        struct element **out, struct libd_error *err)
{
    int code = pool_element_begin(tenant, name, size, elastic, limit, out, err);

    while (!code && (*out)->clearing && !pool_clear((*out)->clearing, UINT64_MAX))
        ;
    return code;
}

void pool_element_drop(struct element *element)
{
    struct tenant *tenant = element->tenant;
    struct element **link = &tenant->elements;

    if (element->clearing)
        clearing_cancel(element->clearing);
    if (element->lease)
        lease_end(element->lease);
    while (element->first)
        region_destroy(element, element_heap(element), element->first);
    if (element->root)
        region_destroy(element, &tenant->heap, element->root);
    heap_destroy(&element->window);
    while (*link != element)
        link = &(*link)->next;
    *link = element->next;
    tenant->elements_live--;
    free(element);
}

struct element *pool_element_by_id(struct tenant *tenant, uint64_t id)
{
    struct element *e = tenant->elements;

    while (e && e->id != id)
        e = e->next;
    return e;
}

uint64_t pool_element_limit(const struct element *element)
{
    return element->limit < element->tenant->quota ? element->limit : element->tenant->quota;
}

void pool_element_stats(struct element *element, struct libd_element_stats *out)
{
    struct heap *heap = element_heap(element);

    element_integrate(element);
    *out = (struct libd_element_stats){
        .reserved = element->reserved,
        .peak = element->peak,
        .limit = pool_element_limit(element),
        .regions = element->regions,
        .byte_seconds = element->byte_seconds,
        .bytes_read = element->bytes_read,
        .bytes_written = element->bytes_written,
        .age = element->since - element->created,
        .free = heap->free_bytes,
        .free_blocks = heap->free_blocks,
        .largest_free = heap_largest(heap),
    };
}
