/*
 * What the SIGBUS handler of a device model's server needs: storage that exists without being
 * initialised first, and system calls that are marked as neither locking nor allocating. The
 * handler itself is Swift (ModelServer/MemoryGuard.swift).
 */
#ifndef RINGWAY_RW_GUARD_H
#define RINGWAY_RW_GUARD_H
#include "rw_fault.h"
#include "rw_io.h"
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>

/* A mapping of a client's file. base is 0 while the entry is free. */
struct rw_guard_window {
    uint64_t base;
    uint64_t count;
    uint32_t owner; /* whose counter the handler raises */
};
#define RW_GUARD_WINDOWS 4096
#define RW_GUARD_OWNERS 256

struct rw_guard_table {
    uint32_t inside; /* handlers at work */
    uint32_t used;   /* entries that were ever in use */
    struct sigaction previous;
    uint32_t hits[RW_GUARD_OWNERS];
    struct rw_guard_window windows[RW_GUARD_WINDOWS];
};
extern struct rw_guard_table rw_guards;

static inline RW_HOT struct rw_guard_table *_Nonnull rw_guard_table(void) { return &rw_guards; }
static inline RW_HOT struct rw_guard_window *_Nonnull rw_guard_window(uint32_t index) { return &rw_guards.windows[index % RW_GUARD_WINDOWS]; }
static inline RW_HOT void rw_guard_enter(void) { __atomic_fetch_add(&rw_guards.inside, 1, __ATOMIC_SEQ_CST); }
static inline RW_HOT void rw_guard_leave(void) { __atomic_fetch_sub(&rw_guards.inside, 1, __ATOMIC_SEQ_CST); }
static inline RW_HOT uint32_t rw_guard_inside(void) { return __atomic_load_n(&rw_guards.inside, __ATOMIC_SEQ_CST); }
static inline RW_HOT void rw_guard_hit(uint32_t owner) { __atomic_fetch_add(&rw_guards.hits[owner % RW_GUARD_OWNERS], 1, __ATOMIC_RELEASE); }
static inline RW_HOT uint32_t rw_guard_hits(uint32_t owner) { return __atomic_load_n(&rw_guards.hits[owner % RW_GUARD_OWNERS], __ATOMIC_ACQUIRE); }
static inline RW_HOT void rw_guard_forget(uint32_t owner) { __atomic_store_n(&rw_guards.hits[owner % RW_GUARD_OWNERS], 0, __ATOMIC_RELEASE); }

/* Private zeros over [address, address + size). 0, or -1 with errno. */
static inline RW_HOT int rw_map_zeros(uint64_t address, uint64_t size)
{
    void *at = (void *)(uintptr_t)address;
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED ? -1 : 0;
}
/* Hands the signal to whoever had it before; the default action is taken when the handler returns. */
static inline RW_HOT void rw_guard_previous(int signal, siginfo_t *_Nullable info, void *_Nullable context)
{
    if (rw_guards.previous.sa_flags & SA_SIGINFO) {
        rw_guards.previous.sa_sigaction(signal, info, context);
    } else if (rw_guards.previous.sa_handler != SIG_DFL && rw_guards.previous.sa_handler != SIG_IGN) {
        rw_guards.previous.sa_handler(signal);
    } else {
        struct sigaction action = {0};
        action.sa_handler = SIG_DFL;
        sigaction(signal, &action, 0);
        if (info && info->si_code <= 0) raise(signal);
    }
}
#endif
