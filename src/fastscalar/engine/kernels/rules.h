/* The update rules of the optimisers, element by element on plain arrays, in both types.
 *
 * Compiled with the kernels of arrays for each target (kernels.c includes the bodies): every set gives the same bits, a
 * step
 * taken eagerly and one taken by a replay are the same code.
 *
 *   g <- gradient * scale, between -limit and limit;  w the parameter, s and t what the optimiser keeps
 *   SGD      g += decay w;  s = momentum s + g;  g = nesterov ? g + momentum s : s;   w -= rate g
 *   Adam     g += decay w;  s += (1 - beta1)(g - s);  t = beta2 t + (1 - beta2) g^2;
 *            w -= rate / correction1 * s / (sqrt(t) / correction2 + eps)
 *   AdamW    w *= 1 - rate decay, then Adam without decay
 *   RMSprop  g += decay w;  t = beta2 t + (1 - beta2) g^2;  s = momentum s + g / (sqrt(t) + eps);   w -= rate s
 *   FADED    SGD where s is scale times what is stored, and the gradient is in it:  s += decay w;  w -= rate s;
 *            with a momentum that is not 0, what is stored becomes s
 *
 * (PyTorch's forms.)  correction1 = 1 - beta1^n and correction2 = sqrt(1 - beta2^n) at step n = 1, 2, ...
 */
#ifndef FASTSCALAR_RULES_H
#define FASTSCALAR_RULES_H

#include <stddef.h>

enum { FS_RULE_SGD, FS_RULE_ADAM, FS_RULE_ADAMW, FS_RULE_RMSPROP, FS_RULE_FADED };

typedef struct {
    int kind;
    int nesterov;
    double rate;
    double decay;
    double momentum;
    double beta1, beta2, eps;
    double correction1, correction2;
    double scale;
    double limit; /* infinity: none */
} fs_rule;

#endif
