/* The ledger: a small file that all processes of a user map, with a slot for each that promises memory.
 *
 * A slot is held by a record lock on its bytes, which the kernel takes back when the process ends in whatever way. It is a
 * lock of the process (F_SETLK), not of the open file (F_OFD_SETLK): a child of fork, which has the file open as well, would
 * hold the slot of a parent that is gone. Such locks end when the process closes any descriptor of the file, so there is
 * one of them for all pools.
 *
 * No lock is held while a promise is made, lest a process that is stopped at the wrong moment stops all others: who promises
 * says so first, then adds up what is said, and takes it back if that is too much. Of two that do so at once one or both
 * see the other. */
#define _GNU_SOURCE
#include "ledger.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "capacity.h"
#include "transport.h"

/* A fixed place, that servers of a login, of a service and of cron all find; $LIBD_LEDGER is another folder. */
#define FOLDER "/tmp"
#define SLOTS 1023u
#define LITTLE (UINT64_C(1) << 20) /* bytes; asking the kernel costs more than to promise a few */
#define ATTEMPTS 100
#define YIELD 20000 /* ns */

struct slot {
    _Atomic uint64_t shared;    /* of memfds, whose drawn part is taken off by their owner */
    _Atomic uint64_t anonymous; /* of private memory: all that is promised */
    _Atomic uint64_t before;    /* private memory that the process had before that became more than a little */
} __attribute__((aligned(64)));

struct file {
    _Atomic uint32_t used; /* slots that were ever used: nobody looks at more */
    struct slot slots[SLOTS] __attribute__((aligned(64)));
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* around coming and going */
static struct {
    unsigned generation, pools;
    int fd;
    uint32_t number;
    struct file *_Atomic file; /* NULL: there is none */
} here = {.fd = -1};

static struct slot *mine(const struct pledge *pledge)
{
    struct file *file = atomic_load_explicit(&here.file, memory_order_acquire);

    return ledger_joined(pledge) && file ? &file->slots[here.number] : NULL;
}

static bool hold(int fd, short type, off_t from, off_t size)
{
    struct flock range = {.l_type = type, .l_whence = SEEK_SET, .l_start = from, .l_len = size};

    return fcntl(fd, F_SETLK, &range) == 0;
}

static off_t place(uint32_t number) { return (off_t)(offsetof(struct file, slots) + number * sizeof(struct slot)); }

static bool path_of(char *out, size_t size)
{
    const char *folder = getenv("LIBD_LEDGER");

    return snprintf(out, size, "%s/libd-ledger-%u", folder && *folder ? folder : FOLDER, (unsigned)geteuid()) < (int)size;
}

/* The file, if it is ours alone: in a folder for everybody another user may have put something there. */
static int open_file(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);

    if (fd < 0)
        return -1;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) ||
        posix_fallocate(fd, 0, sizeof(struct file)) != 0) { /* a page that a full disk has no room for is a SIGBUS later */
        close(fd);
        return -1;
    }
    return fd;
}

/* Whether it is still there: the last one out may have removed it since it was opened. */
static bool linked(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && st.st_nlink > 0;
}

static void pause_for(long ns) { nanosleep(&(struct timespec){.tv_nsec = ns}, NULL); }

/* With the lock held. */
static void enter(void)
{
    char path[4096];
    bool again = path_of(path, sizeof path);

    for (int i = 0; again && i < ATTEMPTS; i++) {
        int fd = open_file(path);
        struct file *file = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *file, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        uint32_t number = 0;

        again = fd >= 0 && file != MAP_FAILED;
        while (again && number < SLOTS && !hold(fd, F_WRLCK, place(number), sizeof(struct slot)))
            number++;
        if (again && number < SLOTS && linked(fd)) {
            struct slot *slot = &file->slots[number];
            atomic_store(&slot->shared, 0); /* of one that died */
            atomic_store(&slot->anonymous, 0);
            uint32_t used = atomic_load(&file->used);
            while (used <= number && !atomic_compare_exchange_weak(&file->used, &used, number + 1))
                ;
            here.fd = fd;
            here.number = number;
            atomic_store_explicit(&here.file, file, memory_order_release);
            return;
        }
        if (file != MAP_FAILED)
            munmap(file, sizeof *file);
        if (fd >= 0)
            close(fd);
        if (again)
            pause_for(YIELD);
    }
}

/* Removes the file if nobody else holds a slot: nobody gets one before it is gone. */
static void remove_if_last(void)
{
    struct stat ours, there;
    char path[4096];

    if (linked(here.fd) && hold(here.fd, F_WRLCK, place(0), SLOTS * sizeof(struct slot)) && path_of(path, sizeof path) &&
        fstat(here.fd, &ours) == 0 && lstat(path, &there) == 0 && ours.st_ino == there.st_ino && ours.st_dev == there.st_dev)
        unlink(path);
}

/* With the lock held. */
static void leave(void)
{
    struct file *file = atomic_exchange(&here.file, NULL);

    if (!file)
        return;
    atomic_store(&file->slots[here.number].shared, 0);
    atomic_store(&file->slots[here.number].anonymous, 0);
    remove_if_last();
    munmap(file, sizeof *file);
    close(here.fd);
    here.fd = -1;
}

/* What a child of fork has of it is its parent's: the locks do not come along, and closing the descriptor here ends none. */
static void forked(void)
{
    pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;
    struct file *file = atomic_exchange(&here.file, NULL);

    memcpy(&lock, &fresh, sizeof lock); /* a thread that is not here may have held it */
    if (file)
        munmap(file, sizeof *file);
    if (here.fd >= 0)
        close(here.fd);
    here.fd = -1;
    here.pools = 0;
}

/* A program may end without having closed what it opened. Its servers' threads may run until the very end. */
__attribute__((destructor)) static void at_exit(void)
{
    if (atomic_load(&here.file))
        remove_if_last();
}

__attribute__((constructor)) static void watch_forks(void) { pthread_atfork(NULL, NULL, forked); }

void ledger_join(struct pledge *pledge, bool anonymous)
{
    *pledge = (struct pledge){.anonymous = anonymous, .joined = true, .generation = libd_generation()};
    pthread_mutex_lock(&lock);
    if (here.pools++ == 0)
        enter();
    pthread_mutex_unlock(&lock);
}

void ledger_leave(struct pledge *pledge)
{
    if (!pledge->joined || pledge->generation != libd_generation())
        return;
    ledger_set(pledge, 0);
    pthread_mutex_lock(&lock);
    if (--here.pools == 0)
        leave();
    pthread_mutex_unlock(&lock);
    pledge->joined = false;
}

bool ledger_joined(const struct pledge *pledge)
{
    return pledge->joined && pledge->generation == libd_generation() && atomic_load_explicit(&here.file, memory_order_relaxed);
}

void ledger_set(struct pledge *pledge, uint64_t bytes)
{
    struct slot *slot = mine(pledge);
    uint64_t more = bytes - pledge->bytes; /* or less: wraps around */

    pledge->bytes = bytes;
    if (!slot || more == 0)
        return;
    if (!pledge->anonymous) {
        atomic_fetch_add(&slot->shared, more);
        return;
    }
    uint64_t now = atomic_load(&slot->anonymous);
    if (now < LITTLE && now + more >= LITTLE)
        atomic_store(&slot->before, libd_private_memory());
    atomic_fetch_add(&slot->anonymous, more);
}

uint64_t ledger_said(const struct pledge *pledge)
{
    const struct slot *own = mine(pledge);
    uint64_t sum = 0;

    if (!own)
        return 0;
    const struct file *file = atomic_load_explicit(&here.file, memory_order_acquire);
    uint32_t used = atomic_load(&file->used);
    for (uint32_t i = 0; i < used && i < SLOTS; i++)
        sum += atomic_load(&file->slots[i].shared) + atomic_load(&file->slots[i].anonymous);
    return sum - pledge->bytes;
}

/* Of private memory what a process has more than before it promised the first of it counts as drawn. */
static uint64_t undrawn(const struct slot *slot, pid_t pid, uint64_t own_shared, uint64_t own_anonymous)
{
    uint64_t promised = atomic_load(&slot->anonymous) - own_anonymous;
    uint64_t before = atomic_load(&slot->before), now = promised >= LITTLE ? libd_private_memory_of(pid) : 0;
    uint64_t drawn = now > before ? now - before : 0;

    return atomic_load(&slot->shared) - own_shared + (promised > drawn ? promised - drawn : 0);
}

uint64_t ledger_undrawn(const struct pledge *pledge)
{
    struct slot *own = mine(pledge);
    uint64_t sum = 0;

    if (!own)
        return 0;
    struct file *file = atomic_load_explicit(&here.file, memory_order_acquire);
    uint32_t used = atomic_load(&file->used);
    for (uint32_t i = 0; i < used && i < SLOTS; i++) {
        struct slot *slot = &file->slots[i];
        if (slot == own) {
            sum += undrawn(slot, getpid(), pledge->anonymous ? 0 : pledge->bytes, pledge->anonymous ? pledge->bytes : 0);
            continue;
        }
        if (atomic_load(&slot->shared) == 0 && atomic_load(&slot->anonymous) == 0)
            continue;
        struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = place(i), .l_len = sizeof *slot};
        /* A slot that nobody holds is a dead one's, and says nothing any more. */
        if (fcntl(here.fd, F_GETLK, &range) == 0 && range.l_type == F_UNLCK) {
            if (hold(here.fd, F_WRLCK, place(i), sizeof *slot)) { /* else it has just been taken */
                atomic_store(&slot->shared, 0);
                atomic_store(&slot->anonymous, 0);
                hold(here.fd, F_UNLCK, place(i), sizeof *slot);
            }
            continue;
        }
        sum += undrawn(slot, range.l_pid, 0, 0);
    }
    return sum;
}

void ledger_yield(const struct pledge *pledge)
{
    if (mine(pledge))
        pause_for((long)YIELD * (1 + (long)here.number % 16));
}
