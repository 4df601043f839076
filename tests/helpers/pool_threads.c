/* The pool under ThreadSanitizer, without Python: owners that share out work at the same time, each task writes numbers
 * that its owner reads afterwards, without a lock of their own.  A join that orders nothing is a data race here. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "pool.h"

#define ITEMS 37
#define OWNERS 4

struct work {
    double number[ITEMS];
    int round;
};

static void task(void *context, int thread, int item)
{
    struct work *w = context;
    (void)thread;
    w->number[item] += item + w->round;
    if (item % 9 == 0) { /* one that shares out work of its own */
        struct work inner = {{0}, item};
        if (w->round % 50 == 0 && item == 9)
            fs_pool_run(task, &inner, 5, 2);
    }
}

static long rounds;
#ifdef RACE
static long races;
#endif

static void *owner(void *unused)
{
    struct work w = {{0}, 0};
    long wrong = 0;
    (void)unused;
#ifdef RACE /* to see that the sanitizer sees: nothing orders the owners */
    races++;
#endif
    for (w.round = 1; w.round <= rounds; w.round++) {
        double before = w.number[3];
        fs_pool_run(task, &w, ITEMS, 1 + w.round % 8);
        wrong += w.number[3] != before + 3 + w.round;
    }
    return (void *)wrong;
}

int main(int count, char **words)
{
    pthread_t threads[OWNERS];
    long wrong = 0;
    rounds = count > 1 ? atol(words[1]) : 10000;
    fs_pool_reserve(4);
    for (int k = 0; k < OWNERS; k++)
        pthread_create(&threads[k], NULL, owner, NULL);
    for (int k = 0; k < OWNERS; k++) {
        void *found;
        pthread_join(threads[k], &found);
        wrong += (long)found;
    }
    printf("%ld batches of %d items by %d owners and %d helpers, %ld of them wrong\n", rounds * OWNERS, ITEMS, OWNERS,
           fs_pool_size(), wrong);
    return wrong != 0;
}
