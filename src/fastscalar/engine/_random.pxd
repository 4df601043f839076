# Streams of random numbers, for recordings and replays.  Private, not an API.

cdef enum:
    R_UNIFORM_NUMBER = 0         # kinds, as in `kernels/random.h`
    R_NORMAL_NUMBER = 1
    R_BERNOULLI_NUMBER = 2

ctypedef struct Draw:            # of a program: the numbers of one call
    int kind
    int count
    double p                     # of a bernoulli
    unsigned long long site
    unsigned long long scope     # the loops around it, and their iteration; 0: none
    long long occurrence         # of the first number, in the row and this scope


cdef class Stream:
    cdef readonly unsigned long long seed, epoch, scope
    cdef readonly long long row
    cdef readonly bint antithetic
    cdef dict counts             # by site: how many have been drawn
    cdef bint has_drawn          # for a row before
    cdef dict begun              # what they were when a recording began
    cdef long long take(self, unsigned long long site, long long n) except -1


cdef Stream current()
cdef list streams()
cdef unsigned long long random_key(unsigned long long seed, unsigned long long epoch, unsigned long long site,
                                   unsigned long long scope) noexcept nogil
cdef void random_numbers(double *out, int n, int kind, double p, unsigned long long key, long long row,
                         unsigned long long first, bint antithetic) noexcept nogil
