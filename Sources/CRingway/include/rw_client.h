/*
 * What a program's side of the daemon's sockets needs: raw system calls, which no preloaded library sees, messages that
 * carry descriptors, futexes on shared memory, read-modify-write on shared fields.
 */
#ifndef RINGWAY_RW_CLIENT_H
#define RINGWAY_RW_CLIENT_H
#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "rw_io.h"

static const int RW_F_DUPFD_CLOEXEC = 1030; /* F_DUPFD_CLOEXEC, linux/fcntl.h */

/* Each answers -1 with errno, as the C library's do. */
static inline int rw_raw_close(int fd) { return (int)syscall(SYS_close, fd); }
static inline int rw_raw_fcntl(int fd, int command, long value) { return (int)syscall(SYS_fcntl, fd, command, value); }
static inline int rw_raw_ioctl(int fd, unsigned long number, void *_Nullable argument) { return (int)syscall(SYS_ioctl, fd, number, argument); }
static inline void *_Nullable rw_raw_mmap(void *_Nullable at, size_t size, int protection, int flags, int fd, int64_t offset)
{
    long result = syscall(SYS_mmap, at, size, protection, flags, fd, offset);
    return result == -1 ? 0 : (void *)result;
}
/* ppoll(2). A null limit waits for ever. The kernel's signal set has 8 bytes. The limit is updated to what is left. */
static inline int rw_raw_poll(struct pollfd *_Nullable list, unsigned long count, struct timespec *_Nullable limit, const void *_Nullable signals)
{
    return (int)syscall(SYS_ppoll, list, count, limit, signals, signals ? 8 : 0);
}
/*
 * Blocks this thread's signals, but for those that an instruction of its own may raise, and answers the kernel's set as it
 * was. errno stays.
 */
static inline uint64_t rw_block_signals(void)
{
    const uint64_t own = 1ull << (SIGSEGV - 1) | 1ull << (SIGBUS - 1) | 1ull << (SIGFPE - 1) | 1ull << (SIGILL - 1) | 1ull << (SIGTRAP - 1) | 1ull << (SIGSYS - 1);
    uint64_t set = ~own, before = 0;
    int error = errno;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, &set, &before, 8);
    errno = error;
    return before;
}
static inline void rw_restore_signals(uint64_t before)
{
    int error = errno;
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, 0, 8);
    errno = error;
}
/* epoll_wait(2) without waiting. */
static inline int rw_raw_epoll(int fd, struct epoll_event *_Nonnull list, int room) { return (int)syscall(SYS_epoll_pwait, fd, list, room, 0, 0, 8); }
static inline uint64_t rw_file_inode(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? (uint64_t)status.st_ino ^ (uint64_t)status.st_dev << 48 : 0;
}
/* Bytes of a file, or -1. */
static inline int64_t rw_file_size(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? (int64_t)status.st_size : -1;
}

/* Sends one packet with up to 4 descriptors. */
static inline ssize_t rw_send_packet(int fd, const void *_Nonnull bytes, size_t count, const int *_Nullable descriptors, uint32_t number)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(4 * sizeof(int))];
    } control;
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {0};
    if (number > 4) {
        errno = EINVAL;
        return -1;
    }
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (number > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(number * sizeof(int));
        struct cmsghdr *head = CMSG_FIRSTHDR(&message);
        head->cmsg_level = SOL_SOCKET;
        head->cmsg_type = SCM_RIGHTS;
        head->cmsg_len = CMSG_LEN(number * sizeof(int));
        memcpy(CMSG_DATA(head), descriptors, number * sizeof(int));
    }
    return sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/*
 * Takes one packet that waits. At most `room` descriptors are kept, close-on-exec; more are closed. *number is how many
 * came and were kept. A packet longer than the buffer is -1 with EMSGSIZE, and its descriptors are closed.
 */
static inline ssize_t rw_receive_packet(int fd, void *_Nonnull bytes, size_t count, int *_Nonnull descriptors, uint32_t room, uint32_t *_Nonnull number)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(253 * sizeof(int))]; /* SCM_MAX_FD */
    } control;
    struct iovec part = {bytes, count};
    struct msghdr message = {0};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    *number = 0;
    ssize_t length = syscall(SYS_recvmsg, fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0) return length;
    int tooLong = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        size_t came = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < came; i++) {
            int one;
            memcpy(&one, CMSG_DATA(head) + i * sizeof(int), sizeof one);
            if (tooLong || *number >= room)
                rw_raw_close(one);
            else
                descriptors[(*number)++] = one;
        }
    }
    if (tooLong) {
        errno = EMSGSIZE;
        return -1;
    }
    return length;
}

/* Futexes that processes share. Wakeups, timeouts and changed values all look alike: the caller looks again. */
static inline void rw_futex_wait(uint32_t *_Nonnull word, uint32_t expected, uint64_t nanoseconds)
{
    struct timespec limit = {(time_t)(nanoseconds / 1000000000u), (long)(nanoseconds % 1000000000u)};
    syscall(SYS_futex, word, FUTEX_WAIT, expected, &limit, 0, 0);
}
static inline void rw_futex_wake(uint32_t *_Nonnull word) { syscall(SYS_futex, word, FUTEX_WAKE, 0x7fffffff, 0, 0, 0); }

/* Add and answer the new value: sequentially consistent. */
static inline RW_HOT uint32_t rw_add32(void *_Nonnull p, uint32_t n) { return __atomic_add_fetch((uint32_t *)p, n, __ATOMIC_SEQ_CST); }
static inline RW_HOT uint64_t rw_exchange64(void *_Nonnull p, uint64_t v) { return __atomic_exchange_n((uint64_t *)p, v, __ATOMIC_SEQ_CST); }

/* Bytes of this process's own memory, checked by the kernel: how many were copied, or -1 with EFAULT. */
static inline ssize_t rw_copy_in(void *_Nonnull to, uint64_t from, size_t count)
{
    struct iovec here = {to, count}, there = {(void *)(uintptr_t)from, count};
    return (ssize_t)syscall(SYS_process_vm_readv, (long)getpid(), &here, 1ul, &there, 1ul, 0ul);
}
static inline ssize_t rw_copy_out(uint64_t to, const void *_Nonnull from, size_t count)
{
    struct iovec here = {(void *)from, count}, there = {(void *)(uintptr_t)to, count};
    return (ssize_t)syscall(SYS_process_vm_writev, (long)getpid(), &here, 1ul, &there, 1ul, 0ul);
}

/* The path at the other end of a connected socket of the Unix domain: its length, or -1. */
static inline int rw_peer_path(int fd, char *_Nonnull path, uint32_t room)
{
    struct sockaddr_un address;
    socklen_t size = sizeof address;
    if (getpeername(fd, (struct sockaddr *)&address, &size) != 0 || address.sun_family != AF_UNIX) return -1;
    size_t length = size > offsetof(struct sockaddr_un, sun_path) ? strnlen(address.sun_path, size - offsetof(struct sockaddr_un, sun_path)) : 0;
    if (length == 0 || length >= room) return -1;
    memcpy(path, address.sun_path, length);
    path[length] = 0;
    return (int)length;
}
/* Connects to a path: 0, or -1 with errno. */
static inline int rw_connect_path(int fd, const char *_Nonnull path)
{
    struct sockaddr_un address = {0};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path, length);
    return connect(fd, (struct sockaddr *)&address, sizeof address);
}
#endif
