/* Elementwise operations on slots one after the other, for numbers of type R, see batch.h.
 *
 * What it costs to begin an operation is what programs of single numbers take: so a step knows its kernel and the places
 * of its operands, and one loop runs them.  Tried and lost: steps in the form of the kernels above, found by a switch in
 * each and with a copy of an operand that all rows share: 20 to 40 ns to begin one where these take 3 to 5.
 */

/* In a loop that adds up one number after the other: no vectors, whose products would be rounded on their own. */
#ifdef __GNUC__
#define IN_ORDER __asm__ volatile("")
#else
#define IN_ORDER (void)0
#endif

#define PLACE(k) (base[s->base[k]] + s->at[k] * scale[s->base[k]])
#define FIRST_CHOSEN(is) SELECT((x is y) | (x != x), x, y) /* NaN stays; the left one if they are equal */

#define BINARY_STEPS(DO)                                                                                               \
    DO(ADD, x + y)                                                                                                     \
    DO(SUB, x - y)                                                                                                     \
    DO(MUL, x *y)                                                                                                      \
    DO(DIV, x / y)                                                                                                     \
    DO(MINIMUM, FIRST_CHOSEN(<=))                                                                                      \
    DO(MAXIMUM, FIRST_CHOSEN(>=))

/* Some vectors of a sum over its terms: in registers until all are added. */
INLINE void OF(sum_part)(R *out, const fs_step *terms, int count, R *const *base, const ptrdiff_t *scale, R number,
                         ptrdiff_t i, const int some, const int nv)
{
    vec t[4];
    UNROLL for (int v = 0; v < nv; v++) t[v] = SPREAD(number);
#define TERM(change)                                                                                                   \
    UNROLL for (int v = 0; v < nv; v++)                                                                                \
    {                                                                                                                  \
        const vec x = LOAD_SOME(a + i + v * VW, 0);                                                                    \
        t[v] change;                                                                                                   \
    }                                                                                                                  \
    break;
    for (int k = 0; k < count; k++) {
        const fs_step *s = terms + k;
        const R *a = PLACE(0), *b = PLACE(1);
        switch (s->code) {
        case FS_TERM: TERM(+= x)
        case FS_TERM_LESS: TERM(-= x)
        case FS_TERM_SCALED: {
            const R c = s->mode < 0 ? -*b : *b;
            TERM(+= c * x)
        }
        case FS_TERM_PRODUCT: TERM(+= x * LOAD_SOME(b + i + v * VW, 0))
        case FS_TERM_LESS_PRODUCT: TERM(-= x * LOAD_SOME(b + i + v * VW, 0))
        }
    }
#undef TERM
    UNROLL for (int v = 0; v < nv; v++) STORE_SOME(out + i + v * VW, t[v]);
}

static void OF(sum_of_terms)(R *out, const fs_step *terms, int count, R *const *base, const ptrdiff_t *scale, int mode,
                             ptrdiff_t n)
{
    double number = mode & 1 ? 0.0 : -0.0;
    ptrdiff_t i = 0;
    for (int k = 0; mode & 2 && k < count; k++)
        if (terms[k].code == FS_TERM_NUMBER) {
            const fs_step *s = terms + k;
            number += s->mode * (double)*PLACE(0) * (s->op ? (double)*PLACE(1) : 1.0);
        }
    if (n == 1) {
        R t = (R)number;
        for (int k = 0; k < count; k++) {
            const fs_step *s = terms + k;
            const R *a = PLACE(0), *b = PLACE(1);
            switch (s->code) {
            case FS_TERM: t += *a; break;
            case FS_TERM_LESS: t -= *a; break;
            case FS_TERM_SCALED: t += (s->mode < 0 ? -*b : *b) * *a; break;
            case FS_TERM_PRODUCT:
                for (int j = 0; j < s->count; j++) {
                    IN_ORDER;
                    t += a[j] * b[j];
                }
                break;
            case FS_TERM_LESS_PRODUCT:
                for (int j = 0; j < s->count; j++) {
                    IN_ORDER;
                    t -= a[j] * b[j];
                }
                break;
            }
        }
        *out = t;
        return;
    }
    for (; i + 4 * VW <= n; i += 4 * VW)
        OF(sum_part)(out, terms, count, base, scale, (R)number, i, VW, 4);
    for (; i + VW <= n; i += VW)
        OF(sum_part)(out, terms, count, base, scale, (R)number, i, VW, 1);
    if (VW > 1 && i < n)
        OF(sum_part)(out, terms, count, base, scale, (R)number, i, (int)(n - i), 1);
}

static int OF(forward_steps)(const fs_step *steps, int at, void *const *bases, ptrdiff_t rows)
{
    R *base[6] = {bases[0], bases[1], bases[2], bases[3], bases[4], bases[5]};
    const ptrdiff_t scale[6] = {rows, 1, rows, 1, 1, 1};
    for (;; at++) {
        const fs_step *s = steps + at;
        R *out = PLACE(0);
        const R *a = PLACE(1), *b = PLACE(2);
        const ptrdiff_t n = s->count * rows;
        if (n == 1)
            switch (s->code) {
#define ONE_STEP(name, f)                                                                                              \
    case FS_STEP_BINARY + 3 * FS_##name:                                                                               \
    case FS_STEP_BINARY + 3 * FS_##name + 1:                                                                           \
    case FS_STEP_BINARY + 3 * FS_##name + 2: {                                                                         \
        const R x = *a, y = *b;                                                                                        \
        *out = f;                                                                                                      \
        continue;                                                                                                      \
    }
                ONE_STEP(ADD, x + y)
                ONE_STEP(SUB, x - y)
                ONE_STEP(MUL, x *y)
                ONE_STEP(DIV, x / y)
            case FS_STEP_COPY: *out = *a; continue;
            case FS_STEP_NEG: *out = -*a; continue;
            case FS_STEP_SQUARE: *out = *a * *a; continue;
#undef ONE_STEP
            default:;
            }
        switch (s->code) {
        case FS_STEP_LEAVE: return at;
#define STEPS_OF(name, f)                                                                                              \
    case FS_STEP_BINARY + 3 * FS_##name + FS_VECTORS:                                                                  \
        VECTORS(i, n, {                                                                                                \
            const vec x = GET(a), y = GET(b);                                                                          \
            STORE_SOME(out + i, f);                                                                                    \
        })                                                                                                             \
        break;                                                                                                         \
    case FS_STEP_BINARY + 3 * FS_##name + FS_A_IS_ONE: {                                                               \
        const vec x = SPREAD(*a);                                                                                       \
        VECTORS(i, n, {                                                                                                \
            const vec y = GET(b);                                                                                      \
            STORE_SOME(out + i, f);                                                                                    \
        })                                                                                                             \
        break;                                                                                                         \
    }                                                                                                                  \
    case FS_STEP_BINARY + 3 * FS_##name + FS_B_IS_ONE: {                                                               \
        const vec y = SPREAD(*b);                                                                                       \
        VECTORS(i, n, {                                                                                                \
            const vec x = GET(a);                                                                                      \
            STORE_SOME(out + i, f);                                                                                    \
        })                                                                                                             \
        break;                                                                                                         \
    }
            BINARY_STEPS(STEPS_OF)
#undef STEPS_OF
        case FS_STEP_COPY: VECTORS(i, n, STORE_SOME(out + i, GET(a))) break;
        case FS_STEP_NEG: VECTORS(i, n, STORE_SOME(out + i, -GET(a))) break;
        case FS_STEP_SQUARE: VECTORS(i, n, {
            const vec x = GET(a);
            STORE_SOME(out + i, x * x);
        }) break;
        case FS_STEP_SUM:
            OF(sum_of_terms)(out, s + 1, s->op, base, scale, s->mode, n);
            at += s->op;
            break;
        case FS_STEP_UNARY: OF(unary)(s->op, out, a, n); break;
        case FS_STEP_OTHER: OF(binary)(s->op, s->mode, out, a, b, n); break;
        }
    }
}

/* What is sent to an operand, by the gradient g, the other operand and the result.  They are loaded where they are used:
 * a step that needs neither says no place for them, and what stands at the default one may be shorter. */
#define OTHER GET(a)
#define RESULT GET(b)
#define SLOPES(DO)                                                                                                     \
    DO(PLUS, g)                                                                                                        \
    DO(MINUS, -g)                                                                                                      \
    DO(TIMES, g *OTHER)                                                                                                \
    DO(LESS_TIMES, -g * OTHER)                                                                                         \
    DO(OVER, g *(1 / OTHER))                                                                                           \
    DO(OVER_RIGHT, -g * (RESULT / OTHER))                                                                              \
    DO(OF_SQUARE, g * (2 * OTHER))                                                                                     \
    DO(COPIED, ZERO + g)

static int OF(backward_steps)(const fs_step *steps, int at, void *const *bases, ptrdiff_t rows)
{
    R *base[6] = {bases[0], bases[1], bases[2], bases[3], bases[4], bases[5]};
    const ptrdiff_t scale[6] = {rows, 1, rows, 1, 1, 1};
    for (;; at++) {
        const fs_step *s = steps + at;
        R *to = PLACE(0);
        const R *from = PLACE(1), *a = PLACE(2), *b = PLACE(3);
        const ptrdiff_t n = s->count * rows;
        if (n == 1) {
            const R g = *from, x = *a;
            switch (s->code) {
#define ONE_STEP(name, f)                                                                                              \
    case FS_STEP_SEND + 2 * FS_SEND_##name: *to += f; continue;                                                        \
    case FS_STEP_SEND + 2 * FS_SEND_##name + 1: *to = f; continue;
                ONE_STEP(PLUS, g)
                ONE_STEP(MINUS, -g)
                ONE_STEP(TIMES, g *x)
                ONE_STEP(LESS_TIMES, -g * x)
                ONE_STEP(SCALED, g *x)
                ONE_STEP(LESS_SCALED, -g * x)
                ONE_STEP(OF_SQUARE, g * (2 * x))
                ONE_STEP(COPIED, 0 + g)
#undef ONE_STEP
            case FS_STEP_TOTAL: *to += s->mode * g * (s->op ? x : 1); continue;
            case FS_STEP_DOT: *to += s->mode * g * x; continue;
            case FS_STEP_ZERO: *to = 0; continue;
            default:;
            }
        }
        switch (s->code) {
        case FS_STEP_LEAVE: return at;
#define STEPS_OF(name, f)                                                                                              \
    case FS_STEP_SEND + 2 * FS_SEND_##name:                                                                            \
        VECTORS(i, n, {                                                                                                \
            const vec g = GET(from);                                                                                   \
            STORE_SOME(to + i, GET(to) + (f));                                                                         \
        })                                                                                                             \
        break;                                                                                                         \
    case FS_STEP_SEND + 2 * FS_SEND_##name + 1:                                                                        \
        VECTORS(i, n, {                                                                                                \
            const vec g = GET(from);                                                                                   \
            STORE_SOME(to + i, f);                                                                                     \
        })                                                                                                             \
        break;
            SLOPES(STEPS_OF)
#undef STEPS_OF
#define SCALED_STEPS(name, factor)                                                                                     \
    case FS_STEP_SEND + 2 * FS_SEND_##name: {                                                                          \
        const vec c = ZERO + (factor);                                                                                 \
        VECTORS(i, n, STORE_SOME(to + i, GET(to) + c * GET(from)))                                                     \
        break;                                                                                                         \
    }                                                                                                                  \
    case FS_STEP_SEND + 2 * FS_SEND_##name + 1: {                                                                      \
        const vec c = ZERO + (factor);                                                                                 \
        VECTORS(i, n, STORE_SOME(to + i, c * GET(from)))                                                               \
        break;                                                                                                         \
    }
            SCALED_STEPS(SCALED, *a)
            SCALED_STEPS(LESS_SCALED, -*a)
            SCALED_STEPS(OVER_ONE, 1 / *a)
#undef SCALED_STEPS
        case FS_STEP_SEND + 2 * FS_SEND_ALL_TO_ONE:
        case FS_STEP_SEND + 2 * FS_SEND_ALL_TO_ONE + 1: {
            ptrdiff_t i = n - 1;
            const R sign = s->mode;
            R t = *to;
            if (s->code != FS_STEP_SEND + 2 * FS_SEND_ALL_TO_ONE) {
                t = s->op ? sign * from[i] * a[i] : sign * from[i];
                i--;
            }
            for (; i >= 0; i--) {
                IN_ORDER;
                t += s->op ? sign * from[i] * a[i] : sign * from[i];
            }
            *to = t;
            break;
        }
        case FS_STEP_TOTAL: *to += (R)(s->mode * OF(sum)(from, n) * (s->op ? (double)*a : 1.0)); break;
        case FS_STEP_DOT: *to += (R)(s->mode * OF(dot)(from, a, n)); break;
        case FS_STEP_ZERO: VECTORS(i, n, STORE_SOME(to + i, ZERO)) break;
        case FS_STEP_UNARY: OF(unary_backward)(s->op, to, a, b, from, n); break;
        case FS_STEP_OTHER:
        case FS_STEP_OTHER_RIGHT:
            OF(binary_backward)(s->op, s->mode, s->code == FS_STEP_OTHER ? to : NULL,
                                s->code == FS_STEP_OTHER ? NULL : to, a, b, PLACE(4), from, n);
            break;
        }
    }
}
#undef PLACE
#undef IN_ORDER
#undef FIRST_CHOSEN
#undef BINARY_STEPS
#undef SLOPES
#undef OTHER
#undef RESULT
