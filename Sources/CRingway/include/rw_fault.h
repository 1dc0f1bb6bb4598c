/*
 * What a SIGBUS handler needs and Swift cannot give it: storage that exists without being
 * initialised first, the union fields of siginfo and sigaction, and system calls that are marked
 * as neither locking nor allocating. The handler itself is Swift (VFIO/FaultTable.swift).
 */
#ifndef RINGWAY_RW_FAULT_H
#define RINGWAY_RW_FAULT_H
#include "rw_io.h"
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

/* A mapped range of device registers. base is 0 while the entry is free. */
struct rw_fault_window {
    uint64_t base;
    uint64_t count;
    uint32_t faulted; /* set by the handler, cleared by the owner */
    int32_t event;    /* eventfd to signal, or -1 */
};
#define RW_FAULT_WINDOWS 512

struct rw_fault_table {
    uint32_t inside;   /* handlers at work */
    int32_t ones;      /* memory file full of 0xFF */
    uint64_t one_size; /* its size in bytes */
    struct sigaction previous;
    struct rw_fault_window windows[RW_FAULT_WINDOWS];
};
extern struct rw_fault_table rw_faults;

static inline RW_HOT struct rw_fault_table *_Nonnull rw_fault_table(void) { return &rw_faults; }
static inline RW_HOT struct rw_fault_window *_Nonnull rw_fault_window(uint32_t index) { return &rw_faults.windows[index % RW_FAULT_WINDOWS]; }
static inline RW_HOT void rw_fault_enter(void) { __atomic_fetch_add(&rw_faults.inside, 1, __ATOMIC_SEQ_CST); }
static inline RW_HOT void rw_fault_leave(void) { __atomic_fetch_sub(&rw_faults.inside, 1, __ATOMIC_SEQ_CST); }

/* Puts size bytes of the memory file over [address, address + size). 0, or -1 with errno. */
static inline RW_HOT int rw_map_ones(uint64_t address, uint64_t size)
{
    void *at = (void *)(uintptr_t)address;
    return mmap(at, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE, rw_faults.ones, 0) == MAP_FAILED ? -1 : 0;
}
static inline RW_HOT void rw_fault_signal(int fd)
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
    if (rw_faults.previous.sa_flags & SA_SIGINFO) {
        rw_faults.previous.sa_sigaction(signal, info, context);
    } else if (rw_faults.previous.sa_handler != SIG_DFL && rw_faults.previous.sa_handler != SIG_IGN) {
        rw_faults.previous.sa_handler(signal);
    } else {
        struct sigaction action = {0};
        action.sa_handler = SIG_DFL;
        sigaction(signal, &action, 0);
        if (info && info->si_code <= 0) raise(signal);
    }
}
#endif
