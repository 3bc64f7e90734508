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
    #include "looker.h"
    #include <fcntl.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/eventfd.h>

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
        struct looker looker;
        int news;
        int patience;
        watched_t *places;
        int count;
    } watcher_t;

    static void watcher_round(void *watcher) {
        watcher_t *w = watcher;
        int news = 0;
        for (int i = 0; i < w->count; i++) {
            watched_t *p = &w->places[i];
            int64_t data;
            if (!p->key || p->told) continue;
            int64_t held = looker_read(&w->looker, p->fd, &data);
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

    static int watcher_open(watcher_t *w, long interval_ns, int patience) {
        memset(w, 0, sizeof *w);
        w->patience = patience;
        w->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (w->news < 0) return errno;
        int code = looker_open(&w->looker, interval_ns, watcher_round, w);
        if (code) {
            close(w->news);
            w->news = -1;
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
        looker_lock(&w->looker);
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
            looker_want(&w->looker, 1);
        } else {
            code = ENOMEM;
            close(fd);
        }
        looker_unlock(&w->looker);
        return code;
    }

    static void watcher_bound(watcher_t *w, int64_t key, int64_t low, int64_t high) {
        looker_lock(&w->looker);
        watched_t *p = watcher_find(w, key);
        if (p) {
            p->low = low;
            p->high = high;
            p->calm = 0;
            p->told = 0;
        }
        looker_unlock(&w->looker);
    }

    static void watcher_forget(watcher_t *w, int64_t key) {
        looker_lock(&w->looker);
        watched_t *p = watcher_find(w, key);
        if (p) {
            close(p->fd);
            p->key = 0;
            looker_want(&w->looker, -1);
        }
        looker_unlock(&w->looker);
    }

    /* One process that is outside of its bounds: its key, and what it holds. 0 where there is none. It is silent until it has new bounds. */
    static int64_t watcher_take(watcher_t *w, int64_t *held) {
        int64_t key = 0;
        looker_lock(&w->looker);
        for (int i = 0; i < w->count && !key; i++) {
            watched_t *p = &w->places[i];
            if (p->key && p->told == 1) {
                p->told = 2;
                *held = p->held;
                key = p->key;
            }
        }
        looker_unlock(&w->looker);
        return key;
    }

    static void watcher_close(watcher_t *w) {
        if (!looker_close(&w->looker)) return;
        for (int i = 0; i < w->count; i++)
            if (w->places[i].key) close(w->places[i].fd);
        free(w->places);
        w->places = NULL;
        w->count = 0;
        close(w->news);
        w->news = -1;
    }
    """
    struct looker:
        int running
    ctypedef struct watcher_t:
        looker looker
        int news
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
        if not self._state.looker.running:
            raise ValueError("the watcher is closed")
        return 0

    def fileno(self):
        """Readable when `take` has news, and sometimes when it had them already; `take` makes it unreadable."""
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
