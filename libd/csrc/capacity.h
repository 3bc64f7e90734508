/* How many more bytes this machine can promise. */
#ifndef LIBD_CAPACITY_H
#define LIBD_CAPACITY_H

#include <stdint.h>

/* The least of MemAvailable and what every enclosing memory cgroup (v1 or v2) has left, less a margin that is kept free. */
uint64_t libd_available(void);
/* Resident bytes of this process that are backed neither by files nor by shared memory. */
uint64_t libd_private_memory(void);
/* The same of another one; 0: it does not say. */
uint64_t libd_private_memory_of(int pid);

#endif
