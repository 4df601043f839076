"""The engine: the tape below `fastscalar._core`, and the arrays beside it.  It knows no programs, transforms and nets.

The boundary.  `_core` is Tensor, its operators, making nodes, `no_grad` and the backward sweep.  It keeps the one tape,
which the GIL protects; only it and what it cimports write to it.  Code that holds an index or a pointer into it obeys
the safepoint rule at the head of `_core.pyx`.

Inline parts, `cdef inline` functions that are compiled into the module that cimports them:

    tape            the data sheet: structs, enums, ownership
    memory          requests, columns
    array_ops       the table of array operations, their operands, gradients of array leaves, scratch memory
    collect, roots  the collector; handles that keep nothing alive
    attributes      what users set on Tensors; recorded gradients
    writes          values that were written after something read them
    operations      the operation table: one row an operation
    formulas        value and derivative of each
    errors          what operations raise
    names           what they are called
    marks           what a backward pass reaches
    array_forward, array_backward    what array operations compute; their backward steps
    checked         what a checked build looks at
    passed          operands of a node one by one, and which of them it passes a gradient to
    parents, numbers, threads    what a node was made of; numbers beside Tensors; what a thread is in
    shifts, observers            which thread made which nodes; blocks of detect_anomaly

Modules, from the bottom up:

    _traced         whole numbers and comparisons in the recording of a program
    _functions      rows of the table: to be read, and as functions and methods of Tensor
    _modes, _lock   modes of a thread that other rooms use; a lock that survives a fork
    _array          TensorArray; `_operands` makes operands of objects, `_array_ops`, `_axes` instructions of operands
    _random         streams of random numbers by counter
    _step, _rules   parameters and plain SGD; the rules of the other optimisers
    _inspect        looks at the graph, for transforms and debug
    _anomaly        what detect_anomaly looks at
    testing         hooks for tests
    _images         convolutions and pools; `patches`, which elements they read
    views           `.data` and `.grad` of arrays, Python
    kernels         C: loops over plain arrays, one set for each kind of CPU
"""
