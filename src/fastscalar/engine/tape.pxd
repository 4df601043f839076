# The data sheet of the tape: every field, its owner and its invariant.  Private, not an API.
#
# "node" is an index into the columns of the tape, "slot" an index into the table of array operations.

cdef extern from "kernels.h":
    enum:
        FS_RULE_SGD
        FS_RULE_ADAM
        FS_RULE_ADAMW
        FS_RULE_RMSPROP
        FS_RULE_FADED
    ctypedef struct fs_rule:    # see rules.h
        int kind
        int nesterov
        double rate
        double decay
        double momentum
        double beta1
        double beta2
        double eps
        double correction1
        double correction2
        double scale
        double limit
    ctypedef void (*fs_each)(double *out, const double *x, Py_ssize_t sx, Py_ssize_t n) noexcept nogil
    ctypedef void (*fs_each_pair)(double *out, const double *x, Py_ssize_t sx, const double *y, Py_ssize_t sy,
                                  Py_ssize_t n) noexcept nogil
    ctypedef struct fs_kernels:
        const char *name
        int (*compress)(int *row, double *value, const double *x, Py_ssize_t stride, int n) noexcept nogil
        void (*affine)(double *out, const double *b, const double *w, int n,
                       const int *row, const double *x, int nnz) noexcept nogil
        void (*add_outer)(double *a, const int *row, const double *x, int nnz, const double *g, int n) noexcept nogil
        void (*step_outer)(double *w, double lr, const int *row, const double *x, int nnz,
                           const double *g, int n) noexcept nogil
        void (*add_input_gradient)(double *dx, const double *w, const double *g, int m, int n) noexcept nogil
        void (*add)(double *y, const double *x, Py_ssize_t n) noexcept nogil
        void (*step)(double *w, double lr, const double *g, Py_ssize_t n) noexcept nogil
        void (*relu)(double *y, const double *x, Py_ssize_t n) noexcept nogil
        void (*add_relu_gradient)(double *dx, const double *x, const double *g, Py_ssize_t n) noexcept nogil
        void (*rule_double)(const fs_rule *rule, double *w, const double *g, double *s, double *t, Py_ssize_t n,
                            const double *x, Py_ssize_t m) noexcept nogil
        void (*rule_float)(const fs_rule *rule, float *w, const float *g, float *s, float *t, Py_ssize_t n,
                           const float *x, Py_ssize_t m) noexcept nogil
        double (*squares_double)(const double *x, Py_ssize_t n) noexcept nogil
        double (*squares_float)(const float *x, Py_ssize_t n) noexcept nogil
        fs_each (*each)(const char *operation) noexcept nogil
        fs_each_pair (*each_pair)(const char *operation) noexcept nogil
    const fs_kernels *fs_kernels_select(const char *name) noexcept nogil


cdef enum:
    NURSERY = 32768         # nodes; see docs/design/0002
    SLACK = 2               # nodes that may be emitted after one `n < limit` test: a constant and a result
    PORTION = 1 << 26       # multiplications of a Linear between two looks at signals: some 10 ms


# What made a scalar node.  The order of the first four is used: code <= ARRAY_OP has no scalar operands.
cdef enum Code:
    LEAF                    # made by the user
    CONST                   # a number in an expression: a leaf that the user never named
    ARRAY_OP                # one of the run of an array operation
    ADD                     # from here on: rows of the operation table, ADD is the first
    SUB
    MUL
    DIV
    POW
    NEG
    RELU
    EXP
    LOG
    SQRT
    SIN
    COS
    COSH
    TANH
    ABS
    SIGN
    FLOOR
    CEIL
    TRUNC
    SIGMOID
    SOFTPLUS
    MINIMUM
    MAXIMUM
    HYPOT
    COPYSIGN
    FMOD
    MOD
    FLOORDIV
    POLYGAMMA
    SEND                    # in a sweep that is recorded: a gradient times a slope, 0.0 if the gradient is zero
    REMAINDER
    NAMED_CODES             # the operations that no code refers to by name come after it, see `operations.pxd`
    MOST_CODES = 0x7e       # what is from here on has a meaning of its own in plans
    NEW = -1                # in a row: the next free code


# What an array operation does; 0 is a free slot.
cdef enum ArrayCode:
    A_FREE
    A_LEAF                  # an array made by the user, or a result under no_grad
    A_AFFINE                # out = z + x @ y: x inputs, y weights (in, out), z bias
    A_MAP1                  # one unary row of the operation table for every element
    A_MAP2                  # one binary row; an operand of one element goes with every element of the other
    A_SUM                   # each output of the next `inner` of x: ((0.0 + x[0]) + x[1]) + ...
    A_DOT                   # each of the next `inner` of x and y: ((0.0 + x[0] * y[0]) + x[1] * y[1]) + ...
    A_LOGSUMEXP             # log(sum(exp(x)))
    A_SOFTMAX               # exp(x) / sum(exp(x))
    A_SQUARED               # squared_loss(x, y): half the sum of the squared differences
    A_MSE                   # mse_loss(x, y): their mean
    A_CROSS_ENTROPY         # cross_entropy(x, labels)
    A_CUSTOM                # the user's own operation: parents x, its step a Python callable (Attributes.step)
    A_GATHER                # in the recording of a program: block labels[0], of `count` elements, of x
    A_WHERE                # there: x[2] if x[0] `code` x[1] (a comparison of CPython's), else x[3]
    A_BEST                  # max, min, in a recording argmax, argmin, of the next `inner` of x, by `code` (BestCode);
    #                         labels[k]: which element of these output k is
    A_PICK                  # the elements of x once more: a copy, a mask, some rows, arrays joined
    A_PROD                  # each of the next `inner` of x: x[0] * x[1] * ...
    A_CUMSUM                # of each `inner` of x in turn: x[0], x[0] + x[1], ...


cdef enum BestCode:
    BEST_MAX
    BEST_MIN
    BEST_ARGMAX
    BEST_ARGMIN


cdef enum OperandKind:
    NOTHING
    RUN                     # consecutive nodes of one instruction
    INDEX                   # any nodes
    CONSTANT                # numbers
    SPARSE                  # numbers, the non-zero ones of each row
    STRIDED                 # nodes of one instruction as its `layout` has them; `start`: where that begins


ctypedef struct Record:     # 12 bytes a node
    unsigned char op        # Code
    int a                   # scalar: first operand (node; 0: none); array operation: its slot; leaf: when its
    #                         value was last written, a number of tape.writes, 0: never
    int b                   # scalar: second operand (node; 0: none); array operation: offset in its run; leaf: the
    #                         sweep that reached it last, so that it needs neither a mark nor a visit


cdef enum:
    LAYOUT_DIMS = 16        # the dimensions of an output and those that are summed over


ctypedef struct Layout:     # which stored element the k-th of an operand is: loops over it, the last dimension inmost
    int ndim
    Py_ssize_t[LAYOUT_DIMS] shape
    Py_ssize_t[LAYOUT_DIMS] stride       # 0: broadcast
    int first               # STRIDED: if it reads each of consecutive nodes, the first of them, counted from `start`,
    int span                # and how many; 0: it does not


ctypedef struct Operand:
    int kind                # OperandKind
    int count               # elements in it; with a layout: that are stored
    int start               # RUN: first node
    Layout *layout          # RUN, SPARSE: none; owned
    int *index              # INDEX: nodes; SPARSE: columns; owned
    double *value           # CONSTANT, SPARSE: numbers; owned
    int *row                # SPARSE: where each row begins in index and value, and the end; owned


ctypedef struct ArrayOp:
    int op                  # ArrayCode
    int slot                # its own place in the table
    int code                # A_MAP1, A_MAP2: Code; A_BEST: BestCode; A_WHERE: the comparison
    int start               # first node of its run
    int count               # nodes in its run
    int handles             # live Tensors of its nodes  }  with either it stays
    int arrays              # live TensorArrays of it    }
    int rows                # A_LEAF, A_AFFINE, A_CROSS_ENTROPY, A_SQUARED, A_MSE: rows ...
    int cols                # ... and columns of the run, of the outputs, of the logits
    int inner               # A_AFFINE: inputs of one sample; A_SUM, A_DOT, A_BEST, A_PROD, A_CUMSUM: see there
    int *geometry           # A_AFFINE, A_BEST: of the images whose patches x are (`patches.Geometry`), or NULL; owned
    bint dense              # A_AFFINE: `@`, in which 0.0 * inf is NaN and z is nothing
    Operand x
    Operand y
    Operand z
    int *labels   # A_CROSS_ENTROPY: one a row; A_BEST: one an output; A_GATHER: the index; A_WHERE: the outcome; owned
    int argument  # A_CROSS_ENTROPY, A_GATHER: the whole number of a program that it depends on + 1; 0: none, of a
    #                         gather the number y, which the program computes
    int entry                 # A_CUSTOM: its Attributes + 1; 0: none
    double *saved           # of the forward step, as scalar code has it in its nodes; x.count of them; owned.
    #                         A_SQUARED, A_MSE: the differences; A_CROSS_ENTROPY, A_LOGSUMEXP, A_SOFTMAX: the softmax
    size_t bytes            # owned by it outside the columns
    int written             # when a value of its run was last written, a number of tape.writes, 0: never
    bint unrecorded         # in the making, under no_grad: becomes an array of leaves when its values are there
    # collection
    bint alive              # reached by the mark phase; false outside a collection
    int new_start           # where it will lie
    # backward
    bint whole              # every element of the run is reached and reset; false outside a backward
    bint listed             # in the list of instructions to tidy up after this backward
    int partial             # elements reached one by one
    int next_listed         # that list: the next slot, -1 at the end
    int done                # A_AFFINE: rows whose step is done, while the sweep stands in it; else 0
    # A_LEAF only: gradients.  A row that is not touched has gradient exactly 0.0 in memory.
    unsigned char *touched  # one byte a row; owned
    int *touched_rows       # the touched ones in the order of touching; owned
    int n_touched
    int factored            # >= 0: no row is touched and the gradient is the outer product of this many f_x with f_g
    int *f_row              # room for `rows`, or NULL while no Linear has used the array; owned
    double *f_x             # the same
    double *f_g             # room for `cols`


ctypedef struct Write:      # a moment at which `.data` was assigned to
    int number              # its name; ascending; the next entry's number ends what goes by this one
    int at                  # how long the tape was: nodes from here on are younger


ctypedef struct Shift:      # a stretch of nodes that one thread has made, up to the next one
    const void *thread      # CPython's state of it; kept while others run
    int first


ctypedef struct Attributes:        # attributes that a user set on a node
    void *tensor            # its Tensor (owned): alive as long as the node is
    void *attributes        # dict (owned)
    void *gradient          # Tensor (owned): the gradient as backward(create_graph=True) recorded it, or NULL
    void *step              # the `_backward` that the user gave a A_CUSTOM node (owned), or NULL
    int written             # of a scalar node that is no leaf: as ArrayOp.written


ctypedef struct Tape:
    # columns, indexed by node; node 0 is no node (value NaN), so that every operand index is valid
    double *value
    double *grad            # zero from `fresh` on
    void **handle           # the one live Tensor of a node, not owned, or NULL; zero from `fresh` on
    Record *record
    unsigned char *mark     # backward, collection: reached; zero outside them
    unsigned char *mark64   # summary levels of `mark`: one byte for 64 nodes,
    unsigned char *mark4k   # for 4,096
    unsigned char *mark256k  # and for 262,144; used by backward only
    Py_ssize_t n            # nodes on the tape
    Py_ssize_t limit        # a scalar operation that finds n >= limit goes through the safepoint
    Py_ssize_t capacity     # nodes that the columns have room for; limit + 2 <= capacity
    Py_ssize_t fresh        # grad and handle were never written from here on
    Py_ssize_t young        # where the nursery begins
    # collection
    Py_ssize_t promoted     # nodes that left the nursery since the last full collection
    Py_ssize_t old_alive    # scalar and computed nodes that it left in the old part
    size_t young_bytes      # owned by array operations made since the last collection
    size_t old_bytes        # owned by those that have left the nursery since the last full collection
    size_t old_bytes_alive  # owned by those that the last full collection left
    int locked              # > 0: no collection (indices are held while Python may run)
    int *scratch            # new places of scalar nodes during a collection
    Py_ssize_t scratch_size
    long long collections   # counters, for tests and `tape_info`
    long long full_collections
    # values that were written: see "a value changed in between"
    Py_ssize_t written      # tape.writes[n_writes - 1].at, or 0: what is younger was computed after every write
    int moment              # number of the last write
    Write *writes
    int n_writes
    int write_room
    # array operations
    ArrayOp **array_ops     # by slot; the structs never move
    int *free_slots
    int n_array_ops         # slots in use or free
    int n_free
    int array_op_capacity
    double *work            # scratch memory of the kernels, see `reserve_work`
    int *work_int
    size_t work_size
    size_t work_int_size
    # attributes
    Attributes *attributes  # by Tensor.entry - 1
    int *free_attributes
    int *young_attributes   # of nodes in the nursery
    void **weak_roots       # during a collection: handles that are no roots
    int n_weak_roots
    int weak_root_capacity
    int n_steps             # attributes with a step
    int *pending            # attributes of dead nodes, to release when the tape is consistent
    int n_attributes
    int n_free_attributes
    int n_young_attributes
    int n_pending
    int attributes_capacity
    int n_recorded          # attributes with a gradient
    # backward
    bint sweeping           # in a backward
    bint accumulate         # the gradients of leaves are kept
    int number              # of this sweep, from 1
    unsigned long owner     # thread that is in it
    int first_listed        # instructions to tidy up: a slot, -1 is none
    int custom              # A_CUSTOM node whose step is to be called next; 0: none
    int at                  # where the sweep stands while Python may run; 0 when it is done
    # modes
    Shift *shifts           # while programs are recorded: which thread has made the nodes, in turn
    int n_shifts
    int shift_room
    int no_grad_threads     # threads in no_grad
    bint stress             # every safepoint collects and moves everything
    int anomaly_blocks      # open detect_anomaly blocks
    int *source             # by node: where it was recorded, a number that `locate` gave, 0: before; NULL: not noted
    Py_ssize_t max_nodes    # 2**31 - 1, less in a test
    void *tensor_type       # Tensor
    long long requests_left  # of memory, before one is refused, for a test; -1: none is


ctypedef double (*Unary)(double) noexcept nogil
ctypedef double (*Derivative1)(double, double) noexcept nogil
ctypedef double (*Binary)(double, double) noexcept nogil
ctypedef double (*Derivative2)(double, double, double) noexcept nogil

cdef enum InfinityMeans:
    NO_ERROR
    POLE                    # ValueError
    TOO_LARGE               # OverflowError

cdef enum RowKind:
    OPERATOR                # of Python's syntax
    METHOD                  # a method of Tensor and TensorArray of this name
    OF_MATH                 # and a function of `fastscalar.math`, which has all methods that Python's `math` has too
    FUNCTION                # and a function of `fastscalar`

cdef enum Reads:
    READS_NOTHING = 0
    READS_A = 1             # the left operand
    READS_B = 2             # the right one
    READS_V = 4             # the result

ctypedef struct Row:        # of the operation table
    const char *name
    const char *doc         # what it gives, where it raises, what its derivative is at a kink
    int arity
    int infinity            # InfinityMeans
    int kind                # RowKind
    const char *domain      # where it has a value, a condition in x and y; empty: everywhere
    const char *rule_a      # the derivative by the left and by the right operand as an expression in Tensors
    const char *rule_b
    bint never_raises       # whatever the operands are
    bint divides            # right operand 0 is a ZeroDivisionError
    int reads_a             # what the derivative by the left and by the right operand reads: Reads
    int reads_b
    Unary f                 # arity 1: value, derivative
    Derivative1 d
    Binary f2               # arity 2: value, derivatives by the left and the right operand
    Derivative2 da
    Derivative2 db
    fs_each each            # of arrays: of the set of kernels in use, or NULL
    fs_each_pair each_pair
