/*
 * poll, select and epoll over sets with a netmap descriptor in them. Sets without one go to the C library.
 * All become one form here: poll entries, a limit in nanoseconds (-1: none), the kernel's signal set.
 */
#define _GNU_SOURCE
#include "CNetmapPreload.h"
#include "preload.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(type, name, ...) \
    static void *real; \
    type (*next)(__VA_ARGS__) = (type(*)(__VA_ARGS__))rwp_real(&real, name); \
    if (!next) { \
        errno = ENOSYS; \
        return (type)-1; \
    }

/*
 * Whether memory can be read: the kernel answers EFAULT where a look of ours would end the program. What lies near the
 * caller's frame on the stack is there.
 */
static int is_readable(const void *start, size_t bytes)
{
    char here, first, last;
    if (bytes == 0) return 1;
    if ((uintptr_t)start - (uintptr_t)&here < 65536 && bytes < 65536) return 1;
    struct iovec to[2] = {{&first, 1}, {&last, 1}};
    struct iovec from[2] = {{(void *)start, 1}, {(char *)start + bytes - 1, 1}};
    int error = errno;
    ssize_t copied = syscall(SYS_process_vm_readv, (long)getpid(), to, 2ul, from, 2ul, 0ul);
    int refused = copied < 0 && errno != EFAULT;
    errno = error;
    return copied == 2 || refused;
}

static int has_netmap(const struct pollfd *list, nfds_t count)
{
    if (!rwp_is_active() || count == 0 || count > RWP_DESCRIPTORS || !is_readable(list, count * sizeof *list)) return 0;
    int found = 0;
    for (nfds_t i = 0; i < count; i++)
        if (list[i].fd >= 0 && rwp_inode(list[i].fd) && rwp_check(list[i].fd)) found = 1;
    return found;
}
/* Nanoseconds; -1 for no limit, -2 for a time that is none. */
static int64_t nanoseconds(const struct timespec *limit)
{
    if (!limit) return -1;
    if (limit->tv_sec < 0 || limit->tv_nsec < 0 || limit->tv_nsec >= 1000000000) return -2;
    return limit->tv_sec > 9000000000 ? -1 : (int64_t)limit->tv_sec * 1000000000 + limit->tv_nsec;
}
static int invalid(void)
{
    errno = EINVAL;
    return -1;
}

RWP_EXPORT int poll(struct pollfd *list, nfds_t count, int milliseconds)
{
    if (has_netmap(list, count)) return rwp_swift_poll(list, count, milliseconds < 0 ? -1 : (int64_t)milliseconds * 1000000, 0);
    REAL(int, "poll", struct pollfd *, nfds_t, int)
    return next(list, count, milliseconds);
}
RWP_EXPORT int __poll_chk(struct pollfd *list, nfds_t count, int milliseconds, size_t bytes);
RWP_EXPORT int __poll_chk(struct pollfd *list, nfds_t count, int milliseconds, size_t bytes)
{
    if (bytes / sizeof *list >= count && has_netmap(list, count))
        return rwp_swift_poll(list, count, milliseconds < 0 ? -1 : (int64_t)milliseconds * 1000000, 0);
    REAL(int, "__poll_chk", struct pollfd *, nfds_t, int, size_t)
    return next(list, count, milliseconds, bytes);
}
static int ours_ppoll(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *signals)
{
    int64_t time = nanoseconds(limit);
    return time == -2 ? invalid() : rwp_swift_poll(list, count, time, signals);
}
RWP_EXPORT int ppoll(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *signals)
{
    if (has_netmap(list, count)) return ours_ppoll(list, count, limit, signals);
    REAL(int, "ppoll", struct pollfd *, nfds_t, const struct timespec *, const sigset_t *)
    return next(list, count, limit, signals);
}
RWP_EXPORT int __ppoll_chk(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *signals, size_t bytes);
RWP_EXPORT int __ppoll_chk(struct pollfd *list, nfds_t count, const struct timespec *limit, const sigset_t *signals, size_t bytes)
{
    if (bytes / sizeof *list >= count && has_netmap(list, count)) return ours_ppoll(list, count, limit, signals);
    REAL(int, "__ppoll_chk", struct pollfd *, nfds_t, const struct timespec *, const sigset_t *, size_t)
    return next(list, count, limit, signals, bytes);
}

/* select(2): sets become entries and come back. */

static int in_set(int fd, const fd_set *set) { return set && (((const unsigned long *)set)[fd / (8 * (int)sizeof(long))] >> (fd % (8 * (int)sizeof(long))) & 1); }
static void into_set(int fd, fd_set *set) { ((unsigned long *)set)[fd / (8 * (int)sizeof(long))] |= 1ul << (fd % (8 * (int)sizeof(long))); }

static int select_has_netmap(int count, const fd_set *read, const fd_set *write, const fd_set *except)
{
    if (!rwp_is_active() || count <= 0) return 0;
    size_t bytes = ((size_t)count + 7) / 8;
    if ((read && !is_readable(read, bytes)) || (write && !is_readable(write, bytes)) || (except && !is_readable(except, bytes))) return 0;
    int found = 0;
    for (int fd = 0; fd < count && fd < RWP_DESCRIPTORS; fd++)
        if (rwp_inode(fd) && (in_set(fd, read) || in_set(fd, write) || in_set(fd, except)) && rwp_check(fd)) found = 1;
    return found;
}

static int ours_select(int count, fd_set *read, fd_set *write, fd_set *except, int64_t time, const sigset_t *signals)
{
    struct pollfd *list = malloc(sizeof *list * (size_t)count);
    nfds_t used = 0;
    if (!list) {
        errno = ENOMEM;
        return -1;
    }
    for (int fd = 0; fd < count; fd++) {
        short events = 0;
        if (in_set(fd, read)) events |= POLLIN;
        if (in_set(fd, write)) events |= POLLOUT;
        if (in_set(fd, except)) events |= POLLPRI;
        if (events) list[used++] = (struct pollfd){fd, events, 0};
    }
    int result = rwp_swift_poll(list, used, time, signals);
    for (nfds_t i = 0; i < used && result > 0; i++) {
        if (list[i].revents & POLLNVAL) {
            errno = EBADF;
            result = -1;
        }
    }
    if (result >= 0) {
        size_t bytes = ((size_t)count + 8 * sizeof(long) - 1) / (8 * sizeof(long)) * sizeof(long);
        if (read) memset(read, 0, bytes);
        if (write) memset(write, 0, bytes);
        if (except) memset(except, 0, bytes);
        result = 0;
        for (nfds_t i = 0; i < used; i++) {
            short events = list[i].events, ready = list[i].revents;
            if (events & POLLIN && ready & (POLLIN | POLLHUP | POLLERR)) into_set(list[i].fd, read), result++;
            if (events & POLLOUT && ready & (POLLOUT | POLLERR)) into_set(list[i].fd, write), result++;
            if (events & POLLPRI && ready & POLLPRI) into_set(list[i].fd, except), result++;
        }
    }
    free(list);
    return result;
}

RWP_EXPORT int select(int count, fd_set *read, fd_set *write, fd_set *except, struct timeval *limit)
{
    if (select_has_netmap(count, read, write, except)) {
        if (limit && (limit->tv_sec < 0 || limit->tv_usec < 0)) return invalid();
        struct timespec before, after, time = {0};
        if (limit) time = (struct timespec){limit->tv_sec + limit->tv_usec / 1000000, limit->tv_usec % 1000000 * 1000};
        clock_gettime(CLOCK_MONOTONIC, &before);
        int result = ours_select(count, read, write, except, nanoseconds(limit ? &time : 0), 0);
        if (limit) {
            /* Linux says how much time was left. */
            int error = errno;
            clock_gettime(CLOCK_MONOTONIC, &after);
            int64_t left = nanoseconds(&time) - ((int64_t)(after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec);
            if (left < 0) left = 0;
            *limit = (struct timeval){left / 1000000000, left % 1000000000 / 1000};
            errno = error;
        }
        return result;
    }
    REAL(int, "select", int, fd_set *, fd_set *, fd_set *, struct timeval *)
    return next(count, read, write, except, limit);
}
RWP_EXPORT int pselect(int count, fd_set *read, fd_set *write, fd_set *except, const struct timespec *limit, const sigset_t *signals)
{
    if (select_has_netmap(count, read, write, except)) {
        int64_t time = nanoseconds(limit);
        return time == -2 ? invalid() : ours_select(count, read, write, except, time, signals);
    }
    REAL(int, "pselect", int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *)
    return next(count, read, write, except, limit, signals);
}

/* epoll(7): the kernel's set has the other descriptors; netmap's are in a table of our own. */

RWP_EXPORT int epoll_ctl(int epoll, int operation, int fd, struct epoll_event *event)
{
    REAL(int, "epoll_ctl", int, int, int, struct epoll_event *)
    if (!rwp_is_active() || !rwp_inode(fd) || !rwp_check(fd)) return next(epoll, operation, fd, event);
    /* The kernel says whether it is an epoll descriptor at all: netmap's are never in its set. */
    struct epoll_event none = {0, {0}};
    if (next(epoll, EPOLL_CTL_DEL, fd, &none) != 0 && errno != ENOENT) return -1;
    int error = rwp_watch_change(epoll, operation, fd, event);
    if (error == 0) return 0;
    errno = error;
    return -1;
}
static int ours_epoll(int epoll, struct epoll_event *events, int room, int64_t time, const sigset_t *signals)
{
    if (room <= 0) return invalid();
    if (!is_readable(events, sizeof *events)) {
        errno = EFAULT;
        return -1;
    }
    return rwp_swift_epoll_wait(epoll, events, room, time, signals);
}
RWP_EXPORT int epoll_wait(int epoll, struct epoll_event *events, int room, int milliseconds)
{
    if (rwp_is_active() && rwp_is_set(epoll)) return ours_epoll(epoll, events, room, milliseconds < 0 ? -1 : (int64_t)milliseconds * 1000000, 0);
    REAL(int, "epoll_wait", int, struct epoll_event *, int, int)
    return next(epoll, events, room, milliseconds);
}
RWP_EXPORT int epoll_pwait(int epoll, struct epoll_event *events, int room, int milliseconds, const sigset_t *signals)
{
    if (rwp_is_active() && rwp_is_set(epoll)) return ours_epoll(epoll, events, room, milliseconds < 0 ? -1 : (int64_t)milliseconds * 1000000, signals);
    REAL(int, "epoll_pwait", int, struct epoll_event *, int, int, const sigset_t *)
    return next(epoll, events, room, milliseconds, signals);
}
RWP_EXPORT int epoll_pwait2(int epoll, struct epoll_event *events, int room, const struct timespec *limit, const sigset_t *signals)
{
    if (rwp_is_active() && rwp_is_set(epoll)) {
        int64_t time = nanoseconds(limit);
        return time == -2 ? invalid() : ours_epoll(epoll, events, room, time, signals);
    }
    REAL(int, "epoll_pwait2", int, struct epoll_event *, int, const struct timespec *, const sigset_t *)
    return next(epoll, events, room, limit, signals);
}
