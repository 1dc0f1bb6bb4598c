/* Descriptors that are not netmap's: everything is as it is without the library. */
#include "../abi.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>

/* Pointers to nothing, which the compiler does not see through. */
static void *volatile nothing, *volatile nowhere = (void *)8;

static void bad_pointers(void) {
	CHECK_ERRNO(open(nothing, O_RDONLY), EFAULT);
	CHECK_ERRNO(poll(nowhere, 1, 0), EFAULT);
	CHECK_ERRNO(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, eventfd(0, 0), nowhere), EFAULT);
}

static void files(void) {
	char path[] = "/tmp/netmap-abi-XXXXXX";
	int fd = mkstemp(path);
	CHECK_OK(fd);
	CHECK_OK(unlink(path));
	CHECK_EQ(write(fd, "abcdef", 6), 6);
	char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(map != MAP_FAILED && !memcmp(map, "abcdef", 6));
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 1) == MAP_FAILED && errno == EINVAL);
	int copy = dup(fd);
	CHECK_OK(copy);
	CHECK_OK(close(fd));
	char text[7] = {0};
	CHECK_EQ(pread(copy, text, 6, 0), 6);
	CHECK_EQ(strcmp(text, "abcdef"), 0);
	CHECK_ERRNO(ioctl(copy, ABI_TXSYNC, NULL), ENOTTY);
	CHECK_EQ(poll_one(copy, POLLIN | POLLOUT, 0), POLLIN | POLLOUT);
	CHECK_OK(close(copy));
	CHECK_ERRNO(close(copy), EBADF);
}

static void opening(void) {
	char path[64];
	snprintf(path, sizeof path, "/tmp/netmap-abi-%d", (int)getpid());
	unlink(path);
	CHECK_ERRNO(open(path, O_RDONLY), ENOENT);
	mode_t before = umask(0);
	int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0640);
	umask(before);
	CHECK_OK(fd);
	struct stat status;
	CHECK_OK(fstat(fd, &status));
	CHECK_EQ(status.st_mode & 07777, 0640);
	CHECK_ERRNO(open(path, O_CREAT | O_EXCL | O_RDWR, 0640), EEXIST);
	CHECK_OK(unlink(path));
	CHECK_OK(close(fd));
	int folder = open("/tmp", O_RDONLY | O_DIRECTORY);
	CHECK_OK(folder);
	fd = openat(folder, ".", O_RDONLY | O_DIRECTORY);
	CHECK_OK(fd);
	CHECK_ERRNO(openat(folder, "netmap-abi-is-not-here", O_RDONLY), ENOENT);
	int temporary = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	if (temporary >= 0) CHECK_EQ(write(temporary, "x", 1), 1);
	FILE *stream = fopen("/proc/self/status", "r");
	CHECK(stream != NULL);
	CHECK(fgetc(stream) != EOF);
	fclose(stream);
}

static void pipes_and_sockets(void) {
	int ends[2], pair[2];
	CHECK_OK(pipe(ends));
	CHECK_OK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair));
	CHECK_EQ(poll_one(ends[0], POLLIN, 0), 0);
	CHECK_EQ(poll_one(ends[1], POLLOUT, 0), POLLOUT);
	CHECK_EQ(write(ends[1], "hello", 5), 5);
	int waiting = 0;
	CHECK_OK(ioctl(ends[0], 0x541b /* FIONREAD */, &waiting));
	CHECK_EQ(waiting, 5);
	CHECK_EQ(poll_one(ends[0], POLLIN, 0), POLLIN);
	CHECK_OK(close(ends[1]));
	char bytes[8];
	CHECK_EQ(read(ends[0], bytes, 8), 5);
	CHECK_EQ(poll_one(ends[0], POLLIN, 0), POLLHUP);
	/* A socket of the same kind as the library's own is not the library's. */
	CHECK(ioctl(pair[0], ABI_TXSYNC, NULL) == -1);
	CHECK_EQ(send(pair[0], "x", 1, 0), 1);
	CHECK_EQ(poll_one(pair[1], POLLIN, 0), POLLIN);
	CHECK_EQ(recv(pair[1], bytes, 8, 0), 1);
	CHECK_EQ(poll_one(pair[1], POLLIN, 10), 0);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, pair[0], 0) == MAP_FAILED && errno == ENODEV);
	CHECK_OK(shutdown(pair[0], SHUT_WR));
	CHECK_EQ(recv(pair[1], bytes, 8, 0), 0);
}

static void waiting(void) {
	int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), set = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event want = {.events = EPOLLIN | EPOLLET, .data.u64 = 42}, found[2];
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, event, &want));
	CHECK_EQ(epoll_wait(set, found, 2, 0), 0);
	CHECK_OK(eventfd_write(event, 1));
	CHECK_EQ(epoll_wait(set, found, 2, 1000), 1);
	CHECK_EQ(found[0].data.u64, 42);
	CHECK_EQ(epoll_wait(set, found, 2, 0), 0); /* an edge */
	CHECK_OK(eventfd_write(event, 1));
	CHECK_EQ(epoll_pwait(set, found, 2, 1000, NULL), 1);
	CHECK_ERRNO(epoll_wait(set, found, 0, 0), EINVAL);
	CHECK_ERRNO(epoll_wait(-1, found, 1, 0), EBADF);
	CHECK_ERRNO(epoll_ctl(set, EPOLL_CTL_ADD, event, &want), EEXIST);
	CHECK_ERRNO(epoll_ctl(set, EPOLL_CTL_DEL, 9999, NULL), EBADF);
	fd_set in;
	FD_ZERO(&in);
	FD_SET(event, &in);
	struct timeval time = {1, 500000};
	CHECK_EQ(select(event + 1, &in, NULL, NULL, &time), 1);
	CHECK(time.tv_sec == 1); /* select tells what is left of the time */
	time = (struct timeval){0, 50000};
	double start = now();
	CHECK_EQ(select(0, NULL, NULL, NULL, &time), 0);
	CHECK(now() - start >= 0.045);
	start = now();
	CHECK_EQ(poll(NULL, 0, 50), 0);
	CHECK(now() - start >= 0.045);
	struct pollfd nobody[2] = {{-1, POLLIN, 7}, {9999, POLLIN, 0}};
	CHECK_EQ(poll(nobody, 2, 0), 1);
	CHECK_EQ(nobody[0].revents, 0);
	CHECK_EQ(nobody[1].revents, POLLNVAL);
}

static void descriptors(void) {
	CHECK_ERRNO(dup(9999), EBADF);
	CHECK_ERRNO(dup2(9999, 5), EBADF);
	int fd = open("/dev/null", O_RDWR);
	CHECK_OK(fd);
	CHECK_ERRNO(dup3(fd, fd, 0), EINVAL);
	CHECK_EQ(dup2(fd, fd), fd);
	CHECK_EQ(fcntl(fd, F_DUPFD, 200), 200);
	CHECK_OK(fcntl(200, F_SETFD, FD_CLOEXEC));
	CHECK_EQ(fcntl(200, F_GETFD), FD_CLOEXEC);
	CHECK_OK(fcntl(fd, F_SETFL, O_NONBLOCK));
	CHECK_EQ(fcntl(fd, F_GETFL) & O_NONBLOCK, O_NONBLOCK);
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	CHECK_OK(fcntl(fd, F_GETLK, &lock));
	CHECK_OK(close_range(200, 200, 0));
	CHECK_ERRNO(fcntl(200, F_GETFD), EBADF);
	CHECK_ERRNO(fcntl(9999, F_GETFD), EBADF);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, 9999, 0) == MAP_FAILED && errno == EBADF);
}

static void beside_a_port(void) {
	/* The same, with a port open: the others are still nobody's business. */
	struct port port;
	open_port(&port, named("p%s%d{f", tag(), (int)getpid() % 10000), ABI_ALL_NIC, 0);
	files();
	opening();
	pipes_and_sockets();
	waiting();
	descriptors();
	CHECK_OK(txsync(&port));
}

const struct abi_case foreign_cases[] = {
	{"foreign/files", files, 0},
	{"foreign/opening", opening, 0},
	{"foreign/pipes-and-sockets", pipes_and_sockets, 0},
	{"foreign/waiting", waiting, 0},
	{"foreign/descriptors", descriptors, 0},
	{"foreign/bad-pointers", bad_pointers, 0},
	{"foreign/beside-a-port", beside_a_port, 0},
	{NULL, NULL, 0},
};
