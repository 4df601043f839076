# What the C of `kernels/` offers: arithmetic on many rows, and the pool of threads.  Private, not an API.
#
# It is linked into `_replay` alone; another module that needs a kernel asks there (`batch_kernels`).

cdef extern from "batch.h":
    enum:
        FS_VECTORS
        FS_A_IS_ONE
        FS_B_IS_ONE
        FS_MUL
        FS_SQUARE
        FS_MAXIMUM
        FS_NEG
        FS_SUB
        FS_DIV
        FS_STEP_LEAVE
        FS_STEP_BINARY
        FS_STEP_NEG
        FS_STEP_SQUARE
        FS_STEP_SUM
        FS_STEP_COPY
        FS_STEP_UNARY
        FS_STEP_OTHER
        FS_STEP_OTHER_RIGHT
        FS_STEP_TOTAL
        FS_STEP_DOT
        FS_STEP_ZERO
        FS_TERM
        FS_TERM_LESS
        FS_TERM_SCALED
        FS_TERM_PRODUCT
        FS_TERM_LESS_PRODUCT
        FS_TERM_NUMBER
        FS_STEP_SEND
        FS_SEND_PLUS
        FS_SEND_MINUS
        FS_SEND_TIMES
        FS_SEND_LESS_TIMES
        FS_SEND_SCALED
        FS_SEND_LESS_SCALED
        FS_SEND_OVER
        FS_SEND_OVER_ONE
        FS_SEND_OVER_RIGHT
        FS_SEND_OF_SQUARE
        FS_SEND_COPIED
        FS_SEND_ALL_TO_ONE
        FS_N_OPERATIONS         # others of its enumeration go by their names
    const char *fs_operation_name(int op) noexcept nogil
    void fs_fetch(const void *p, size_t bytes) noexcept nogil
    ctypedef struct fs_step:
        short code
        signed char mode
        unsigned char base[5]
        int op
        int count
        int at[5]
    ctypedef struct fs_batch:
        const char *name
        int width
        void (*load_rows)(void *, Py_ssize_t, const double *const *, int, int) noexcept nogil
        void (*load_columns)(void *, Py_ssize_t, const double *, Py_ssize_t, const long long *, int, const int *,
                             int) noexcept nogil
        int (*store_columns)(double *, Py_ssize_t, const long long *, int, const int *, int, const void *,
                             Py_ssize_t) noexcept nogil
        int (*compress)(int *, void *, const double *, int) noexcept nogil
        void (*sparse_affine)(void *, Py_ssize_t, const void *, const void *, Py_ssize_t, int, int,
                              const int *const *, const void *const *, const int *, int) noexcept nogil
        void (*dense_affine)(void *, Py_ssize_t, const void *, const void *, Py_ssize_t, int, int,
                             const void *, Py_ssize_t, int, int) noexcept nogil
        void (*sparse_transpose)(int *, int *, void *, int, int, int, const int *const *, const void *const *,
                                 const int *) noexcept nogil
        void (*sparse_update)(void *, Py_ssize_t, double, int, const int *, const int *, const void *, int, int,
                              const void *, Py_ssize_t) noexcept nogil
        void (*sparse_update_one)(void *, Py_ssize_t, double, int, const int *, const void *, int,
                                  const void *) noexcept nogil
        void (*dense_update)(void *, Py_ssize_t, double, double, int, int, const void *, Py_ssize_t, int,
                             const void *, Py_ssize_t) noexcept nogil
        void (*narrow_affine)(void *, const void *, const void *, Py_ssize_t, int, const void *, int) noexcept nogil
        void (*narrow_update)(void *, Py_ssize_t, double, int, const void *, int, const void *) noexcept nogil
        void (*input_gradient)(void *, Py_ssize_t, const void *, Py_ssize_t, int, int, int, const void *,
                               Py_ssize_t, int) noexcept nogil
        double (*sparse_dot)(const int *, const void *, int, const void *) noexcept nogil
        void (*sparse_add)(void *, double, const int *, const void *, int) noexcept nogil
        void (*binary)(int, int, void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*binary_backward)(int, int, void *, void *, const void *, const void *, const void *, const void *,
                                Py_ssize_t) noexcept nogil
        void (*unary)(int, void *, const void *, Py_ssize_t) noexcept nogil
        void (*unary_backward)(int, void *, const void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*where)(int, int, void *, const void *, const void *, const void *, const void *,
                      Py_ssize_t) noexcept nogil
        void (*where_backward)(int, int, int, void *, const void *, const void *, const void *,
                               Py_ssize_t) noexcept nogil
        void (*first_failure)(int, int, int, void *, const void *, const void *, double, Py_ssize_t) noexcept nogil
        void (*better)(int, int, void *, void *, const void *, double, Py_ssize_t) noexcept nogil
        void (*best)(int, void *, void *, const void *, Py_ssize_t, int, int) noexcept nogil
        int (*not_finite)(const void *, Py_ssize_t) noexcept nogil
        int (*beyond)(const void *, Py_ssize_t) noexcept nogil
        int (*forward_steps)(const fs_step *, int, void *const *, Py_ssize_t) noexcept nogil
        int (*backward_steps)(const fs_step *, int, void *const *, Py_ssize_t) noexcept nogil
        void (*add)(void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_scaled)(void *, double, const void *, Py_ssize_t) noexcept nogil
        void (*add_product)(void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_number)(void *, double, Py_ssize_t) noexcept nogil
        double (*sum)(const void *, Py_ssize_t) noexcept nogil
        double (*dot)(const void *, const void *, Py_ssize_t) noexcept nogil
        void (*add_rows)(void *, const void *, Py_ssize_t, int, int) noexcept nogil
        void (*transpose)(void *, Py_ssize_t, const void *, Py_ssize_t, int, int, int) noexcept nogil
        void (*softmax)(void *, Py_ssize_t, void *, const void *, Py_ssize_t, int, int) noexcept nogil
        void (*patches)(void *, const void *, Py_ssize_t, int, int, int, Py_ssize_t, int, Py_ssize_t) noexcept nogil
        void (*add_patches)(void *, const void *, Py_ssize_t, int, int, int, Py_ssize_t, int,
                            Py_ssize_t) noexcept nogil
        void (*max_pool)(void *, void *, const void *, Py_ssize_t, int, int, int, int, int, int) noexcept nogil
        void (*add_pool)(void *, const void *, const void *, Py_ssize_t, int, int, int, int, int) noexcept nogil
    const fs_batch *fs_batch_select(const char *name, int float64) noexcept nogil

cdef extern from "pool.h":
    ctypedef void (*fs_task)(void *context, int thread, int item) noexcept nogil
    ctypedef struct fs_pace:
        int together
    int fs_pool_reserve(int helpers) noexcept nogil
    void fs_pool_run(fs_task task, void *context, int items, int threads) noexcept nogil
    void fs_pool_forget() noexcept nogil
    int fs_pool_size() noexcept nogil
    void fs_pool_refuse(int threads) noexcept nogil
    void fs_pace_begin(fs_pace *pace) noexcept nogil
    int fs_pace_together(fs_pace *pace) noexcept nogil
    void fs_pace_note(fs_pace *pace, double seconds, double rows) noexcept nogil
    double fs_seconds() noexcept nogil
