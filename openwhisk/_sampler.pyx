# cython: language_level=3
"""`Sampler`: the most anonymous memory that this process held while it was being watched.

A native thread reads ``/proc/self/statm`` (one ``pread``) about every 2 ms; resident minus shared pages is RssAnon, and private
writable memory, touched or not, is VmData. It never takes the GIL, and it sleeps on a condition variable while nothing is watched.
"""

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
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
    #include <unistd.h>

    #define SAMPLER_STACK (64 * 1024)

    typedef struct {
        pthread_t thread;
        pthread_mutex_t mutex;
        pthread_cond_t wake;
        int fd;
        int watching;
        int ending;
        long interval_ns;
        int64_t page;
        int64_t peak;
        int64_t peak_data;
        int64_t samples;
    } sampler_t;

    /* size resident shared text lib data …, in pages. -1 if it cannot be read. */
    static int64_t sampler_look(const sampler_t *s, int64_t *data) {
        char text[128], *at;
        ssize_t n = pread(s->fd, text, sizeof text - 1, 0);
        if (n <= 0) return -1;
        text[n] = 0;
        strtoll(text, &at, 10);
        int64_t resident = strtoll(at, &at, 10);
        int64_t shared = strtoll(at, &at, 10);
        strtoll(at, &at, 10);
        strtoll(at, &at, 10);
        *data = strtoll(at, &at, 10) * s->page;
        return resident > shared ? (resident - shared) * s->page : 0;
    }

    static int64_t sampler_read(const sampler_t *s) {
        int64_t data;
        return sampler_look(s, &data);
    }

    static void sampler_note(sampler_t *s) {
        int64_t data = 0, now = sampler_look(s, &data);
        if (now > s->peak) s->peak = now;
        if (data > s->peak_data) s->peak_data = data;
        s->samples++;
    }

    static void *sampler_main(void *argument) {
        sampler_t *s = argument;
        pthread_mutex_lock(&s->mutex);
        while (!s->ending) {
            if (!s->watching) {
                pthread_cond_wait(&s->wake, &s->mutex);
                continue;
            }
            sampler_note(s);
            struct timespec until;
            clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += s->interval_ns;
            until.tv_sec += until.tv_nsec / 1000000000L;
            until.tv_nsec %= 1000000000L;
            pthread_cond_timedwait(&s->wake, &s->mutex, &until);
        }
        pthread_mutex_unlock(&s->mutex);
        return NULL;
    }

    static int sampler_open(sampler_t *s, long interval_ns) {
        memset(s, 0, sizeof *s);
        s->interval_ns = interval_ns;
        s->page = sysconf(_SC_PAGESIZE);
        s->fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
        if (s->fd < 0) return errno;
        pthread_condattr_t condition;
        pthread_condattr_init(&condition);
        pthread_condattr_setclock(&condition, CLOCK_MONOTONIC);
        pthread_mutex_init(&s->mutex, NULL);
        pthread_cond_init(&s->wake, &condition);
        pthread_condattr_destroy(&condition);
        /* Signals are for Python's threads. A small stack: it counts towards RLIMIT_DATA. */
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        pthread_attr_setstacksize(&attributes, SAMPLER_STACK);
        int code = pthread_create(&s->thread, &attributes, sampler_main, s);
        pthread_attr_destroy(&attributes);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        if (code) {
            close(s->fd);
            s->fd = -1;
        }
        return code;
    }

    static void sampler_start(sampler_t *s) {
        pthread_mutex_lock(&s->mutex);
        s->peak = 0;
        s->peak_data = 0;
        s->samples = 0;
        s->watching = 1;
        sampler_note(s);
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->mutex);
    }

    static int64_t sampler_stop(sampler_t *s) {
        pthread_mutex_lock(&s->mutex);
        if (s->watching) sampler_note(s);
        s->watching = 0;
        int64_t peak = s->peak;
        pthread_mutex_unlock(&s->mutex);
        return peak;
    }

    static void sampler_close(sampler_t *s) {
        if (s->fd < 0) return;
        pthread_mutex_lock(&s->mutex);
        s->ending = 1;
        pthread_cond_signal(&s->wake);
        pthread_mutex_unlock(&s->mutex);
        pthread_join(s->thread, NULL);
        pthread_cond_destroy(&s->wake);
        pthread_mutex_destroy(&s->mutex);
        close(s->fd);
        s->fd = -1;
    }
    """
    ctypedef struct sampler_t:
        int fd
        int64_t peak_data
        int64_t samples
    int sampler_open(sampler_t *s, long interval_ns) nogil
    void sampler_start(sampler_t *s) nogil
    int64_t sampler_stop(sampler_t *s) nogil
    void sampler_close(sampler_t *s) nogil
    int64_t sampler_read(const sampler_t *s) nogil


cdef class Sampler:
    """Watches this process's anonymous memory.

    Parameters
    ----------
    interval
        Seconds between two samples.

    Notes
    -----
    Not usable after ``fork``: make one in the child.
    """

    cdef sampler_t _state

    def __cinit__(self, double interval=0.002):
        self._state.fd = -1
        if not 1e-4 <= interval < 1.0:
            raise ValueError("interval must be at least 0.1 ms and below 1 s")
        cdef int code = sampler_open(&self._state, <long>(interval * 1e9))
        if code:
            raise OSError(code, "the memory sampler cannot start")

    def __dealloc__(self):
        with nogil:
            sampler_close(&self._state)

    def start(self):
        """Begin to watch."""
        if self._state.fd < 0:
            raise ValueError("the sampler is closed")
        with nogil:
            sampler_start(&self._state)

    def stop(self):
        """Stop watching; return the peak in bytes since `start`, the moments of start and stop included."""
        if self._state.fd < 0:
            raise ValueError("the sampler is closed")
        cdef int64_t peak
        with nogil:
            peak = sampler_stop(&self._state)
        return peak

    def read(self):
        """Anonymous memory now, in bytes."""
        if self._state.fd < 0:
            raise ValueError("the sampler is closed")
        return sampler_read(&self._state)

    @property
    def peak_data(self):
        """The most VmData (what RLIMIT_DATA limits) that the last watch saw, in bytes."""
        return self._state.peak_data

    @property
    def samples(self):
        """How many samples the last watch took."""
        return self._state.samples

    def close(self):
        """End the thread. Idempotent."""
        with nogil:
            sampler_close(&self._state)
