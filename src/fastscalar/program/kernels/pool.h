/* One pool of threads for the process, which share the work of replays.  It knows nothing of programs and of Python. */
#ifndef FASTSCALAR_POOL_H
#define FASTSCALAR_POOL_H

/* One item of some work, 0 <= item < items.  Of the threads that are at it each has a number of its own, the one that
 * asked for it number 0. */
typedef void (*fs_task)(void *context, int thread, int item);

/* Start threads until there are so many helpers; how many of them there are, fewer if the system refuses. */
int fs_pool_reserve(int helpers);

/* All items, by this thread and by at most `threads` - 1 helpers that have nothing else to do: each takes the next item
 * that is not taken.  When this returns, no helper is at it any more. */
void fs_pool_run(fs_task task, void *context, int items, int threads);

/* In a child process after fork, which has none of the threads: begin anew. */
void fs_pool_forget(void);

int fs_pool_size(void);
/* For tests: let so many of the next threads not start. */
void fs_pool_refuse(int threads);

/* --- whether help pays ---
 *
 * Helpers have to be woken and waited for, and on a machine that others use too they may not get a core.  So both ways
 * are timed, the better one is taken, and the other is tried as long as trying takes a small part of the time. */
typedef struct {
    double seconds[2], rows[2]; /* of late: alone, together */
    double spent, tried;        /* seconds: in all, and in what was not the better way */
    double stretch;             /* seconds of the present batches in one way */
    int batches;                /* how many */
    int together, trying;
} fs_pace;

void fs_pace_begin(fs_pace *pace);
/* Whether the next batch is to be shared. */
int fs_pace_together(fs_pace *pace);
void fs_pace_note(fs_pace *pace, double seconds, double rows);
double fs_seconds(void);

#endif
