# cython: language_level=3
"""`Watcher`: says when a process holds more than is good for it, or much less than it has.

A native thread reads ``/proc/PID/statm`` of each watched process (one ``pread``) every few milliseconds; resident minus shared pages is
RssAnon. It never takes the GIL, wakes nobody while a process stays between its bounds, and sleeps on a condition variable while nothing is
watched. What a process says of itself is not believed: it runs code of users.
"""

import os

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdint.h>
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <sys/eventfd.h>
    #include <time.h>
    #include <unistd.h>

    #define WATCHER_STACK (64 * 1024)

    /* A process, and between which bounds it is of no interest. `key` 0 is a free place. */
    typedef struct {
        int64_t key;
        int fd;
        int told;
        int calm;
        int64_t low, high;
        int64_t held;
    } watched_t;

    typedef struct {
        pthread_t thread;
        pthread_mutex_t mutex;
        pthread_cond_t wake;
        int running;
        int ending;
        pid_t owner;
        int news;
        int patience;
        long interval_ns;
        int64_t page;
        watched_t *places;
        int count, watching;
    } watcher_t;

    /* RssAnon in bytes; -1 where the process is gone. statm is: size resident shared …, in pages. */
    static int64_t watcher_look(int fd, int64_t page) {
        char text[128], *at;
        ssize_t n = pread(fd, text, sizeof text - 1, 0);
        if (n <= 0) return -1;
        text[n] = 0;
        strtoll(text, &at, 10);
        int64_t resident = strtoll(at, &at, 10);
        int64_t shared = strtoll(at, &at, 10);
        return resident > shared ? (resident - shared) * page : 0;
    }

    static void watcher_round(watcher_t *w) {
        int news = 0;
        for (int i = 0; i < w->count; i++) {
            watched_t *p = &w->places[i];
            if (!p->key || p->told) continue;
            int64_t held = watcher_look(p->fd, w->page);
            if (held < 0) continue;
            p->held = held;
            /* What is freed may be wanted again at once: only a lasting calm is news. */
            p->calm = held < p->low ? p->calm + 1 : 0;
            if (held > p->high || p->calm > w->patience) {
                p->told = 1;
                news = 1;
            }
        }
        if (news) eventfd_write(w->news, 1);
    }

    static void *watcher_main(void *argument) {
        watcher_t *w = argument;
        pthread_mutex_lock(&w->mutex);
        while (!w->ending) {
            if (!w->watching) {
                pthread_cond_wait(&w->wake, &w->mutex);
                continue;
            }
            watcher_round(w);
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += w->interval_ns;
            until.tv_sec += until.tv_nsec / 1000000000L;
            until.tv_nsec %= 1000000000L;
            pthread_cond_timedwait(&w->wake, &w->mutex, &until);
        }
        pthread_mutex_unlock(&w->mutex);
        return NULL;
    }

    static int watcher_open(watcher_t *w, long interval_ns, int patience) {
        memset(w, 0, sizeof *w);
        w->interval_ns = interval_ns;
        w->patience = patience;
        w->page = sysconf(_SC_PAGESIZE);
        w->owner = getpid();
        w->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->news < 0) return errno;
        pthread_condattr_t condition;
        pthread_condattr_init(&condition);
        pthread_condattr_setclock(&condition, CLOCK_MONOTONIC);
        pthread_mutex_init(&w->mutex, NULL);
        pthread_cond_init(&w->wake, &condition);
        pthread_condattr_destroy(&condition);
        /* Signals are for Python's threads. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, WATCHER_STACK);
        int code = pthread_create(&w->thread, &attributes, watcher_main, w);
        pthread_attr_destroy(&attributes);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (code) {
            close(w->news);
            w->news = -1;
        } else {
            w->running = 1;
        }
        return code;
    }

    static watched_t *watcher_find(watcher_t *w, int64_t key) {
        for (int i = 0; i < w->count; i++)
            if (w->places[i].key == key) return &w->places[i];
        return NULL;
    }

    static int watcher_watch(watcher_t *w, int64_t key, int pid, int64_t low, int64_t high) {
        char path[64];
        snprintf(path, sizeof path, "/proc/%d/statm", pid);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return errno;
        int code = 0;
        pthread_mutex_lock(&w->mutex);
        watched_t *p = watcher_find(w, 0);
        if (!p) {
            int more = w->count ? 2 * w->count : 8;
            watched_t *places = realloc(w->places, (size_t)more * sizeof *places);
            if (places) {
                memset(places + w->count, 0, (size_t)(more - w->count) * sizeof *places);
                p = places + w->count;
                w->places = places;
                w->count = more;
            }
        }
        if (p) {
            *p = (watched_t){.key = key, .fd = fd, .low = low, .high = high};
            w->watching++;
            pthread_cond_signal(&w->wake);
        } else {
            code = ENOMEM;
            close(fd);
        }
        pthread_mutex_unlock(&w->mutex);
        return code;
    }

    static void watcher_bound(watcher_t *w, int64_t key, int64_t low, int64_t high) {
        pthread_mutex_lock(&w->mutex);
        watched_t *p = watcher_find(w, key);
        if (p) {
            p->low = low;
            p->high = high;
            p->calm = 0;
            p->told = 0;
        }
        pthread_mutex_unlock(&w->mutex);
    }

    static void watcher_forget(watcher_t *w, int64_t key) {
        pthread_mutex_lock(&w->mutex);
        watched_t *p = watcher_find(w, key);
        if (p) {
            close(p->fd);
            p->key = 0;
            w->watching--;
        }
        pthread_mutex_unlock(&w->mutex);
    }

    /* One process that is outside of its bounds: its key, and what it holds. 0 where there is none. It is silent until it has new bounds. */
    static int64_t watcher_take(watcher_t *w, int64_t *held) {
        int64_t key = 0;
        pthread_mutex_lock(&w->mutex);
        for (int i = 0; i < w->count && !key; i++) {
            watched_t *p = &w->places[i];
            if (p->key && p->told == 1) {
                p->told = 2;
                *held = p->held;
                key = p->key;
            }
        }
        pthread_mutex_unlock(&w->mutex);
        return key;
    }

    static void watcher_close(watcher_t *w) {
        /* A child of fork has neither the thread nor a mutex that can be trusted. */
        if (!w->running || w->owner != getpid()) return;
        pthread_mutex_lock(&w->mutex);
        w->ending = 1;
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->mutex);
        pthread_join(w->thread, NULL);
        w->running = 0;
        for (int i = 0; i < w->count; i++)
            if (w->places[i].key) close(w->places[i].fd);
        free(w->places);
        w->places = NULL;
        w->count = w->watching = 0;
        close(w->news);
        w->news = -1;
    }
    """
    ctypedef struct watcher_t:
        int news
        int running
    int watcher_open(watcher_t *w, long interval_ns, int patience) nogil
    int watcher_watch(watcher_t *w, int64_t key, int pid, int64_t low, int64_t high) nogil
    void watcher_bound(watcher_t *w, int64_t key, int64_t low, int64_t high) nogil
    void watcher_forget(watcher_t *w, int64_t key) nogil
    int64_t watcher_take(watcher_t *w, int64_t *held) nogil
    void watcher_close(watcher_t *w) nogil


cdef class Watcher:
    """Watches the anonymous memory of processes.

    Parameters
    ----------
    interval
        Seconds between two looks.
    calm
        How many looks in a row a process has to hold less than its lower bound before that is news.

    Notes
    -----
    Not usable after ``fork``, and closing it there does nothing: make one in the child.
    """

    cdef watcher_t _state

    def __cinit__(self, double interval=0.004, int calm=8):
        self._state.news = -1
        if not 1e-4 <= interval < 1.0:
            raise ValueError("interval must be at least 0.1 ms and below 1 s")
        cdef int code = watcher_open(&self._state, <long>(interval * 1e9), calm)
        if code:
            raise OSError(code, "the memory watcher cannot start")

    def __dealloc__(self):
        with nogil:
            watcher_close(&self._state)

    cdef int _check(self) except -1:
        if not self._state.running:
            raise ValueError("the watcher is closed")
        return 0

    def fileno(self):
        """Readable when `take` has news; `take` makes it unreadable."""
        self._check()
        return self._state.news

    def watch(self, int64_t key, int pid, int64_t low, int64_t high):
        """Watch a process from now on, under a key of the caller's other than 0.

        It is news when it holds more than `high` bytes, or less than `low` for a while.
        """
        self._check()
        if key == 0:
            raise ValueError("key 0 is none")
        cdef int code
        with nogil:
            code = watcher_watch(&self._state, key, pid, low, high)
        if code:
            raise OSError(code, f"process {pid} cannot be watched")

    def bound(self, int64_t key, int64_t low, int64_t high):
        """Give a process new bounds, and look at it again if it was news. No effect on a key that is not watched."""
        self._check()
        with nogil:
            watcher_bound(&self._state, key, low, high)

    def forget(self, int64_t key):
        """Watch a process no more. No effect on a key that is not watched."""
        self._check()
        with nogil:
            watcher_forget(&self._state, key)

    def take(self):
        """Return ``(key, bytes)`` of each process that has left its bounds; it is silent until `bound` gives it new ones."""
        self._check()
        try:
            os.eventfd_read(self._state.news)
        except BlockingIOError:
            pass
        cdef int64_t key, held = 0
        found = []
        while True:
            with nogil:
                key = watcher_take(&self._state, &held)
            if key == 0:
                return found
            found.append((key, held))

    def close(self):
        """End the thread. Idempotent."""
        with nogil:
            watcher_close(&self._state)
