/* Kernel structures and request numbers. Macros that Swift cannot import become constants. */
#ifndef RINGWAY_RW_KERNEL_H
#define RINGWAY_RW_KERNEL_H
#include <dirent.h>
#include "rw_io.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <linux/pci_regs.h>
#include <linux/rtnetlink.h>
#include <linux/vfio.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/vfs.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Variadic calls, which Swift cannot make. */
static inline int rw_ioctl(int fd, unsigned long request, void *_Nullable argument) { return ioctl(fd, request, argument); }
static inline int rw_ioctl_value(int fd, unsigned long request, unsigned long value) { return ioctl(fd, request, value); }
static inline int rw_fcntl(int fd, int command, int value) { return fcntl(fd, command, value); }
static inline int rw_open(const char *_Nonnull path, int flags, unsigned mode) { return open(path, flags, mode); }
static inline int rw_memfd_create(const char *_Nonnull name, unsigned flags) { return (int)syscall(SYS_memfd_create, name, flags); }
/* unshare(2): glibc declares it for GNU sources only. CLONE_NEWNET is 0x40000000. */
static inline int rw_unshare(int flags) { return (int)syscall(SYS_unshare, flags); }
/* setns(2), likewise. */
static inline int rw_setns(int fd, int type) { return (int)syscall(SYS_setns, fd, type); }
static inline long rw_mbind(void *_Nonnull start, unsigned long length, int mode, const unsigned long *_Nonnull mask, unsigned long max_node, unsigned flags)
{
    return syscall(SYS_mbind, start, length, mode, mask, max_node, flags);
}
static inline int rw_pin_thread(unsigned cpu)
{
    unsigned long mask[16] = {0}; /* 1024 processors, the kernel's own default */
    if (cpu >= 1024) {
        errno = EINVAL;
        return -1;
    }
    mask[cpu / 64] = 1ul << (cpu % 64);
    return (int)syscall(SYS_sched_setaffinity, 0, sizeof(mask), mask);
}

/* accept4(2), which glibc declares for GNU sources only. */
static inline int rw_accept(int fd, int flags) { return (int)syscall(SYS_accept4, fd, 0, 0, flags); }
/* poll(2) with a limit in nanoseconds. glibc's ppoll is for GNU sources only. */
static inline int rw_poll(struct pollfd *_Nonnull list, unsigned long count, uint64_t nanoseconds)
{
    struct timespec limit = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    return (int)syscall(SYS_ppoll, list, count, &limit, 0, 0);
}
static inline int rw_name_thread(const char *_Nonnull name) { return prctl(PR_SET_NAME, name); }
/* RLIMIT_MEMLOCK in bytes; all ones when there is no limit. */
static inline uint64_t rw_memory_lock_limit(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 ? (uint64_t)limit.rlim_cur : UINT64_MAX;
}
/* errno is a macro over a function. */
static inline int rw_errno(void) { return errno; }
static inline void rw_set_errno(int value) { errno = value; }
/* The raw call, which says how many bytes of the mask it filled (glibc's wrapper does not). */
static inline long rw_thread_cpus(void *_Nonnull mask, unsigned long bytes)
{
    return syscall(SYS_sched_getaffinity, 0, bytes, mask);
}
/* d_name is an array that may be longer than its type says. */
static inline const char *_Nonnull rw_entry_name(const struct dirent *_Nonnull entry) { return entry->d_name; }

/* fstatfs(2): the filesystem's magic number (linux/magic.h) and its block size, a page's in a hugetlbfs. 0: it failed. */
static inline uint32_t rw_filesystem(int fd, uint64_t *_Nonnull block)
{
    struct statfs status;
    if (fstatfs(fd, &status) != 0) return 0;
    *block = (uint64_t)status.f_bsize;
    return (uint32_t)status.f_type;
}

/* Adds one to an eventfd; a negative descriptor is nobody. */
static inline RW_HOT void rw_signal_event(int fd)
{
    if (fd >= 0) (void)eventfd_write(fd, 1);
}

/* memfd_create(2) and fcntl(2) seals. */
static const unsigned RW_MFD_CLOEXEC = MFD_CLOEXEC;
static const unsigned RW_MFD_HUGETLB = MFD_HUGETLB;
static const unsigned RW_MFD_ALLOW_SEALING = MFD_ALLOW_SEALING;
static const unsigned RW_MFD_HUGE_SHIFT = 26;
static const int RW_F_ADD_SEALS = 1033; /* F_ADD_SEALS, linux/fcntl.h */
static const int RW_F_GET_SEALS = 1034; /* F_GET_SEALS */
static const int RW_F_SEAL_SIZE = 0x0007; /* SEAL, SHRINK, GROW */
static const int RW_F_SEAL_ALL = 0x000f; /* SEAL, SHRINK, GROW, WRITE */

/* TAP interfaces (Documentation/networking/tuntap.rst, linux/if_tun.h) and interface flags (netdevice(7)). */
static const unsigned long RW_TUNSETIFF = TUNSETIFF;
static const unsigned long RW_SIOCGIFFLAGS = 0x8913; /* SIOCGIFFLAGS, linux/sockios.h */
static const int RW_CLONE_NEWNET = 0x40000000;

/* VFIO requests (Documentation/driver-api/vfio.rst and linux/vfio.h). */
static const unsigned long RW_VFIO_GET_API_VERSION = VFIO_GET_API_VERSION;
static const unsigned long RW_VFIO_CHECK_EXTENSION = VFIO_CHECK_EXTENSION;
static const unsigned long RW_VFIO_SET_IOMMU = VFIO_SET_IOMMU;
static const unsigned long RW_VFIO_GROUP_GET_STATUS = VFIO_GROUP_GET_STATUS;
static const unsigned long RW_VFIO_GROUP_SET_CONTAINER = VFIO_GROUP_SET_CONTAINER;
static const unsigned long RW_VFIO_GROUP_UNSET_CONTAINER = VFIO_GROUP_UNSET_CONTAINER;
static const unsigned long RW_VFIO_GROUP_GET_DEVICE_FD = VFIO_GROUP_GET_DEVICE_FD;
static const unsigned long RW_VFIO_DEVICE_GET_INFO = VFIO_DEVICE_GET_INFO;
static const unsigned long RW_VFIO_DEVICE_GET_REGION_INFO = VFIO_DEVICE_GET_REGION_INFO;
static const unsigned long RW_VFIO_DEVICE_GET_IRQ_INFO = VFIO_DEVICE_GET_IRQ_INFO;
static const unsigned long RW_VFIO_DEVICE_SET_IRQS = VFIO_DEVICE_SET_IRQS;
static const unsigned long RW_VFIO_DEVICE_RESET = VFIO_DEVICE_RESET;
static const unsigned long RW_VFIO_IOMMU_GET_INFO = VFIO_IOMMU_GET_INFO;
static const unsigned long RW_VFIO_IOMMU_MAP_DMA = VFIO_IOMMU_MAP_DMA;
static const unsigned long RW_VFIO_IOMMU_UNMAP_DMA = VFIO_IOMMU_UNMAP_DMA;
#endif
