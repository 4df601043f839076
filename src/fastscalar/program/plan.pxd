# The data sheet of plans: what `_lower` writes and `_replay` runs.  Private, not an API.
#
# A plan has three kinds of numbers, of one type R (double or float):
#   uniform   one number for all rows, at an address: captured leaves, numbers in expressions, what is computed of them
#   slots     one number for each row of a chunk, [slot][row]: scalar code
#   rows      n numbers for each row of a batch, [row][column]: inputs, layers' outputs; runs of columns

cdef enum:
    PAD = 16                # columns of a matrix are a multiple of this: 64 bytes of floats, 128 of doubles
    PARAMETERS = 1          # masks: has a gradient by a captured leaf,
    ARGUMENTS = 2           # by an argument

    X_SQUARE = 0x7f         # codes beside those of the operation table: x ** 2,
    X_COPY = 0x7e           # the same number, and no gradient

cdef enum RefKind:
    R_NONE
    R_SLOTS
    R_UNIFORM
    R_ROWS                  # all columns of a run

ctypedef struct Ref:        # n numbers that an instruction reads
    unsigned char kind      # RefKind
    unsigned char mask      # gradients that flow into it
    int start               # slot or address of the first
    int step                # from one to the next: 0, or 1
    int port                # R_UNIFORM in the part for each row: where its gradient is collected (one, or n); -1
    int run                 # R_ROWS
    unsigned char together  # R_SLOTS: their gradients lie side by side too, or it is one
    const int *index        # slots or addresses one by one, instead of start and step; the plan's

cdef enum InstrKind:
    I_ELEMENTS              # n elementwise operations on slots, or on uniform numbers
    I_ROWS                  # one elementwise operation on all columns of a run
    I_SUM                   # n-ary sums of numbers and products: table `sums`, n of one shape from `extra` on
    I_PRODUCT               # rows times a matrix: table `products`
    I_NUMBER                # an input that is a number a row -> slot
    I_RANDOM                # numbers `code`, ... of a draw -> slots, or a run
    I_UNPACK                # columns of a run -> slots
    I_PACK                  # slots, uniform numbers, columns -> a run
    I_CROSS_ENTROPY                  # losses and the like: table `items`
    I_LOGSUMEXP
    I_SOFTMAX
    I_GATHER
    I_WHERE
    I_CALL                  # Python: a run -> a run; table `items`, whose label is the number of the callee
    I_CONV                  # a convolution of an image: table `images`
    I_POOL                  # the greatest numbers in its windows: the same table
    I_BEST                  # max, min, argmax, argmin, by `code`: of a run, or of slots and the like as in I_PACK

ctypedef struct Instr:
    unsigned char kind      # InstrKind
    unsigned char mask      # gradients that flow through its outputs
    unsigned char raises    # an infinite or NaN result may be an error
    unsigned char steep     # an infinite slope may meet a gradient that is a sum of several the function has apart
    signed char op          # of the kernels' enumeration; -1: `code` of the operation table, one by one
    int code
    int n                   # outputs
    int out                 # first slot or address
    int run                 # run of its outputs; -1
    int extra               # index into the table of its kind
    int position            # node of the graph that it computes first, for errors
    Ref a
    Ref b

ctypedef struct Term:       # of an n-ary sum: sign * p * q, or sign * p; in the uniform part `count` side by side
    signed char sign
    unsigned char p_kind    # R_SLOTS, R_UNIFORM
    unsigned char q_kind    # the same, or R_NONE
    unsigned char p_mask
    unsigned char q_mask
    int p
    int q
    int p_port
    int q_port
    int count

ctypedef struct Sum:
    int first               # terms
    int stop
    bint zero               # 0.0 is added too

ctypedef struct Matrix:     # inputs x PAD-ded outputs, at an address
    int base
    int rows
    int cols                # without padding
    int ld                  # 1 if there is one column, a multiple of PAD otherwise
    int uses                # products that read it
    int home                # its elements are captured leaves that lie only here; else it is copied together ...
    int table               # ... from the addresses at tables[table], rows * cols of them
    int only                # nothing but products reads its elements
    int mask

ctypedef struct Product:
    int x                   # run of the inputs
    int first               # their first column
    int matrix
    int bias                # a matrix of one row; -1: none
    int whole_input         # the input that all of the run is, so that sparse rows can stand for it; -1
    bint skips              # a layer: zeros among its inputs count as nothing, also beside weights that are not finite
    bint exact              # a decision reads it: in the order and the rounding of the engine

ctypedef struct Item:
    int x                   # run of the operands
    int saved  # I_CROSS_ENTROPY, I_LOGSUMEXP: run of the softmax; I_GATHER by a computed index: run of the index;
    #                         I_BEST: slot of the place, of argmax and argmin that of the number there
    int argument            # input of the label, of the index; -1
    int label               # if argument is -1: I_CROSS_ENTROPY: the label, I_GATHER: slot of the index
    int count               # I_GATHER: columns of one candidate; I_WHERE: comparison; I_BEST: operands
    bint exact              # as of a Product
    int address             # I_GATHER of uniform candidates: of the first; else -1
    Ref c                   # I_WHERE: a, b are what is compared, c and d what is chosen from
    Ref d

ctypedef struct Image:      # what a convolution or a pool reads; its patches are never all there at once
    int x                   # run of the image
    int first               # its first column
    int matrix              # I_CONV: weights, a row for each number of a patch
    int bias                # -1: none
    int saved               # I_POOL: run of the places of the greatest numbers in their windows
    int height
    int width
    int channels
    int kernel_h
    int kernel_w
    int stride
    int padding
    int out_h
    int out_w
    bint exact              # as of a Product

ctypedef struct Run:
    int n
    int ld
    long base               # columns before it
    unsigned char mask

ctypedef struct Guard:
    int op
    unsigned char kind      # R_SLOTS, R_UNIFORM
    unsigned char other     # the same, R_NONE: compared with `value`
    int p
    int q
    double value


ctypedef struct Result:
    int kind                # R_SLOTS, R_UNIFORM
    int place               # slot or address


ctypedef struct Birth:
    int at
    int count


ctypedef struct Body:       # of a finished plan, for code without the GIL
    Instr *uniform
    Instr *per_row
    Term *terms
    Sum *sums
    Matrix *matrices
    Product *products
    Item *items
    Image *images
    Run *runs
    Guard *guards
    Py_ssize_t n_uniform_instr
    Py_ssize_t n_per_row
    Py_ssize_t n_matrices
    Py_ssize_t n_guards
    int n_slots
    int n_adjoints          # gradients of slots that are there at the same time
    int n_uniform
    int n_ports
    int n_runs
    int n_results
    const Result *results
    const int *adjoint      # by slot: where its gradient is; -1: it has none
    const int *birth_of     # by instruction for each row, n_per_row for the result: its first birth; and one more
    const Birth *births     # gradients that begin, at zero, when the instruction runs backwards
    const int *ports
    const int **table_of
    const int *run_of_input
