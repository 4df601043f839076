# cython: language_level=3, auto_pickle=False
"""A sign of life every so often, from a thread that needs no interpreter: a process gives it however busy Python is,
and does not give it when it has been stopped."""

from libc.stdlib cimport free, malloc

cdef extern from *:
    """
    #ifdef _WIN32
    #define FS_BEATS 0
    static int fs_beat(const int *to, int n, int stop, int milliseconds) { return 0; }
    #else
    #define FS_BEATS 1
    #include <poll.h>
    #include <sys/socket.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0     /* Python ignores SIGPIPE */
    #endif
    static int fs_beat(const int *to, int n, int stop, int milliseconds)
    {
        struct pollfd until = {stop, POLLIN, 0};
        do {
            for (int k = 0; k < n; k++)
                (void)!send(to[k], "b", 1, MSG_DONTWAIT | MSG_NOSIGNAL);   /* who is gone is seen where one reads */
            until.revents = 0;
        } while (poll(&until, 1, milliseconds) <= 0);
        return 1;
    }
    #endif
    """
    const bint FS_BEATS
    int fs_beat(const int *to, int n, int stop, int milliseconds) nogil

AVAILABLE = FS_BEATS


def beat(to, int stop, int milliseconds):
    """Send a byte to each of these sockets (file numbers), again and again, until the socket `stop` can be read.

    MemoryError; NotImplementedError where there is none, see AVAILABLE."""
    cdef int n = len(to), k
    if not FS_BEATS:
        raise NotImplementedError("beat: not on this system")
    cdef int *sockets = <int *>malloc((n + 1) * sizeof(int))
    if sockets == NULL:
        raise MemoryError
    for k in range(n):
        sockets[k] = to[k]
    with nogil:
        fs_beat(sockets, n, stop, milliseconds)
    free(sockets)
