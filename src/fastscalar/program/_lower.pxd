# cython: language_level=3, wraparound=False, cdivision=True
# What the passes from a graph to its plan share: the nodes in columns, and what has become of them.
# Private, not an API.

from fastscalar._core cimport *
from fastscalar.program._graph cimport *
from fastscalar.program._plan cimport Plan
from fastscalar.program.ints cimport *
from fastscalar.program.plan cimport *

cdef enum:
    SQUARE = X_SQUARE
    COPY = X_COPY
    C_CONSTANT = 0           # what a node depends on: nothing,
    C_UNIFORM = 1            # captured leaves and arguments that all rows share,
    C_PER_ROW = 2               # the row
    SHORT_SUM = 4            # with fewer terms a sum stays binary
    SMALL_PRODUCT = 16       # with fewer weights a matrix product stays a sum
    NOWHERE = 0              # where a node is
    SLOT = 1
    ROWS = 2
    UNIFORM = 3


cdef class LoweredItem:              # an item of the graph, and what has become of it
    cdef str kind
    cdef int first                   # its nodes
    cdef int outputs
    cdef object x                    # nodes that it reads; of a gather those that it chooses from
    cdef object weights              # affine, else None: nodes, inputs x outputs, or 1 x 1: a block
    cdef object bias                 # likewise
    cdef object place                # of a gather by a computed index: its node, in an array; else None
    cdef int argument                # the input that chooses, a label or an index; -1
    cdef int label                   # of a cross_entropy without one
    cdef int comparison              # of a where
    cdef object callee               # of a call
    cdef tuple geometry              # of a conv2d and a max_pool2d: `patches.Geometry`, height and width of what comes
    cdef unsigned char mask          # gradients that flow through it
    cdef int matrix                  # where the weights lie, or all that a gather chooses from; -1
    cdef int bias_matrix             # -1: there is none


cdef class ProductGroup:             # sums that become one product
    cdef bytes key                   # their inputs' nodes
    cdef list sums
    cdef list rows                   # by sum: its weights' nodes, as bytes
    cdef object x                    # from here on of the product: its inputs' nodes,
    cdef object weights              # inputs x outputs,
    cdef object bias
    cdef list outputs                # and its own
    cdef int level                   # -1: not known yet
    cdef int matrix
    cdef int bias_matrix


cdef class Lowering:
    cdef Plan plan
    cdef Py_ssize_t n                        # nodes of the graph
    cdef Py_ssize_t more                     # and outputs of products that have no node of their own
    cdef int[::1] op, a, b, rep, uses, level, where, at, run, copy, node_matrix, sum_of, item_level
    cdef unsigned char[::1] depends, live, pinned, gone, mask, stopped
    cdef unsigned char[::1] signless         # is never -0.0
    cdef unsigned char[::1] exact            # a decision reads it: computed as the engine does it, nothing is fused
    cdef unsigned char[::1] kept             # in a plain plan: stays uniform, weights of layers are computed of it
    cdef unsigned char[::1] merged           # stands for several operations that the function did
    cdef bint plain
    cdef double[::1] value
    cdef Ints p, q, sign                     # terms of the sums, q: -1 of a plain one
    cdef Ints first, root, group             # by sum: first term, node, group of products or -1
    cdef Ints zeros                          # by sum: whether 0.0 is added, which only shows if all else is -0.0
    cdef Ints direct                         # by sum: the product's output is the sum; else its node, or -1
    cdef list items                  # of LoweredItem
    cdef list groups                 # of ProductGroup; None: too small to be a product
    cdef list input_kinds, input_sizes, counts
    cdef dict tables                 # what became of the operands of items
    cdef dict known_items            # gathers, by table and index, maxima, by operands: the first output
    cdef int[::1] twin               # by item: first output of an earlier one that is the same, -1
    cdef set raising                 # sums that have squares in them which may overflow
    cdef dict matrices               # (nodes, matrix) by shape and checksum
    cdef dict packs                  # runs, by the nodes that were packed
    cdef object shared
    cdef list trained                # by capture, or None
    cdef unsigned char[::1] wanted   # all of them, one after the other,
    cdef Py_ssize_t[::1] begin       # and where each begins
    cdef int next_address, next_slot, zero
    cdef Ints constant_nodes

    cdef int load(self, graph, shared, trained, sizes) except -1
    cdef int new_node(self, int op) except -1
    cdef int finish(self, graph) except -1
    cdef int finish_block(self, int i) except -1


cdef object np, crc32        # for the passes, which import nothing
cdef int[256] FAST           # code of the table -> operation of the kernels, -1
cdef dict BEST, NAMES        # by name: codes of maxima; by code: names of operations


cdef inline object ints_array(Ints *m):
    out = np.empty(m.n, np.int32)
    cdef int[::1] view = out
    cdef Py_ssize_t k
    for k in range(m.n):
        view[k] = m.at[k]
    return out


cdef inline LoweredItem item_of(Lowering low, int node):
    return low.items[low.a[node]]


cdef inline list arrays_of(LoweredItem item):
    """The arrays of nodes that an item reads."""
    return [nodes for nodes in (item.x, item.weights, item.bias, item.place) if nodes is not None]
