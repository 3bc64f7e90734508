# cython: language_level=3
"""`Sampler`: how much anonymous memory this process held while it was being watched.

A native thread reads ``/proc/self/statm`` (one ``pread``) about every 2 ms; resident minus shared pages is RssAnon, and private
writable memory, touched or not, is VmData. It never takes the GIL, and it sleeps on a condition variable while nothing is watched.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include "looker.h"
    #include <fcntl.h>
    #include <string.h>

    typedef struct {
        struct looker looker;
        int fd;
        int64_t peak;
        int64_t peak_data;
        int64_t samples;
        int64_t last;
        struct timespec since;
        double seconds, byte_seconds;
    } sampler_t;

    static void sampler_note(void *sampler) {
        sampler_t *s = sampler;
        int64_t data = 0, now = looker_read(&s->looker, s->fd, &data);
        struct timespec time;
        clock_gettime(CLOCK_MONOTONIC, &time);
        if (now < 0) now = s->last;
        if (s->samples) {
            double passed = (double)(time.tv_sec - s->since.tv_sec) + 1e-9 * (double)(time.tv_nsec - s->since.tv_nsec);
            s->seconds += passed;
            s->byte_seconds += passed * 0.5 * (double)(now + s->last);
        }
        s->last = now;
        s->since = time;
        if (now > s->peak) s->peak = now;
        if (data > s->peak_data) s->peak_data = data;
        s->samples++;
    }

    static int64_t sampler_read(const sampler_t *s) {
        int64_t data;
        return looker_read(&s->looker, s->fd, &data);
    }

    static int sampler_open(sampler_t *s, long interval_ns) {
        memset(s, 0, sizeof *s);
        s->fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
        if (s->fd < 0) return errno;
        int code = looker_open(&s->looker, interval_ns, sampler_note, s);
        if (code) {
            close(s->fd);
            s->fd = -1;
        }
        return code;
    }

    static void sampler_start(sampler_t *s) {
        looker_lock(&s->looker);
        s->peak = s->peak_data = s->samples = s->last = 0;
        s->seconds = s->byte_seconds = 0.0;
        sampler_note(s);
        looker_want(&s->looker, 1 - s->looker.wanted);
        looker_unlock(&s->looker);
    }

    static int64_t sampler_stop(sampler_t *s) {
        looker_lock(&s->looker);
        if (s->looker.wanted) sampler_note(s);
        s->looker.wanted = 0;
        int64_t peak = s->peak;
        looker_unlock(&s->looker);
        return peak;
    }

    static void sampler_close(sampler_t *s) {
        if (!looker_close(&s->looker)) return;
        close(s->fd);
        s->fd = -1;
    }
    """
    ctypedef struct sampler_t:
        int fd
        int64_t peak_data
        int64_t samples
        double seconds
        double byte_seconds
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
    def seconds(self):
        """How long the last watch took."""
        return self._state.seconds

    @property
    def byte_seconds(self):
        """The integral of anonymous memory over the last watch, between samples taken as straight."""
        return self._state.byte_seconds

    @property
    def samples(self):
        """How many samples the last watch took."""
        return self._state.samples

    def close(self):
        """End the thread. Idempotent."""
        with nogil:
            sampler_close(&self._state)
