/* The daemon's side of netmap's socket: packets with descriptors from programs that are not trusted, and answers to them. */
#ifndef RINGWAY_RW_SERVE_H
#define RINGWAY_RW_SERVE_H
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "rw_io.h"

static const int RW_SO_DOMAIN = 39; /* asm-generic/socket.h */

/* What was left out of a packet: bytes of its own, or descriptors. */
static const uint32_t RW_CUT_BYTES = 1;
static const uint32_t RW_CUT_DESCRIPTORS = 2;

/*
 * Takes one packet that waits. The first `room` descriptors are kept, close-on-exec, and counted in *number; the others
 * are closed, and *cut says so, as it does when the kernel could not hand all of them over.
 */
static inline ssize_t rw_take_packet(
    int fd, void *_Nonnull bytes, size_t count, int *_Nonnull descriptors, uint32_t room, uint32_t *_Nonnull number, uint32_t *_Nonnull cut)
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
    *cut = 0;
    ssize_t length = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (length < 0) return length;
    if (message.msg_flags & MSG_TRUNC) *cut |= RW_CUT_BYTES;
    if (message.msg_flags & MSG_CTRUNC) *cut |= RW_CUT_DESCRIPTORS;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(&message); head; head = CMSG_NXTHDR(&message, head)) {
        if (head->cmsg_level != SOL_SOCKET || head->cmsg_type != SCM_RIGHTS) continue;
        size_t came = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < came; i++) {
            int one;
            memcpy(&one, CMSG_DATA(head) + i * sizeof(int), sizeof one);
            if (*number < room) {
                descriptors[(*number)++] = one;
            } else {
                close(one);
                *cut |= RW_CUT_DESCRIPTORS;
            }
        }
    }
    return length;
}

/* Sends one packet with up to 32 descriptors. Never waits. */
static inline ssize_t rw_answer_packet(int fd, const void *_Nonnull bytes, size_t count, const int *_Nullable descriptors, uint32_t number)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(32 * sizeof(int))];
    } control;
    struct iovec part = {(void *)bytes, count};
    struct msghdr message = {0};
    if (number > 32) {
        errno = EINVAL;
        return -1;
    }
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (number > 0 && descriptors) {
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
 * Not 0 for one end of a socket pair that carries packets: no name at either end. Nothing else is written to on behalf of
 * a program, which could hand over a socket that leads to somebody who takes this process for the sender.
 */
static inline int rw_is_packet_pair(int fd)
{
    int domain = 0, type = 0;
    socklen_t size = sizeof domain;
    struct sockaddr_un name;
    if (getsockopt(fd, SOL_SOCKET, RW_SO_DOMAIN, &domain, &size) != 0 || domain != AF_UNIX) return 0;
    size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) return 0;
    size = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &size) != 0 || size > offsetof(struct sockaddr_un, sun_path)) return 0;
    size = sizeof name;
    return getpeername(fd, (struct sockaddr *)&name, &size) == 0 && size <= offsetof(struct sockaddr_un, sun_path);
}

/* One byte to whoever waits on the other end; never waits, and nobody minds when there is no room. */
static inline RW_HOT void rw_nudge(int fd)
{
    static const char byte = 1;
    (void)send(fd, &byte, 1, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* As many descriptors as the process may have: soft limit to hard limit. How many that are. */
static inline uint64_t rw_most_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    if (limit.rlim_cur < limit.rlim_max) {
        struct rlimit more = {limit.rlim_max, limit.rlim_max};
        if (setrlimit(RLIMIT_NOFILE, &more) == 0) limit = more;
    }
    return (uint64_t)limit.rlim_cur;
}
#endif
