# cython: language_level=3
"""A lock that holds up when a process forks."""

import os
import threading

cdef int forks = 0               # from the process that imported this to the one that we are in


cdef class Lock:
    """A re-entrant lock that a child process after fork finds open if it was held by a thread that is not there.

    Compiled, so that no interrupt comes between taking the lock and the block that gives it back."""
    cdef object lock
    cdef int forks

    def __cinit__(self):
        self.lock, self.forks = threading.RLock(), forks

    def __enter__(self):
        if self.forks != forks:
            self.forks = forks
            if self.lock.acquire(False):         # it was free, or held by the thread that forked
                self.lock.release()
            else:
                self.lock = threading.RLock()
        self.lock.acquire()

    def __exit__(self, *error):
        self.lock.release()


def count_fork():
    """In the child process."""
    global forks
    forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=count_fork)
