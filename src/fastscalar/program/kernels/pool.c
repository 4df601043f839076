/* The pool of pool.h.
 *
 * Contract
 * 1. A helper that has nothing to do looks for work for some microseconds, then sleeps until it is woken.  So does
 *    the thread that waits for helpers to finish.
 * 2. A piece of work (`job`) stands on the stack of the thread that asked for it, and in the list as long as helpers may
 *    join.  It is taken off the list when no item is left, and its owner goes when all that joined have left: the last
 *    thing that a helper does with a job is to count itself out.
 * 3. A helper that has not come is not waited for: its items are done by others.
 * 4. Helpers are threads of the system, not of Python: they never hold the GIL, get no signals, and end with the process.
 *    Only `lock` protects what is here; no task is called with it held.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif
#include "pool.h"

#include <stddef.h>
#include <string.h>

#define MOST_HELPERS 1023
#define STACK (1 << 20) /* of a helper, bytes: what tasks need is a few pages, and some systems give 128 K only */
#define PATIENCE 30e-6  /* seconds until a waiting thread goes to sleep */

#if defined(_WIN32)

#include <process.h>
#include <windows.h>

typedef SRWLOCK lock_type;
typedef CONDITION_VARIABLE wait_type;
#define LOCK_INIT SRWLOCK_INIT
#define WAIT_INIT CONDITION_VARIABLE_INIT

static void lock(lock_type *l) { AcquireSRWLockExclusive(l); }
static void unlock(lock_type *l) { ReleaseSRWLockExclusive(l); }
static void sleep_on(wait_type *w, lock_type *l) { SleepConditionVariableSRW(w, l, INFINITE, 0); }
static void wake_one(wait_type *w) { WakeConditionVariable(w); }
static void wake_all(wait_type *w) { WakeAllConditionVariable(w); }

static long take(volatile long *p) { return InterlockedIncrement(p) - 1; }
static long get(volatile long *p) { return InterlockedCompareExchange(p, 0, 0); }
static void set(volatile long *p, long v) { InterlockedExchange(p, v); }
static void relax(void) { YieldProcessor(); }

static void help(void);
static unsigned __stdcall begin(void *unused)
{
    (void)unused;
    help();
    return 0;
}

static int start(void)
{
    uintptr_t thread = _beginthreadex(NULL, STACK, begin, NULL, 0, NULL);
    if (thread)
        CloseHandle((HANDLE)thread);
    return thread != 0;
}

double fs_seconds(void)
{
    LARGE_INTEGER now, frequency;
    QueryPerformanceCounter(&now);
    QueryPerformanceFrequency(&frequency);
    return (double)now.QuadPart / (double)frequency.QuadPart;
}

#else

#include <pthread.h>
#include <signal.h>
#include <time.h>

typedef pthread_mutex_t lock_type;
typedef pthread_cond_t wait_type;
#define LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#define WAIT_INIT PTHREAD_COND_INITIALIZER

static void lock(lock_type *l) { pthread_mutex_lock(l); }
static void unlock(lock_type *l) { pthread_mutex_unlock(l); }
static void sleep_on(wait_type *w, lock_type *l) { pthread_cond_wait(w, l); }
static void wake_one(wait_type *w) { pthread_cond_signal(w); }
static void wake_all(wait_type *w) { pthread_cond_broadcast(w); }

static long take(volatile long *p) { return __atomic_fetch_add(p, 1, __ATOMIC_ACQ_REL); }
static long get(volatile long *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void set(volatile long *p, long v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

static void help(void);
static void *begin(void *unused)
{
    (void)unused;
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "fastscalar");
#endif
    help();
    return NULL;
}

static int start(void)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    int refused;
    if (pthread_attr_init(&attributes))
        return 0;
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all); /* a new thread has the signals of the one that made it */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    refused = pthread_create(&thread, &attributes, begin, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return !refused;
}

double fs_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif

struct job {
    fs_task task;
    void *context;
    int items;
    volatile long next;   /* item that is not taken */
    int room;             /* helpers that may still join */
    int joined;           /* that have, ever */
    volatile long inside; /* that have not left */
    int waiting;          /* the owner sleeps until they have */
    struct job *older;
};

static struct {
    lock_type lock;
    wait_type work, done;
    volatile long published; /* jobs so far: a thread in search of work looks at this */
    struct job *jobs;        /* that helpers may join, the youngest first */
    int helpers, looking, sleeping, refuse;
} pool = {LOCK_INIT, WAIT_INIT, WAIT_INIT, 0, NULL, 0, 0, 0, 0};

/* Until *p is `v` (`until`), or is not, or patience is at an end. */
static void look(volatile long *p, long v, int until)
{
    double end = fs_seconds() + PATIENCE;
    while ((get(p) == v) != until && fs_seconds() < end)
        for (int k = 0; k < 16; k++)
            relax();
}

static void work_at(struct job *job, int thread)
{
    long item;
    while ((item = take(&job->next)) < job->items)
        job->task(job->context, thread, (int)item);
}

static void help(void)
{
    lock(&pool.lock);
    for (;;) {
        struct job *job = pool.jobs;
        long seen = pool.published;
        while (job && (!job->room || get(&job->next) >= job->items))
            job = job->older;
        if (job) {
            int thread = ++job->joined, wake;
            long left;
            job->room--;
            set(&job->inside, job->inside + 1);
            unlock(&pool.lock);
            work_at(job, thread);
            lock(&pool.lock);
            left = job->inside - 1;
            wake = job->waiting && !left;
            set(&job->inside, left); /* from here on it may be gone */
            if (wake)
                wake_all(&pool.done);
            continue;
        }
        pool.looking++;
        unlock(&pool.lock);
        look(&pool.published, seen, 0);
        lock(&pool.lock);
        pool.looking--;
        if (pool.published == seen) {
            pool.sleeping++;
            while (pool.published == seen)
                sleep_on(&pool.work, &pool.lock);
            pool.sleeping--;
        }
    }
}

int fs_pool_reserve(int helpers)
{
    int there;
    lock(&pool.lock);
    while (pool.helpers < helpers && pool.helpers < MOST_HELPERS) {
        if (pool.refuse) {
            pool.refuse--;
            break;
        }
        if (!start())
            break;
        pool.helpers++;
    }
    there = pool.helpers;
    unlock(&pool.lock);
    return there < helpers ? there : helpers;
}

void fs_pool_run(fs_task task, void *context, int items, int threads)
{
    struct job job = {task, context, items, 0, (threads < items ? threads : items) - 1, 0, 0, 0, NULL}, **at;
    int published = 0;
    if (job.room > 0) {
        lock(&pool.lock);
        if (pool.helpers) {
            int wake = job.room - pool.looking;
            published = 1;
            job.older = pool.jobs;
            pool.jobs = &job;
            set(&pool.published, pool.published + 1);
            for (wake = wake < pool.sleeping ? wake : pool.sleeping; wake > 0; wake--)
                wake_one(&pool.work);
        }
        unlock(&pool.lock);
    }
    work_at(&job, 0);
    if (!published)
        return;
    lock(&pool.lock);
    for (at = &pool.jobs; *at != &job; at = &(*at)->older)
        ;
    *at = job.older;
    unlock(&pool.lock);
    if (get(&job.inside))
        look(&job.inside, 0, 1);
    if (get(&job.inside)) {
        lock(&pool.lock);
        job.waiting = 1;
        while (get(&job.inside))
            sleep_on(&pool.done, &pool.lock);
        unlock(&pool.lock);
    }
}

void fs_pool_forget(void)
{
    static const lock_type free_lock = LOCK_INIT;
    static const wait_type fresh = WAIT_INIT;
    memset(&pool, 0, sizeof pool);
    memcpy(&pool.lock, &free_lock, sizeof free_lock);
    memcpy(&pool.work, &fresh, sizeof fresh);
    memcpy(&pool.done, &fresh, sizeof fresh);
}

int fs_pool_size(void) { return pool.helpers; }

void fs_pool_refuse(int threads) { pool.refuse = threads; }

/* --- whether help pays --- */

#define STRETCH 4         /* batches, at least, that are done in one way, */
#define STRETCH_TIME 1e-3 /* and seconds: the first ones find helpers asleep */
#define AT_ONCE 50e-3     /* so many seconds may pass before the other way is tried for the first time */
#define FIRST_TRIAL 0.2   /* part of the time that it may take otherwise, */
#define TRIALS 0.05       /* and that all trials together may take */
#define MEMORY 50e-3      /* seconds in one way after which what was before counts half */

void fs_pace_begin(fs_pace *pace)
{
    memset(pace, 0, sizeof *pace);
    pace->together = 1;
}

int fs_pace_together(fs_pace *pace)
{
    const double *seconds = pace->seconds, *rows = pace->rows;
    if (pace->batches < STRETCH || pace->stretch < STRETCH_TIME)
        return pace->together;
    pace->together = rows[0] == 0.0 || (rows[1] > 0.0 && seconds[1] * rows[0] < seconds[0] * rows[1]);
    pace->trying = pace->tried + pace->stretch < TRIALS * pace->spent ||
                   (rows[0] == 0.0 && (pace->spent < AT_ONCE || pace->stretch < FIRST_TRIAL * pace->spent));
    pace->together ^= pace->trying;
    pace->batches = 0;
    pace->stretch = 0.0;
    return pace->together;
}

void fs_pace_note(fs_pace *pace, double seconds, double rows)
{
    double kept = MEMORY / (MEMORY + seconds);
    int way = pace->together;
    pace->seconds[way] = kept * pace->seconds[way] + seconds;
    pace->rows[way] = kept * pace->rows[way] + rows;
    pace->spent += seconds;
    pace->tried += pace->trying ? seconds : 0.0;
    pace->stretch += seconds;
    pace->batches++;
}
