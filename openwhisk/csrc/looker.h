/* A thread of native code that looks at the memory of processes every few milliseconds, while there is anything to look at. */
#ifndef SCAD_LOOKER_H
#define SCAD_LOOKER_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define LOOKER_STACK (64 * 1024) /* small: it counts towards RLIMIT_DATA */

/* `look` is called with the mutex held, as long as `wanted`. */
struct looker {
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    int wanted, ending, running;
    pid_t owner;
    long interval_ns;
    int64_t page;
    void (*look)(void *what);
    void *what;
};

/* RssAnon and VmData of the process of an open /proc/PID/statm, in bytes; -1 where it is gone. The file is: size resident shared
 * text lib data …, in pages. */
static inline int64_t looker_read(const struct looker *l, int fd, int64_t *data)
{
    char text[128], *at;
    ssize_t n = pread(fd, text, sizeof text - 1, 0);

    if (n <= 0)
        return -1;
    text[n] = 0;
    strtoll(text, &at, 10);
    int64_t resident = strtoll(at, &at, 10);
    int64_t shared = strtoll(at, &at, 10);
    strtoll(at, &at, 10);
    strtoll(at, &at, 10);
    *data = strtoll(at, &at, 10) * l->page;
    return resident > shared ? (resident - shared) * l->page : 0;
}

static inline void *looker_main(void *argument)
{
    struct looker *l = argument;

    pthread_mutex_lock(&l->mutex);
    while (!l->ending) {
        if (!l->wanted) {
            pthread_cond_wait(&l->wake, &l->mutex);
            continue;
        }
        l->look(l->what);
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += l->interval_ns;
        until.tv_sec += until.tv_nsec / 1000000000L;
        until.tv_nsec %= 1000000000L;
        pthread_cond_timedwait(&l->wake, &l->mutex, &until);
    }
    pthread_mutex_unlock(&l->mutex);
    return NULL;
}

/* 0, or an errno. The rest of `l` is zero. */
static inline int looker_open(struct looker *l, long interval_ns, void (*look)(void *), void *what)
{
    l->interval_ns = interval_ns;
    l->page = sysconf(_SC_PAGESIZE);
    l->owner = getpid();
    l->look = look;
    l->what = what;
    pthread_condattr_t condition;
    pthread_condattr_init(&condition);
    pthread_condattr_setclock(&condition, CLOCK_MONOTONIC);
    pthread_mutex_init(&l->mutex, NULL);
    pthread_cond_init(&l->wake, &condition);
    pthread_condattr_destroy(&condition);
    /* Signals are for Python's threads. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, LOOKER_STACK);
    int code = pthread_create(&l->thread, &attributes, looker_main, l);
    pthread_attr_destroy(&attributes);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    l->running = code == 0;
    return code;
}

static inline void looker_lock(struct looker *l) { pthread_mutex_lock(&l->mutex); }
static inline void looker_unlock(struct looker *l) { pthread_mutex_unlock(&l->mutex); }

/* With the mutex held: there is more to look at, or less. */
static inline void looker_want(struct looker *l, int more)
{
    l->wanted += more;
    pthread_cond_signal(&l->wake);
}

/* True if it ended the thread: a child of fork has neither that nor a mutex that can be trusted. */
static inline int looker_close(struct looker *l)
{
    if (!l->running || l->owner != getpid())
        return 0;
    looker_lock(l);
    l->ending = 1;
    pthread_cond_signal(&l->wake);
    looker_unlock(l);
    pthread_join(l->thread, NULL);
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->mutex);
    l->running = 0;
    return 1;
}

#endif
