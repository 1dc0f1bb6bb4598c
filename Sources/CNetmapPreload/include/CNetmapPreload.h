/*
 * What the preloaded library's two halves share: tables of descriptors, and the calls from one half to the other.
 *
 * A descriptor that stands for /dev/netmap is a socket. `inode` says which one it was when it was seen last; it outlives
 * a fork. What a process made for itself (its attachment) lies in memory that is empty after a fork (MADV_WIPEONFORK): a
 * child attaches by itself when it first uses the descriptor.
 */
#ifndef RINGWAY_CNETMAPPRELOAD_H
#define RINGWAY_CNETMAPPRELOAD_H
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/types.h>

/* Numbers that a netmap descriptor may have. */
#define RWP_DESCRIPTORS 65536
/* Netmap descriptors in epoll sets of one process. */
#define RWP_WATCHES 1024

/* The inode behind a number, 0 when it is none of ours. */
uint64_t rwp_inode(int fd);
/* Notes a descriptor as netmap's: 0, or -1 with errno (EMFILE beyond RWP_DESCRIPTORS, ENOMEM). */
int rwp_note(int fd, uint64_t inode);
/* Forgets a descriptor: its attachment, its places in epoll sets. */
void rwp_forget(int fd);
/* Whether the descriptor still is what it was when it was noted; forgets it otherwise. */
int rwp_check(int fd);

/* This process's attachment of a descriptor. The caller is counted as a user until rwp_release. */
void *_Nullable rwp_acquire(int fd);
void rwp_release(int fd);
/* Sets the attachment if there is none: not 0 when it was set. */
int rwp_install(int fd, void *_Nonnull attachment);

/* Descriptors of the library's own: the program's close(2) does not reach them. */
void rwp_own(int fd);
void rwp_close_own(int fd);

/* A netmap descriptor in an epoll set. */
struct rwp_watch {
    int epoll;
    int fd;
    uint32_t events;
    uint64_t data;
};
/* Copies a set's entries that are armed: how many there are, at most `room`. */
uint32_t rwp_watches(int epoll, struct rwp_watch *_Nonnull list, uint32_t room);
/* EPOLLONESHOT: the entry is silent until EPOLL_CTL_MOD. */
void rwp_silence(int epoll, int fd);

/* Swift's half. Results as the system calls': -1 with errno. */
#define RWP_NO_DAEMON (-2)
int rwp_swift_open(int flags); /* RWP_NO_DAEMON when nobody listens */
int rwp_swift_recognise(int fd); /* not 0 when the descriptor is a connection to the daemon; it is noted then */
int rwp_swift_ioctl(int fd, unsigned long number, void *_Nullable argument);
void *_Nonnull rwp_swift_mmap(void *_Nullable at, size_t size, int protection, int flags, int fd, int64_t offset);
int rwp_swift_poll(struct pollfd *_Nonnull list, unsigned long count, int64_t nanoseconds, const void *_Nullable signals);
int rwp_swift_epoll_wait(int epoll, struct epoll_event *_Nonnull list, int room, int64_t nanoseconds, const void *_Nullable signals);
int rwp_swift_interface(unsigned long number, void *_Nonnull request); /* SIOCGIF*: 0, or -1 */
void rwp_swift_drop(void *_Nonnull attachment);
void *_Nonnull rwp_swift_keep(void *_Nonnull attachment);

#endif
