/* Tables of descriptors: CNetmapPreload.h says what for. Readers take no lock: some are signal handlers. */
#define _GNU_SOURCE
#include "CNetmapPreload.h"
#include "preload.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

struct slot {
    void *attachment;
    uint32_t users;
};

unsigned rwp_active;
static uint64_t inodes[RWP_DESCRIPTORS];
static uint8_t owned[RWP_DESCRIPTORS];
static uint8_t sets[RWP_DESCRIPTORS]; /* epoll descriptors with entries below */
static struct slot *slots;            /* one a descriptor, empty after a fork */
static struct rwp_watch watches[RWP_WATCHES];
static uint32_t watch_count;
static int owned_list[512];
static uint32_t owned_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* watches and owned_list */

static int in_range(int fd) { return fd >= 0 && fd < RWP_DESCRIPTORS; }

/* A fork finds the lock free in the child, and no descriptor that the child did not make. */
static void before_fork(void) { pthread_mutex_lock(&lock); }
static void in_parent(void) { pthread_mutex_unlock(&lock); }
static void in_child(void)
{
    for (uint32_t i = 0; i < owned_count; i++) {
        __atomic_store_n(&owned[owned_list[i]], 0, __ATOMIC_RELEASE);
        syscall(SYS_close, owned_list[i]);
    }
    owned_count = 0;
    pthread_mutex_unlock(&lock);
}

static void start(void)
{
    size_t bytes = sizeof(struct slot) * RWP_DESCRIPTORS;
    void *made = (void *)syscall(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0L);
    if (made == MAP_FAILED) return;
    if (madvise(made, bytes, MADV_WIPEONFORK) != 0) {
        munmap(made, bytes);
        return;
    }
    pthread_atfork(before_fork, in_parent, in_child);
    __atomic_store_n(&slots, made, __ATOMIC_RELEASE);
}

static uint64_t inode_of(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0 || !S_ISSOCK(status.st_mode)) return 0;
    return (uint64_t)status.st_ino;
}

uint64_t rwp_inode(int fd) { return in_range(fd) ? __atomic_load_n(&inodes[fd], __ATOMIC_ACQUIRE) : 0; }

int rwp_note(int fd, uint64_t inode)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    if (!in_range(fd)) {
        errno = EMFILE;
        return -1;
    }
    if (!slots || (inode == 0 && (inode = inode_of(fd)) == 0)) {
        errno = ENOMEM;
        return -1;
    }
    if (rwp_inode(fd) != inode) rwp_forget(fd);
    __atomic_store_n(&inodes[fd], inode, __ATOMIC_RELEASE);
    __atomic_store_n(&rwp_active, 1, __ATOMIC_RELEASE);
    return 0;
}

void rwp_forget(int fd)
{
    if (!in_range(fd)) return;
    __atomic_store_n(&inodes[fd], 0, __ATOMIC_RELEASE);
    if (!slots) return;
    void *old = __atomic_exchange_n(&slots[fd].attachment, (void *)0, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&watch_count, __ATOMIC_ACQUIRE) != 0) {
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < watch_count;) {
            if (watches[i].fd == fd)
                watches[i] = watches[--watch_count];
            else
                i++;
        }
        pthread_mutex_unlock(&lock);
    }
    if (!old) return;
    /* Users hold it for a few instructions, to count themselves in. One that this very thread interrupted never ends
       meanwhile: then the attachment is kept for good. */
    for (int i = 0; i < 1000; i++) {
        if (__atomic_load_n(&slots[fd].users, __ATOMIC_SEQ_CST) == 0) {
            rwp_swift_drop(old);
            return;
        }
        sched_yield();
    }
}

int rwp_check(int fd)
{
    uint64_t noted = rwp_inode(fd);
    if (noted == 0) return 0;
    if (inode_of(fd) == noted) return 1;
    rwp_forget(fd);
    return 0;
}

void *rwp_acquire(int fd)
{
    if (!in_range(fd) || !slots) return 0;
    __atomic_add_fetch(&slots[fd].users, 1, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&slots[fd].attachment, __ATOMIC_SEQ_CST);
}
void rwp_release(int fd)
{
    if (in_range(fd) && slots) __atomic_sub_fetch(&slots[fd].users, 1, __ATOMIC_SEQ_CST);
}
int rwp_install(int fd, void *attachment)
{
    void *none = 0;
    return in_range(fd) && slots && __atomic_compare_exchange_n(&slots[fd].attachment, &none, attachment, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* A second number for what `from` is. */
void rwp_copied(int from, int to)
{
    if (rwp_inode(to)) rwp_forget(to);
    uint64_t inode = rwp_inode(from);
    if (inode == 0 || rwp_note(to, inode) != 0) return;
    void *attachment = rwp_acquire(from);
    if (attachment) attachment = rwp_swift_keep(attachment);
    rwp_release(from);
    if (attachment && !rwp_install(to, attachment)) rwp_swift_drop(attachment);
}

/* Our own descriptors */

int rwp_is_own(int fd) { return in_range(fd) && __atomic_load_n(&owned[fd], __ATOMIC_ACQUIRE); }

void rwp_own(int fd)
{
    if (!in_range(fd)) return;
    pthread_mutex_lock(&lock);
    if (owned_count < sizeof owned_list / sizeof owned_list[0]) {
        owned_list[owned_count++] = fd;
        __atomic_store_n(&owned[fd], 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&lock);
}

void rwp_close_own(int fd)
{
    if (in_range(fd)) {
        pthread_mutex_lock(&lock);
        for (uint32_t i = 0; i < owned_count; i++) {
            if (owned_list[i] == fd) {
                owned_list[i] = owned_list[--owned_count];
                break;
            }
        }
        __atomic_store_n(&owned[fd], 0, __ATOMIC_RELEASE);
        pthread_mutex_unlock(&lock);
    }
    syscall(SYS_close, fd);
}

/* Epoll sets */

int rwp_is_set(int epoll) { return in_range(epoll) && __atomic_load_n(&sets[epoll], __ATOMIC_ACQUIRE); }

/* The entry's place, or -1. With the lock. */
static int place(int epoll, int fd)
{
    for (uint32_t i = 0; i < watch_count; i++)
        if (watches[i].epoll == epoll && watches[i].fd == fd) return (int)i;
    return -1;
}

int rwp_watch_change(int epoll, int operation, int fd, const struct epoll_event *event)
{
    int result = 0;
    if (!in_range(epoll)) return EBADF;
    if (operation != EPOLL_CTL_DEL && !event) return EFAULT;
    pthread_mutex_lock(&lock);
    int at = place(epoll, fd);
    if (operation == EPOLL_CTL_ADD) {
        if (at >= 0)
            result = EEXIST;
        else if (watch_count == RWP_WATCHES)
            result = ENOSPC;
        else {
            watches[watch_count++] = (struct rwp_watch){epoll, fd, event->events, event->data.u64};
            __atomic_store_n(&sets[epoll], 1, __ATOMIC_RELEASE);
        }
    } else if (at < 0)
        result = ENOENT;
    else if (operation == EPOLL_CTL_MOD)
        watches[at] = (struct rwp_watch){epoll, fd, event->events, event->data.u64};
    else if (operation == EPOLL_CTL_DEL)
        watches[at] = watches[--watch_count];
    else
        result = EINVAL;
    pthread_mutex_unlock(&lock);
    return result;
}

uint32_t rwp_watches(int epoll, struct rwp_watch *list, uint32_t room)
{
    uint32_t count = 0;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < watch_count && count < room; i++)
        if (watches[i].epoll == epoll && watches[i].events != 0) list[count++] = watches[i];
    pthread_mutex_unlock(&lock);
    return count;
}

void rwp_silence(int epoll, int fd)
{
    pthread_mutex_lock(&lock);
    int at = place(epoll, fd);
    if (at >= 0) watches[at].events = 0;
    pthread_mutex_unlock(&lock);
}

/* An epoll descriptor is closed. */
void rwp_set_closed(int epoll)
{
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < watch_count;) {
        if (watches[i].epoll == epoll)
            watches[i] = watches[--watch_count];
        else
            i++;
    }
    __atomic_store_n(&sets[epoll], 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&lock);
}
