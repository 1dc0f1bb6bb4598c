/* Volatile access, fences and atomics on raw addresses. Every function is one instruction or two. */
#ifndef RINGWAY_RW_IO_H
#define RINGWAY_RW_IO_H
#include <stddef.h>
#include <stdint.h>

#ifndef __clang__
#define _Nonnull
#endif

/* Tells the Swift compiler's @_noLocks and @_noAllocation checks that a function is clean. */
#define RW_HOT __attribute__((swift_attr("@_noLocks"))) __attribute__((swift_attr("@_noAllocation")))

static inline RW_HOT uint8_t rw_read8(const volatile void *_Nonnull p) { return *(const volatile uint8_t *)p; }
static inline RW_HOT uint16_t rw_read16(const volatile void *_Nonnull p) { return *(const volatile uint16_t *)p; }
static inline RW_HOT uint32_t rw_read32(const volatile void *_Nonnull p) { return *(const volatile uint32_t *)p; }
static inline RW_HOT uint64_t rw_read64(const volatile void *_Nonnull p) { return *(const volatile uint64_t *)p; }
static inline RW_HOT void rw_write8(volatile void *_Nonnull p, uint8_t v) { *(volatile uint8_t *)p = v; }
static inline RW_HOT void rw_write16(volatile void *_Nonnull p, uint16_t v) { *(volatile uint16_t *)p = v; }
static inline RW_HOT void rw_write32(volatile void *_Nonnull p, uint32_t v) { *(volatile uint32_t *)p = v; }
static inline RW_HOT void rw_write64(volatile void *_Nonnull p, uint64_t v) { *(volatile uint64_t *)p = v; }

/* Order against the compiler alone. */
static inline RW_HOT void rw_compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }

/* Ordering of accesses to memory that a device also reads and writes by DMA. */
static inline RW_HOT void rw_dma_wmb(void)
{
#if defined(__aarch64__)
    __asm__ volatile("dmb oshst" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}
static inline RW_HOT void rw_dma_rmb(void)
{
#if defined(__aarch64__)
    __asm__ volatile("dmb oshld" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
}
/* Sequentially consistent fence: before "look again, then sleep" and for suppressed doorbells. */
static inline RW_HOT void rw_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

/* A doorbell: all earlier stores to memory are visible to the device before this register store. */
static inline RW_HOT void rw_doorbell32(volatile void *_Nonnull p, uint32_t v)
{
#if defined(__aarch64__)
    __asm__ volatile("dsb st" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
    *(volatile uint32_t *)p = v;
}
static inline RW_HOT void rw_doorbell16(volatile void *_Nonnull p, uint16_t v)
{
#if defined(__aarch64__)
    __asm__ volatile("dsb st" ::: "memory");
#else
    __asm__ volatile("" ::: "memory");
#endif
    *(volatile uint16_t *)p = v;
}

/* Where a register goes that no plain store reaches: a message, or a device model in this process. */
struct rw_trap {
    /* offset and width in bytes */
    void (*_Nonnull write)(void *_Nonnull context, int64_t offset, uint32_t width, uint32_t value);
    void *_Nonnull context;
    int64_t offset;
};
static inline RW_HOT void rw_trap_write(const struct rw_trap *_Nonnull t, uint32_t width, uint32_t v)
{
    t->write(t->context, t->offset, width, v);
}

/* Fields shared between processes or threads (C11 acquire/release). */
static inline RW_HOT uint16_t rw_load_acquire16(const void *_Nonnull p) { return __atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE); }
static inline RW_HOT uint32_t rw_load_acquire32(const void *_Nonnull p) { return __atomic_load_n((const uint32_t *)p, __ATOMIC_ACQUIRE); }
static inline RW_HOT uint64_t rw_load_acquire64(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_ACQUIRE); }
static inline RW_HOT uint64_t rw_load_relaxed64(const void *_Nonnull p) { return __atomic_load_n((const uint64_t *)p, __ATOMIC_RELAXED); }
static inline RW_HOT void rw_store_release16(void *_Nonnull p, uint16_t v) { __atomic_store_n((uint16_t *)p, v, __ATOMIC_RELEASE); }
static inline RW_HOT void rw_store_release32(void *_Nonnull p, uint32_t v) { __atomic_store_n((uint32_t *)p, v, __ATOMIC_RELEASE); }
static inline RW_HOT void rw_store_release64(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELEASE); }
static inline RW_HOT void rw_store_relaxed64(void *_Nonnull p, uint64_t v) { __atomic_store_n((uint64_t *)p, v, __ATOMIC_RELAXED); }
/* Stores `desired` if the field still is `expected`; not 0 when it did. */
static inline RW_HOT int rw_compare_and_swap32(void *_Nonnull p, uint32_t expected, uint32_t desired)
{
    return __atomic_compare_exchange_n((uint32_t *)p, &expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

/* Spin-wait hint. */
static inline RW_HOT void rw_pause(void)
{
#if defined(__x86_64__)
    __asm__ volatile("pause" ::: "memory");
#elif defined(__aarch64__)
    __asm__ volatile("yield" ::: "memory");
#endif
}
static inline RW_HOT void rw_prefetch(const void *_Nonnull p) { __builtin_prefetch(p); }
/* Copies bytes that do not overlap. */
static inline RW_HOT void rw_copy(void *_Nonnull to, const void *_Nonnull from, size_t count) { __builtin_memcpy(to, from, count); }
/* Time-stamp counter ticks, for cycles a packet; not a clock. */
static inline RW_HOT uint64_t rw_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t v;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
    return v;
#endif
}
#endif
