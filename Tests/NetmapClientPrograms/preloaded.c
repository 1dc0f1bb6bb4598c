/*
 * A program for the netmap kernel module, as far as the tests' loop port goes: built by cc, run with the preloaded
 * library. It knows only the public binary interface. Prints the line of the first expectation that does not hold.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHECK(what) \
    do { \
        if (!(what)) { \
            fprintf(stderr, "line %d: %s (errno %d)\n", __LINE__, #what, errno); \
            exit(1); \
        } \
    } while (0)
#define FAILS(what, code) CHECK((errno = 0, (what) == -1 && errno == (code)))

#define NIOCTXSYNC 0x6994
#define NIOCRXSYNC 0x6995
#define NIOCCTRL 0xc0586997ul

struct header {
    uint16_t version, type;
    uint32_t reserved;
    char name[64];
    uint64_t options, body;
};
struct reg {
    uint64_t offset, memsize;
    uint32_t tx_slots, rx_slots;
    uint16_t tx_rings, rx_rings, host_tx, host_rx, mem_id, ringid;
    uint32_t mode, extra;
    uint64_t flags;
};
struct ring {
    int64_t buf_ofs;
    uint32_t num_slots, buf_size;
    uint16_t id, dir;
    uint32_t head, cur, tail, flags;
};
struct slot {
    uint32_t index;
    uint16_t len, flags;
    uint64_t ptr;
};

static struct ring *tx, *rx;
static char *memory;
static size_t bytes;

static struct slot *slot(struct ring *r, uint32_t i) { return (struct slot *)((char *)r + 256) + i; }
static char *buffer(struct ring *r, uint32_t i) { return (char *)r + r->buf_ofs + (size_t)i * r->buf_size; }

static int enroll(int fd, const char *name, struct reg *reg)
{
    struct header h = {.version = 14, .type = 1, .body = (uintptr_t)reg};
    strcpy(h.name, name);
    memset(reg, 0, sizeof *reg);
    reg->mode = 1;
    return ioctl(fd, NIOCCTRL, &h);
}
static void map(int fd, size_t size)
{
    memory = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(memory != MAP_FAILED);
    tx = (struct ring *)(memory + 4096);
    rx = (struct ring *)(memory + 8192);
    CHECK(tx->num_slots == 16 && rx->dir == 1);
}
static void put(char value)
{
    struct slot *s = slot(tx, tx->head);
    s->len = 60;
    buffer(tx, s->index)[0] = value;
    tx->head = tx->cur = (tx->head + 1) % 16;
}
static int get(void)
{
    if (rx->head == rx->tail) return -1;
    int value = buffer(rx, slot(rx, rx->head)->index)[0];
    rx->head = rx->cur = (rx->head + 1) % 16;
    return value;
}
/* Sends and gets back, with poll alone. */
static void turn(int fd, char value)
{
    struct pollfd p = {fd, POLLIN, 0};
    put(value);
    CHECK(poll(&p, 1, 2000) == 1 && p.revents == POLLIN);
    CHECK(get() == value);
    CHECK(get() == -1);
}

static void errors(int fd)
{
    struct pollfd p = {fd, POLLIN | POLLOUT, 0};
    CHECK(poll(&p, 1, 2000) == 1 && p.revents == POLLERR);
    FAILS(ioctl(fd, NIOCTXSYNC, 0), ENXIO);
    FAILS(ioctl(fd, NIOCCTRL, (void *)8), EFAULT);
    FAILS((long)mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0), EINVAL);
    struct reg reg;
    FAILS(enroll(fd, "missing", &reg), ENXIO);
    struct header h = {.version = 3, .type = 1, .body = (uintptr_t)&reg};
    FAILS(ioctl(fd, NIOCCTRL, &h), EINVAL);
    h.version = 14;
    h.body = 0;
    FAILS(ioctl(fd, NIOCCTRL, &h), EINVAL);
    h.body = 16;
    FAILS(ioctl(fd, NIOCCTRL, &h), EFAULT);
}

static void waits(int fd)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    struct pollfd *volatile nowhere = (struct pollfd *)64;
    FAILS(poll(nowhere, 1, 0), EFAULT);
    struct pollfd list[2] = {{ends[0], POLLIN, 0}, {fd, POLLIN, 0}};
    CHECK(poll(list, 2, 20) == 0);
    CHECK(write(ends[1], "x", 1) == 1);
    CHECK(poll(list, 2, -1) == 1 && list[0].revents == POLLIN && list[1].revents == 0);
    put(1);
    CHECK(poll(list, 2, 0) >= 1 && list[0].revents == POLLIN);
    list[0].fd = -1;
    CHECK(poll(list, 2, 2000) == 1 && list[1].revents == POLLIN && get() == 1);

    fd_set read_set, write_set;
    struct timeval time = {2, 0};
    FD_ZERO(&read_set);
    FD_ZERO(&write_set);
    FD_SET(fd, &read_set);
    FD_SET(fd, &write_set);
    FD_SET(ends[0], &read_set);
    put(2);
    CHECK(select(fd + 8, &read_set, &write_set, 0, &time) >= 2);
    CHECK(FD_ISSET(ends[0], &read_set) && FD_ISSET(fd, &write_set));
    FD_CLR(ends[0], &read_set);
    FD_SET(fd, &read_set);
    CHECK(select(fd + 1, &read_set, 0, 0, &time) == 1 && FD_ISSET(fd, &read_set) && get() == 2);
    time = (struct timeval){0, 30000};
    CHECK(select(fd + 1, &read_set, 0, 0, &time) == 0 && time.tv_sec == 0 && time.tv_usec == 0 && !FD_ISSET(fd, &read_set));

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {EPOLLIN, {.u64 = 0x1234567890abcdef}}, found[4];
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    FAILS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), EEXIST);
    FAILS(epoll_ctl(ends[0], EPOLL_CTL_ADD, fd, &event), EINVAL);
    event.data.u64 = 7;
    CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends[0], &event) == 0);
    put(3);
    CHECK(epoll_wait(epoll, found, 4, 2000) >= 1);
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);
    CHECK(epoll_wait(epoll, found, 4, 2000) == 1 && found[0].data.u64 == 0x1234567890abcdef && found[0].events == EPOLLIN && get() == 3);
    CHECK(epoll_wait(epoll, found, 4, 10) == 0);
    event = (struct epoll_event){EPOLLIN | EPOLLOUT | EPOLLONESHOT, {.u64 = 9}};
    CHECK(epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0);
    CHECK(epoll_wait(epoll, found, 1, 2000) == 1 && found[0].data.u64 == 9 && found[0].events == EPOLLOUT);
    CHECK(epoll_wait(epoll, found, 4, 10) == 0);
    CHECK(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0) == 0);
    FAILS(epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0), ENOENT);
    close(epoll);
    close(ends[0]);
    close(ends[1]);
}

static void on_signal(int number) { (void)number; }

static void signals(int fd)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct pollfd p = {fd, POLLIN, 0};
    sigset_t all, none;
    sigaction(SIGALRM, &action, 0);
    ualarm(150000, 0);
    FAILS(poll(&p, 1, 5000), EINTR);
    /* Blocked but for the wait. */
    sigfillset(&all);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &all, 0);
    raise(SIGALRM);
    FAILS(ppoll(&p, 1, 0, &none), EINTR);
    sigprocmask(SIG_SETMASK, &none, 0);
}

static int passed_on(int fd)
{
    int pair[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    char space[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    *head = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(head), &fd, sizeof fd);
    CHECK(sendmsg(pair[0], &message, 0) == 1);
    memset(space, 0, sizeof space);
    CHECK(recvmsg(pair[1], &message, 0) == 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    close(pair[0]);
    close(pair[1]);
    return fd;
}

static void copies(int fd)
{
    int second = dup(fd), third = fcntl(fd, F_DUPFD_CLOEXEC, 40), fourth = passed_on(fd);
    CHECK(second > fd && third >= 40 && fourth > fd);
    close(fd);
    turn(second, 11);
    turn(third, 12);
    /* Only an ioctl says what this one is. */
    put(13);
    CHECK(ioctl(fourth, NIOCTXSYNC, 0) == 0 && ioctl(fourth, NIOCRXSYNC, 0) == 0 && get() == 13);
    turn(fourth, 14);
    /* Passed on, and closed here: nothing but the message says what it is. */
    int fifth = passed_on(fourth);
    close(fourth);
    fourth = passed_on(fifth);
    turn(fourth, 17);
    close(fifth);
    CHECK(dup2(second, fd) == fd);
    turn(fd, 15);
    close(second);
    close(third);
    close(fourth);
    turn(fd, 16);
}

static void family(int fd, const char *self)
{
    for (int round = 0; round < 3; round++) {
        pid_t child = fork();
        if (child == 0) {
            turn(fd, (char)(20 + round));
            CHECK(ioctl(fd, NIOCRXSYNC, 0) == 0);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        turn(fd, (char)(30 + round));
    }
    pid_t child = fork();
    if (child == 0) {
        char number[16], size[32];
        sprintf(number, "%d", fd);
        sprintf(size, "%zu", bytes);
        execl(self, self, number, size, (char *)0);
        _exit(9);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    turn(fd, 40);
}

static void *closer(void *argument)
{
    for (int i = 0; i < 200; i++) {
        int copy = dup(*(int *)argument);
        struct pollfd p = {copy, POLLOUT, 0};
        CHECK(poll(&p, 1, 1000) == 1);
        close(copy);
    }
    return 0;
}

int main(int count, char **words)
{
    if (count > 1) {
        /* Started by a relative, which left the descriptor open. */
        int fd = atoi(words[1]);
        map(fd, strtoul(words[2], 0, 10));
        turn(fd, 50);
        return 0;
    }
    FAILS(open("/dev/netmap-is-not-here", O_RDWR), ENOENT);
    int fd = open("/dev/netmap", O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    close(fd);
    fd = openat(AT_FDCWD, "/dev/netmap", O_RDWR | O_NONBLOCK);
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == 0 && fcntl(fd, F_GETFL) & O_NONBLOCK);
    errors(fd);
    struct reg reg;
    CHECK(enroll(fd, "fake0", &reg) == 0 && reg.mem_id == 1);
    struct reg again;
    FAILS(enroll(fd, "fake0", &again), EBUSY);
    bytes = reg.memsize;
    FAILS((long)mmap(0, bytes + 4096, PROT_READ, MAP_SHARED, fd, 0), EINVAL);
    FAILS((long)mmap(0, 4096, PROT_READ, MAP_SHARED, fd, (off_t)(bytes + 4095) & ~4095l), EINVAL);
    FAILS((long)mmap(0, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0), EACCES);
    map(fd, bytes);
    turn(fd, 5);
    waits(fd);
    signals(fd);
    copies(fd);
    family(fd, words[0]);
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], 0, closer, &fd) == 0);
    for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], 0) == 0);
    turn(fd, 60);

    /* Programs that close everything they know of. */
    for (int i = fd + 1; i < 1024; i++) close(i);
    turn(fd, 61);
    CHECK(close_range((unsigned)fd + 1, ~0u, 0) == 0);
    turn(fd, 62);

    struct ifreq request = {0};
    int any = socket(AF_INET, SOCK_DGRAM, 0);
    strcpy(request.ifr_name, "fake0");
    CHECK(ioctl(any, SIOCGIFMTU, &request) == 0 && request.ifr_mtu == 1400);
    CHECK(ioctl(any, SIOCGIFHWADDR, &request) == 0 && (unsigned char)request.ifr_hwaddr.sa_data[5] == 9);
    strcpy(request.ifr_name, "fake7");
    FAILS(ioctl(any, SIOCGIFMTU, &request), ENODEV);

    close(fd);
    CHECK(open("/dev/null", O_RDONLY) >= 0);
    struct pollfd p = {fd, POLLIN, 0};
    CHECK(poll(&p, 1, 1000) == 1 && p.revents == POLLIN);
    puts("fine");
    return 0;
}
