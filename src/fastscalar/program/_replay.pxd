# What a replay holds.  Private, not an API.

from fastscalar._core cimport fs_rule
from fastscalar.program._kernels cimport fs_batch, fs_pace, fs_step
from fastscalar.program._plan cimport Plan
from fastscalar.program.plan cimport *

ctypedef const double *Row_
ctypedef Row_[16] Rows16

ctypedef fused real:
    float
    double

cpdef enum RowStatus:       # bits; none: its number is to be used
    GUARD_FAILED = 1        # a guard does not hold
    MAY_RAISE = 2           # something in it may have raised
    ORDER_MATTERS = 8       # the order of additions decides what it is: its numbers come from a plain plan

cdef enum:
    TRAIN = 4               # a mode beside PARAMETERS and ARGUMENTS: weights take their step at once
    GROUP = 64              # rows whose sparse entries are transposed together: their gradients stay in the L1 cache
    FEW_ROWS = 4            # up to so many rows, or columns of a matrix, weights are updated row by row:
    FEW_COLUMNS = 32        # MNIST, Linear(784, 10), batches of 64, float32: 0.8 instead of 1.1 us a sample

ctypedef struct Input:
    const double *data      # of an array or of numbers; rows side by side
    const long long *whole  # whole numbers
    const void *own         # the same in numbers of the replay's type, or NULL: single rows are read where they lie
    Py_ssize_t width        # numbers in a row of an array
    bint dense              # its columns are read too
    bint forced             # for now, since a product has weights that are not finite
    bint finite             # no number of it is infinite or NaN, as far as products read it
    const Py_ssize_t *begin  # sparse rows, if not NULL: where each part of each row begins
    const int *column
    const void *value
    const int *border       # part t of a row: columns border[t] to border[t + 1]
    bint transposed         # they are wanted column by column; for each thread, those of its parts of a GROUP:
    int *start
    int *row_of
    void *entry
    double *gradient        # where gradients by this argument go, row by row; or NULL
    bint read               # a number: it has a gradient
    int *slot               # by column, its slot, -1; NULL: its run is read
    int *adjoint            # and the place of its gradient, -1: it has none
    int n_columns           # up to the last that has a slot

ctypedef struct Segment:    # captured leaves that lie side by side on the tape and in the block
    int capture
    int offset
    int address
    int count


ctypedef struct Stretch:    # of them, `count` that lie side by side on the tape, then `count` more, `repeats` times
    int node                # of the first
    int address             # in the block
    int count
    int step                # from one to the next, in the block
    int repeats
    int shift               # from the first of a row of them to the first of the next, in the block
    int array               # slot of the array of leaves that they are of; -1: single leaves
    bint trained
    bint whole              # the first stretch of an array of which all is captured and trained

ctypedef struct StepList:   # the elementwise part of a plan, see `steps.pxd`
    fs_step *steps          # owned; NULL: not resolved
    int n
    int room
    Birth *new              # while it is written: (first, count) of gradients that nothing was added to yet; owned
    int n_new
    int new_room

cdef class Replay:
    cdef readonly Plan plan
    cdef readonly int batch, chunk, threads
    cdef readonly int parts          # of the columns of sparse rows
    cdef readonly bint float64
    cdef const fs_batch *kernels
    cdef size_t size                 # of a number
    cdef list blocks                 # what is to be freed: addresses as whole numbers
    cdef list margins                # checked build: the ends of blocks, where nothing may be written
    cdef char *uniform               # uniform numbers,
    cdef char *uniform_adjoint       # and their gradients,
    cdef char *own_adjoint           # in this memory, if they are in an array now
    cdef object gradient_array
    cdef char *run_value             # rows of runs
    cdef char *run_adjoint
    cdef char **slot_value           # by thread: [slot][row] of a chunk
    cdef char **slot_adjoint
    cdef char **scratch              # by thread, for one kernel at a time: a number for each row of a chunk, or a row
    #                                  of inputs and their places
    cdef char **patches              # by thread: a padded image, patches of some lines, their outputs
    cdef double *zeros               # as many as the widest matrix has columns: a bias
    cdef char *ports                 # by chunk
    cdef double *result              # of each row of the batch, all of them side by side
    cdef const double *seed          # by row of the data, the adjoint of each result; NULL: 1
    cdef unsigned char *status
    cdef unsigned long long stream_seed, epoch   # of what is drawn,
    cdef long long row_offset        # the row of the data set that row 0 is,
    cdef bint antithetic             # whether rows in pairs have mirrored numbers,
    cdef long long *occurrence       # by draw: of its first number
    cdef dict counts                 # by site, what was drawn before
    cdef const int *counter_of       # of the body of a loop: by draw, the place in input 0 of how many were drawn there
    cdef const long long *row_numbers    # of the data set, by row; NULL: row_offset and what follows it
    cdef Input *input
    cdef int n_inputs
    cdef unsigned char *direct       # by run: an input whose columns go to slots and nowhere else, each to one: where
    #                                  there is more than one row, nothing is in the run
    cdef list held                   # arrays that `input` points into
    cdef StepList[2] forward_list    # for many rows, for one
    cdef StepList[8] backward_list   # the same; by mode
    cdef Segment *segments
    cdef Py_ssize_t n_segments
    cdef Stretch *stretches          # where `nodes` says that they are now
    cdef Py_ssize_t n_stretches
    cdef unsigned char *fused        # by matrix: it takes its step where its gradient is computed
    cdef unsigned char *unfit        # by matrix: a program's own loop must not step over zeros, it is not all finite
    cdef bint prepared               # for training: `fused`, `loose` and `steps` are set
    cdef double decay                # of fused matrices, each step takes rate * decay of them; see `weights.pxd`
    cdef unsigned char *lazy         # by matrix: its numbers are `shrunk` times what is stored
    cdef double shrunk
    cdef bint by_momentum            # gradients of fused matrices go straight into the momentum,
    cdef double faded                # and theirs is so many times what is stored
    cdef char **turned               # by matrix: its weights in this run, see `turned.pxd`; NULL: they lie as ever
    cdef char **room_to_turn         # and the memory for that, if it was needed
    cdef int *loose                  # (address, count) of uniform numbers that are in no fused matrix
    cdef Py_ssize_t n_loose
    cdef int *steps                  # (address, count) of those among them that are trained
    cdef Py_ssize_t n_steps
    cdef bint ruled                  # an optimiser's rule steps here; else plain SGD
    cdef bint by_rows                # and where fused matrices take their step: in batches of one row
    cdef fs_rule rule
    cdef double clip_norm            # infinity: none
    cdef char *first_kept            # what it keeps of each uniform number, in the places of `uniform`; NULL: nothing
    cdef char *second_kept
    cdef char **state                # the room for these two, if any rule needed it
    cdef long long step              # steps that it has done
    cdef bint uniform_guard_failed, uniform_may_raise, uniform_order_matters
    cdef bint watch                  # whether it says what is ORDER_MATTERS
    cdef bint calls                  # there are instructions that call Python
    cdef unsigned char *looked_at    # by matrix: whether its numbers may be wild:
    cdef int *uniform_terms          # and the terms that have uniform numbers
    cdef Py_ssize_t n_uniform_terms
    cdef bint wild                   # weights are so large, or not finite
    cdef bint whole                  # all rows of the calls that add up gradients have theirs in the sum
    cdef bint first_call, last_call  # of those that add up gradients
    # a run, shared by its threads
    cdef dict begun_loops            # (item, first row of a chunk) -> a loop that has its states for the way back
    cdef object interrupt            # what a callee raised that is no error of a row
    cdef int mode
    cdef const long long *rows       # rows of the data, in their order
    cdef Py_ssize_t n_rows, done, failed_at
    cdef double total_loss
    cdef const double *rates         # by batch
    cdef object nodes                # of the captures their first nodes, as they were after so many collections
    cdef long long nodes_of
    cdef int batch_rows
    cdef double *out_values
    cdef unsigned char *out_status
    cdef Py_ssize_t first            # of the batch under way: its first row,
    cdef int n                       # its rows,
    cdef int shares                  # and in how many shares its weights are cut
    cdef int team                    # threads of this run
    cdef int paced_mode              # mode of the run before,
    cdef fs_pace pace                # and what is known of its speed

    cdef int rows_of_a_chunk(self) except -1
    cdef void *block(self, size_t count, size_t size) except NULL
    cdef int reserve(self) except -1
    cdef int resolve(self, int which, bint one) except -1
    cdef int mark_weights(self) except -1
    cdef int find_segments(self) except -1
    cdef int find_inputs(self) except -1
    cdef int find_columns(self) except -1
    cdef void look_at_weights(self, const Product *p) noexcept nogil
    cdef void look_at_filters(self, const Image *p) noexcept nogil
    cdef int put_others(self, dict others) except -1
    cdef int find_leaves(self) except -1
    cdef void put(self, int address, double value) noexcept nogil
    cdef double get(self, const char *block, int address) noexcept nogil
    cdef int *side_by_side(self, chosen, Py_ssize_t *count) except NULL
    cdef int go_few(self, int mode, const long long *rows, Py_ssize_t n, double *values) except -1
    cdef int go_through(self, int mode, int batch_rows) except -1
    cdef int go(self, int mode, rows, values, status, int batch_rows) except -1
    cdef void settle_all(self) noexcept
    cdef int turn_weights(self) except -1
    cdef char *room_of_state(self, bint keeps, int which) except? NULL
    cdef int copy_state(self, list places, array, char *block, bint into) except -1


cdef bint always_share        # for tests: batches are shared among all threads, also where one would be faster

cdef const fs_batch *batch_kernels(bint float64) noexcept
cdef void run_again(Replay r) noexcept nogil
