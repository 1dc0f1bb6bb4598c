/*
 * What a SIGBUS handler needs and Swift cannot give it: storage that exists without being
 * initialised first, the union fields of siginfo and sigaction, and system calls that are marked
 * as neither locking nor allocating. The handler itself is Swift (Platform/FaultGuard.swift).
 */
#ifndef RINGWAY_RW_GUARD_H
#define RINGWAY_RW_GUARD_H
#include "rw_io.h"
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* A guarded mapping. base is 0 while the entry is free. */
struct rw_guard_window {
    uint64_t base;
    uint64_t count;
    uint64_t page;  /* bytes a page of it */
    uint32_t kind;  /* 0: zeros over the page that faulted, 1: ones over all of it */
    uint32_t flag;  /* which flag the handler raises */
    int32_t event;  /* eventfd to signal, or -1 */
    int32_t unused;
};
#define RW_GUARD_WINDOWS 8192
#define RW_GUARD_FLAGS 8192

struct rw_guard_table {
    uint32_t inside;   /* handlers at work */
    uint32_t used;     /* entries that were ever in use */
    uint64_t one_size; /* bytes of the file of ones */
    int32_t ones;      /* memory file full of 0xFF */
    struct sigaction previous;
    uint32_t flags[RW_GUARD_FLAGS]; /* faults, counted */
    struct rw_guard_window windows[RW_GUARD_WINDOWS];
};
extern struct rw_guard_table rw_guards;

static inline RW_HOT struct rw_guard_table *_Nonnull rw_guard_table(void) { return &rw_guards; }
static inline RW_HOT struct rw_guard_window *_Nonnull rw_guard_window(uint32_t index) { return &rw_guards.windows[index % RW_GUARD_WINDOWS]; }
static inline RW_HOT uint32_t *_Nonnull rw_guard_flag(uint32_t index) { return &rw_guards.flags[index % RW_GUARD_FLAGS]; }
static inline RW_HOT void rw_guard_enter(void) { __atomic_fetch_add(&rw_guards.inside, 1, __ATOMIC_SEQ_CST); }
static inline RW_HOT void rw_guard_leave(void) { __atomic_fetch_sub(&rw_guards.inside, 1, __ATOMIC_SEQ_CST); }
static inline RW_HOT uint32_t rw_guard_inside(void) { return __atomic_load_n(&rw_guards.inside, __ATOMIC_SEQ_CST); }
static inline RW_HOT void rw_guard_raise(uint32_t flag) { __atomic_fetch_add(rw_guard_flag(flag), 1, __ATOMIC_RELEASE); }

/* Puts size bytes of the file of ones over [address, address + size). 0, or -1 with errno. */
static inline RW_HOT int rw_map_ones(uint64_t address, uint64_t size)
{
    void *at = (void *)(uintptr_t)address;
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, rw_guards.ones, 0) == MAP_FAILED ? -1 : 0;
}
/* Private zeros over [address, address + size). 0, or -1 with errno. */
static inline RW_HOT int rw_map_zeros(uint64_t address, uint64_t size)
{
    void *at = (void *)(uintptr_t)address;
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED ? -1 : 0;
}
static inline RW_HOT void rw_guard_signal(int fd)
{
    uint64_t one = 1;
    if (fd >= 0) {
        ssize_t ignored = write(fd, &one, sizeof one);
        (void)ignored;
    }
}
static inline RW_HOT int rw_save_errno(void) { return errno; }
static inline RW_HOT void rw_restore_errno(int value) { errno = value; }
static inline RW_HOT uint64_t rw_fault_address(const siginfo_t *_Nonnull info) { return (uint64_t)(uintptr_t)info->si_addr; }
/* Positive when the kernel raised the signal for an access, not some process by kill(2). */
static inline RW_HOT int rw_fault_code(const siginfo_t *_Nonnull info) { return info->si_code; }

typedef void (*rw_fault_handler)(int, siginfo_t *_Nullable, void *_Nullable);
static inline int rw_install_fault_handler(int signal, rw_fault_handler _Nonnull handler)
{
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    return sigaction(signal, &action, 0);
}
/* Hands the signal to whoever had it before; the default action, which ends the process, is taken
 * when the handler returns. */
static inline RW_HOT void rw_previous_fault_handler(int signal, siginfo_t *_Nullable info, void *_Nullable context)
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
