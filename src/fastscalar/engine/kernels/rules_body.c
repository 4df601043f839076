/* The update rules for one type: FS_REAL, its square root FS_SQRT and absolute value FS_ABS, its smallest normal number
 * FS_LEAST, and the suffix of the names FS_TYPE.  The formulas are in rules.h.  kernels.c includes this file once for
 * each type. */

static FS_REAL FS_JOIN(limited_, FS_TYPE)(FS_REAL g, FS_REAL limit)
{
    return g > limit ? limit : g < -limit ? -limit : g; /* NaN stays */
}

/* What is kept of a gradient long gone fades through numbers that are too small to be normal, and slow: zero from there. */
static FS_REAL FS_JOIN(normal_, FS_TYPE)(FS_REAL x)
{
    return FS_ABS(x) < FS_LEAST ? 0 : x;
}

/* A loop over all numbers, in which `a` is the gradient of number i as it enters the formulas.  Without a limit it is not
 * compared with any: of Adam that takes a third of the time. */
#define EACH_NUMBER(...)                                                                                                  \
    for (ptrdiff_t j = 0; j < m; j++, w += n, s += s_step, t += t_step) {                                                 \
        const FS_REAL scale = x ? all * x[j] : all;                                                                       \
        if (limit < (FS_REAL)INFINITY)                                                                                    \
            for (ptrdiff_t i = 0; i < n; i++) {                                                                           \
                const FS_REAL a = FS_JOIN(limited_, FS_TYPE)(g[i] * scale, limit) + (decay != 0 ? decay * w[i] : 0);      \
                __VA_ARGS__                                                                                               \
            }                                                                                                             \
        else                                                                                                              \
            for (ptrdiff_t i = 0; i < n; i++) {                                                                           \
                const FS_REAL a = g[i] * scale + (decay != 0 ? decay * w[i] : 0);                                         \
                __VA_ARGS__                                                                                               \
            }                                                                                                             \
    }
#define NORMAL FS_JOIN(normal_, FS_TYPE)

/* Without decay w is not looked at: 0 * inf would be NaN.
 * s and t may be NULL for a rule that keeps no such thing: SGD without momentum, and t in SGD. */
static void FS_JOIN(rule_, FS_TYPE)(const fs_rule *rule, FS_REAL *restrict w, const FS_REAL *restrict g,
                                    FS_REAL *restrict s, FS_REAL *restrict t, ptrdiff_t n, const FS_REAL *restrict x,
                                    ptrdiff_t m)
{
    const FS_REAL all = (FS_REAL)rule->scale, limit = (FS_REAL)rule->limit, rate = (FS_REAL)rule->rate;
    const FS_REAL decay = rule->kind == FS_RULE_ADAMW ? 0 : (FS_REAL)rule->decay, momentum = (FS_REAL)rule->momentum;
    const FS_REAL new1 = (FS_REAL)(1.0 - rule->beta1), beta2 = (FS_REAL)rule->beta2, new2 = (FS_REAL)(1.0 - rule->beta2);
    const FS_REAL eps = (FS_REAL)rule->eps > FS_LEAST ? (FS_REAL)rule->eps : FS_LEAST;
    const FS_REAL size = (FS_REAL)(rule->rate / rule->correction1), correction = (FS_REAL)(1.0 / rule->correction2);
    const FS_REAL keep = rule->kind == FS_RULE_ADAMW ? (FS_REAL)(1.0 - rule->rate * rule->decay) : 1;
    const ptrdiff_t s_step = s ? n : 0, t_step = t ? n : 0;
    switch (rule->kind) {
    case FS_RULE_SGD:
        if (s == NULL)
            EACH_NUMBER(w[i] -= rate * a;)
        else if (rule->nesterov)
            EACH_NUMBER(s[i] = NORMAL(momentum * s[i] + a); w[i] -= rate * (a + momentum * s[i]);)
        else
            EACH_NUMBER(s[i] = NORMAL(momentum * s[i] + a); w[i] -= rate * s[i];)
        break;
    case FS_RULE_FADED: {
        const FS_REAL step = (FS_REAL)(rule->rate * rule->scale), more = (FS_REAL)(rule->decay / rule->scale);
        if (decay == 0 && momentum == 0)
            for (ptrdiff_t i = 0; i < n; i++)
                w[i] -= step * s[i];
        else
            for (ptrdiff_t i = 0; i < n; i++) {
                const FS_REAL a = decay != 0 ? s[i] + more * w[i] : s[i];
                w[i] -= step * a;
                s[i] = momentum != 0 ? NORMAL(all * a) : a;
            }
        break;
    }
    case FS_RULE_ADAM:
    case FS_RULE_ADAMW:
        EACH_NUMBER(s[i] = NORMAL(s[i] + new1 * (a - s[i])); t[i] = NORMAL(beta2 * t[i] + new2 * a * a);
                    w[i] = keep * w[i] - size * s[i] / (FS_SQRT(t[i]) * correction + eps);)
        break;
    case FS_RULE_RMSPROP:
        if (s == NULL)
            EACH_NUMBER(t[i] = NORMAL(beta2 * t[i] + new2 * a * a); w[i] -= rate * a / (FS_SQRT(t[i]) + eps);)
        else
            EACH_NUMBER(t[i] = NORMAL(beta2 * t[i] + new2 * a * a);
                        s[i] = NORMAL(momentum * s[i] + a / (FS_SQRT(t[i]) + eps)); w[i] -= rate * s[i];)
        break;
    }
}
#undef NORMAL
#undef EACH_NUMBER

/* The sum of the squares, in double, in eight partial sums whatever the CPU. */
static double FS_JOIN(squares_, FS_TYPE)(const FS_REAL *x, ptrdiff_t n)
{
    double p[LANES] = {0.0};
    ptrdiff_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            p[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; i < n; i++, l++)
        p[l] += (double)x[i] * (double)x[i];
    return ((p[0] + p[4]) + (p[2] + p[6])) + ((p[1] + p[5]) + (p[3] + p[7]));
}
