/* What the pool's parts need of one another: nobody else's business. */
#ifndef LIBD_BOOKS_H
#define LIBD_BOOKS_H

#include "pool.h"

#define PAGE UINT64_C(4096)

/* charge.c: what is promised to whom, against every limit. */
uint64_t tenant_resident(const struct tenant *tenant);
uint64_t file_resident(int fd);
/* Charges `bytes` to the element, its tenant and the pool, or nobody. */
int element_charge(struct element *element, uint64_t bytes, struct libd_error *err);
void element_discharge(struct element *element, uint64_t bytes);
/* Brings the element's byte-seconds up to now. */
void element_integrate(struct element *element);

/* Others may have so many bytes of what was promised to it at once, not only when it is time to settle. */
void tenant_unpledge(struct tenant *tenant, uint64_t bytes);

/* guard.c */
/* Bytes that it may still take from the machine. */
uint64_t tenant_undrawn(const struct tenant *tenant);
/* Gives pages of its free blocks back: of warm ones, or of all, whatever is known of them. */
void tenant_trim(struct tenant *tenant, bool all);

/* region.c */
/* A region in a block of `heap`, which begins at `origin` of the arena; clients do not see it until it is published. */
int region_create(struct element *element, struct heap *heap, uint64_t origin, uint64_t size, uint64_t align,
                  uint64_t charged, uint32_t *out, struct libd_error *err);
/* The same, charged and placed as `element` has it. */
int region_new(struct element *element, const struct libd_wanted *wanted, uint32_t *out, struct libd_error *err);
void region_publish(struct tenant *tenant, uint32_t slot);
/* No client finds it from here on. */
void region_retract(struct tenant *tenant, uint32_t slot);
void region_destroy(struct element *element, struct heap *heap, uint32_t slot);
/* What the element allocates from. */
struct heap *element_heap(struct element *element);

/* vacate.c */
/* Takes a tenant's arena, whose pages go back in turns; until they are gone so many bytes stay charged to the pool. */
void tenant_vacate(struct tenant *tenant, uint64_t charged);
/* Resident bytes of all arenas whose tenants are gone. */
uint64_t pool_leaving(const struct pool *pool);
/* Makes a new element's region read as zeros; false: that takes turns, and it is published when they are over. */
bool element_clear(struct element *element);
/* Its element is about to be destroyed. */
void clearing_cancel(struct clearing *clearing);

/* move.c: one end of it, at `slot`, is about to be destroyed; destroys the other. */
void move_cancel(struct move *move, uint32_t slot);

#endif
