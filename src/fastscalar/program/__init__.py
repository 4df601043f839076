"""`fastscalar.compile`: a function of one row is recorded once and replayed over rows.

The boundary: a program knows the engine; it knows nothing of nets.  On the way of a call:

    api                     what a user holds: `compile`, `Program`; `derivatives`, `reports` are its methods
    rows, nests, streams    arguments of many rows; structures of them; what rows draw at random
    recorded, specializations, selections    the recordings of a function, which rows each is for, and which become one
    replayed, called        values and gradients of rows by replays; the function itself for the rest (`_called`)
    sharing, ranks, heartbeat, threads, portions    rows that processes, threads and pieces of work share (`_beats`)

Recording:

    _trace, _items          what the function did, off the tape into a Graph; its array operations
    _graph, reach, ints     the graph as data; whether leaves have a gradient in it; growing lists
    identities, subscripts  what Python's own instructions say of a bool, or of the index of a list
    messages                what errors say, which reads numbers
    loops, rolling, rolled  `fs.loop` and `fs.while_loop`; recorded as one instruction; that instruction
    whole_states            whole numbers in the state of a loop
    repeats, found, composed    loops that nothing says: what repeats, as a body and a count, or a body of many steps
    differentiated          derivatives of loops as loops
    solving                 Newton's method as such a loop, for `fs.implicit`

From a graph to a plan:

    _lower                  the passes: simplify, products, places, emit with operands, gradients
    plan, _plan             the data sheet of plans; plans while they are written; what a `checked` build looks at

Replays:

    _replay                 memory and data; batches, forward, backward, weights (turned, for some), steps,
                            images, leaves, calls and runs are its inline parts
    _one_row, _iterate, _data    a single row, the short way; bodies of loops; sparse rows and what else goes in
    _kernels, kernels/      C: arithmetic on many rows, the pool of threads

Files:

    kept, kept_loops, checks    recordings that outlive their process, and whether what was read holds
    exported, c_code, c_loops, c_prelude    programs as a file of C
"""
