/* Number types that stand on the left of one of ours and leave the operation to it at once.
 *
 * Python asks the left operand first.  NumPy's scalars leave it to a type with a higher __array_priority__, but only
 * after they have looked for an attribute that is not there, which makes an exception and takes six times as long as the
 * operation.  Here the operators of such a type get a first line: is the right operand of exactly that type?  Then the
 * answer is NotImplemented, as it would be in the end.  Everything else goes on to the type's own operator.
 *
 * A type is known by its number, since an operator is not told whose it is: there is one function for each. */

#ifndef FS_LEFT_OPERANDS_H
#define FS_LEFT_OPERANDS_H

#include <Python.h>

enum { FS_LEFT_TYPES = 16 };

static PyTypeObject *fs_right; /* the type that they leave operations to */
static PyNumberMethods fs_own[FS_LEFT_TYPES]; /* what they had */
static richcmpfunc fs_own_compare[FS_LEFT_TYPES];

#define BINARY(i, slot)                                                                                                \
    static PyObject *fs_##slot##_##i(PyObject *a, PyObject *b)                                                         \
    {                                                                                                                  \
        if (Py_TYPE(b) == fs_right)                                                                                    \
            Py_RETURN_NOTIMPLEMENTED;                                                                                  \
        return fs_own[i].slot(a, b);                                                                                   \
    }

#define LEFT(i)                                                                                                        \
    BINARY(i, nb_add)                                                                                                  \
    BINARY(i, nb_subtract)                                                                                             \
    BINARY(i, nb_multiply)                                                                                             \
    BINARY(i, nb_true_divide)                                                                                          \
    BINARY(i, nb_floor_divide)                                                                                         \
    BINARY(i, nb_remainder)                                                                                            \
    static PyObject *fs_nb_power_##i(PyObject *a, PyObject *b, PyObject *modulus)                                      \
    {                                                                                                                  \
        if (Py_TYPE(b) == fs_right)                                                                                    \
            Py_RETURN_NOTIMPLEMENTED;                                                                                  \
        return fs_own[i].nb_power(a, b, modulus);                                                                      \
    }                                                                                                                  \
    static PyObject *fs_compare_##i(PyObject *a, PyObject *b, int op)                                                  \
    {                                                                                                                  \
        if (Py_TYPE(b) == fs_right)                                                                                    \
            Py_RETURN_NOTIMPLEMENTED;                                                                                  \
        return fs_own_compare[i](a, b, op);                                                                            \
    }

#define EACH_LEFT(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)

EACH_LEFT(LEFT)

/* From now on `type` leaves operations to `right`; `i`: its number.  Whether it has all operators.  Also a second time. */
static int fs_leave_to(int i, PyTypeObject *type, PyTypeObject *right)
{
    PyNumberMethods *own = type->tp_as_number;
    if (i >= FS_LEFT_TYPES || own == NULL || type->tp_richcompare == NULL || own->nb_add == NULL ||
        own->nb_subtract == NULL || own->nb_multiply == NULL || own->nb_true_divide == NULL ||
        own->nb_floor_divide == NULL || own->nb_remainder == NULL || own->nb_power == NULL)
        return 0;
    fs_right = right;
    if (fs_own_compare[i] != NULL)
        return 1;
    fs_own[i] = *own;
    fs_own_compare[i] = type->tp_richcompare;
#define INSTALL(k)                                                                                                     \
    if (i == k) {                                                                                                      \
        own->nb_add = fs_nb_add_##k;                                                                                   \
        own->nb_subtract = fs_nb_subtract_##k;                                                                         \
        own->nb_multiply = fs_nb_multiply_##k;                                                                         \
        own->nb_true_divide = fs_nb_true_divide_##k;                                                                   \
        own->nb_floor_divide = fs_nb_floor_divide_##k;                                                                 \
        own->nb_remainder = fs_nb_remainder_##k;                                                                       \
        own->nb_power = fs_nb_power_##k;                                                                               \
        type->tp_richcompare = fs_compare_##k;                                                                         \
    }
    EACH_LEFT(INSTALL)
#undef INSTALL
    return 1;
}

#undef BINARY
#undef LEFT
#undef EACH_LEFT

#endif
