/*
 * The trampoline: functions of the C library that a netmap program calls, under their own names.
 *
 *   program ── open, mmap, ioctl, close … ──> here ── not ours ──> the C library's
 *                                               └─── ours ──────> Swift (module NetmapPreload)
 *
 * Until the process has a netmap descriptor, a wrapper looks at one word and forwards: no lock, no allocation, no Swift.
 * Waiting (poll, select, epoll) is in waiting.c.
 */
#define _GNU_SOURCE
#include "CNetmapPreload.h"
#include "preload.h"
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/sockios.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

void *rwp_real(void **slot, const char *name)
{
    void *found = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (!found) {
        found = dlsym(RTLD_NEXT, name);
        __atomic_store_n(slot, found, __ATOMIC_RELEASE);
    }
    return found;
}
/* Calls the function behind ours; ENOSYS where this C library has none. */
#define REAL(type, name, ...) \
    static void *real; \
    type (*next)(__VA_ARGS__) = (type(*)(__VA_ARGS__))rwp_real(&real, name); \
    if (!next) { \
        errno = ENOSYS; \
        return (type)-1; \
    }

/* open(2) and its relatives */

static int is_netmap(const char *path) { return path && path[0] == '/' && strcmp(path, "/dev/netmap") == 0; }

/* The daemon's answer to open("/dev/netmap"): 1 when there is one, with the result. */
static int opened(const char *path, int flags, int *result)
{
    if (!is_netmap(path)) return 0;
    *result = rwp_swift_open(flags);
    return *result != RWP_NO_DAEMON;
}
/* A number that the C library hands out anew is not what it was. */
static int fresh(int fd)
{
    if (fd >= 0 && rwp_is_active() && rwp_inode(fd)) {
        int before = errno;
        rwp_check(fd);
        errno = before;
    }
    return fd;
}
static int has_mode(int flags) { return (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE; }

#define OPEN(function) \
    RWP_EXPORT int function(const char *path, int flags, ...) \
    { \
        mode_t mode = 0; \
        int result; \
        if (has_mode(flags)) { \
            va_list list; \
            va_start(list, flags); \
            mode = va_arg(list, mode_t); \
            va_end(list); \
        } \
        if (opened(path, flags, &result)) return result; \
        REAL(int, #function, const char *, int, ...) \
        return fresh(next(path, flags, mode)); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function) \
    RWP_EXPORT int function(int directory, const char *path, int flags, ...) \
    { \
        mode_t mode = 0; \
        int result; \
        if (has_mode(flags)) { \
            va_list list; \
            va_start(list, flags); \
            mode = va_arg(list, mode_t); \
            va_end(list); \
        } \
        if (opened(path, flags, &result)) return result; \
        REAL(int, #function, int, const char *, int, ...) \
        return fresh(next(directory, path, flags, mode)); \
    }
OPENAT(openat)
OPENAT(openat64)

#define OPEN2(function) \
    RWP_EXPORT int function(const char *path, int flags); \
    RWP_EXPORT int function(const char *path, int flags) \
    { \
        int result; \
        if (opened(path, flags, &result)) return result; \
        REAL(int, #function, const char *, int) \
        return fresh(next(path, flags)); \
    }
OPEN2(__open_2)
OPEN2(__open64_2)

#define OPENAT2(function) \
    RWP_EXPORT int function(int directory, const char *path, int flags); \
    RWP_EXPORT int function(int directory, const char *path, int flags) \
    { \
        int result; \
        if (opened(path, flags, &result)) return result; \
        REAL(int, #function, int, const char *, int) \
        return fresh(next(directory, path, flags)); \
    }
OPENAT2(__openat_2)
OPENAT2(__openat64_2)

/* mmap(2) */

#define MMAP(function, offset_type) \
    RWP_EXPORT void *function(void *at, size_t size, int protection, int flags, int fd, offset_type offset) \
    { \
        int file = fd >= 0 && !(flags & MAP_ANONYMOUS); \
        if (file && rwp_is_active() && rwp_inode(fd)) return rwp_swift_mmap(at, size, protection, flags, fd, offset); \
        REAL(void *, #function, void *, size_t, int, int, int, offset_type) \
        void *result = next(at, size, protection, flags, fd, offset); \
        /* A socket cannot be mapped; one that came from another process may be netmap's. */ \
        if (result == MAP_FAILED && file && errno == ENODEV) { \
            if (rwp_swift_recognise(fd)) return rwp_swift_mmap(at, size, protection, flags, fd, offset); \
            errno = ENODEV; \
        } \
        return result; \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

/* ioctl(2) */

static int is_netmap_request(unsigned long number)
{
    switch (number) {
    case 0xc03c6991: /* NIOCGINFO */
    case 0xc03c6992: /* NIOCREGIF */
    case 0x6994:     /* NIOCTXSYNC */
    case 0x6995:     /* NIOCRXSYNC */
    case 0xc1106996: /* NIOCCONFIG */
    case 0xc0586997: /* NIOCCTRL */
        return 1;
    default: return 0;
    }
}

RWP_EXPORT int ioctl(int fd, unsigned long number, ...)
{
    va_list list;
    va_start(list, number);
    void *argument = va_arg(list, void *);
    va_end(list);
    /* Programs that keep the number in an int extend its sign. */
    unsigned long plain = number & 0xffffffffu;
    if (is_netmap_request(plain) && (rwp_inode(fd) || rwp_swift_recognise(fd))) return rwp_swift_ioctl(fd, plain, argument);
    REAL(int, "ioctl", int, unsigned long, ...)
    int result = next(fd, number, argument);
    if (result == -1 && errno == ENODEV && argument && (plain == SIOCGIFMTU || plain == SIOCGIFHWADDR || plain == SIOCGIFFLAGS)) {
        if (rwp_swift_interface(plain, argument) == 0) return 0;
        errno = ENODEV;
    }
    return result;
}

/* recvmsg(2): netmap descriptors that another process, or this one, passed on. A process that never had one before meets
   its first by ioctl or mmap. */

static void arrived(struct msghdr *message)
{
    int before = errno;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS || head->cmsg_len < CMSG_LEN(0)) continue;
        for (size_t i = 0; i < (head->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(head) + i * sizeof fd, sizeof fd);
            if (rwp_inode(fd)) rwp_check(fd);
            if (!rwp_inode(fd)) rwp_swift_recognise(fd);
        }
    }
    errno = before;
}

RWP_EXPORT ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    REAL(ssize_t, "recvmsg", int, struct msghdr *, int)
    ssize_t result = next(fd, message, flags);
    if (result >= 0 && rwp_is_active() && message->msg_controllen > 0) arrived(message);
    return result;
}
RWP_EXPORT int recvmmsg(int fd, struct mmsghdr *list, unsigned count, int flags, struct timespec *limit)
{
    REAL(int, "recvmmsg", int, struct mmsghdr *, unsigned, int, struct timespec *)
    int result = next(fd, list, count, flags, limit);
    for (int i = 0; i < result && rwp_is_active(); i++)
        if (list[i].msg_hdr.msg_controllen > 0) arrived(&list[i].msg_hdr);
    return result;
}

/* close(2) and its relatives */

RWP_EXPORT int close(int fd)
{
    if (rwp_is_active()) {
        if (rwp_is_own(fd)) {
            errno = EBADF;
            return -1;
        }
        if (rwp_inode(fd)) rwp_forget(fd);
        if (rwp_is_set(fd)) rwp_set_closed(fd);
    }
    REAL(int, "close", int)
    return next(fd);
}

/* The range without descriptors of the library's own. */
static int close_others(unsigned first, unsigned last)
{
    unsigned from = first, end = last < RWP_DESCRIPTORS ? last : RWP_DESCRIPTORS - 1;
    for (unsigned fd = first; fd <= end; fd++) {
        if (rwp_inode((int)fd)) rwp_forget((int)fd);
        if (rwp_is_set((int)fd)) rwp_set_closed((int)fd);
    }
    for (unsigned fd = first; fd <= end; fd++) {
        if (!rwp_is_own((int)fd)) continue;
        if (fd > from && syscall(SYS_close_range, from, fd - 1, 0) != 0) return -1;
        from = fd + 1;
    }
    return from <= last ? (int)syscall(SYS_close_range, from, last, 0) : 0;
}

RWP_EXPORT int close_range(unsigned first, unsigned last, int flags)
{
    if (rwp_is_active() && first <= last && !(flags & ~CLOSE_RANGE_UNSHARE)) {
        if (flags == 0) return close_others(first, last);
    }
    REAL(int, "close_range", unsigned, unsigned, int)
    return next(first, last, flags);
}

RWP_EXPORT void closefrom(int first)
{
    if (rwp_is_active()) {
        close_others(first < 0 ? 0 : (unsigned)first, UINT_MAX);
        return;
    }
    static void *real;
    void (*next)(int) = (void (*)(int))rwp_real(&real, "closefrom");
    if (next)
        next(first);
    else
        syscall(SYS_close_range, first < 0 ? 0 : first, UINT_MAX, 0);
}

/* dup(2) and its relatives */

static int copied(int from, int to)
{
    if (to >= 0 && to != from && rwp_is_active()) {
        int before = errno;
        rwp_copied(from, to);
        errno = before;
    }
    return to;
}

RWP_EXPORT int dup(int fd)
{
    REAL(int, "dup", int)
    return copied(fd, next(fd));
}
RWP_EXPORT int dup2(int fd, int to)
{
    if (rwp_is_active() && fd != to && rwp_is_own(to)) {
        errno = EBUSY;
        return -1;
    }
    REAL(int, "dup2", int, int)
    return copied(fd, next(fd, to));
}
RWP_EXPORT int dup3(int fd, int to, int flags)
{
    if (rwp_is_active() && fd != to && rwp_is_own(to)) {
        errno = EBUSY;
        return -1;
    }
    REAL(int, "dup3", int, int, int)
    return copied(fd, next(fd, to, flags));
}

#define FCNTL(function) \
    RWP_EXPORT int function(int fd, int command, ...) \
    { \
        va_list list; \
        va_start(list, command); \
        void *argument = va_arg(list, void *); \
        va_end(list); \
        REAL(int, #function, int, int, ...) \
        int result = next(fd, command, argument); \
        return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? copied(fd, result) : result; \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
