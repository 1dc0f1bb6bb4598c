/* Duplicates of a descriptor, and numbers that come back as other files. */
#include "../abi.h"

#include <dirent.h>
#include <linux/close_range.h>

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b) {
	open_port(a, end("{1"), ABI_ALL_NIC, 0);
	open_port(b, end("}1"), ABI_ALL_NIC, 0);
}

static int held_apart(const char *name) {
	struct port probe = {.fd = device()};
	int error = try_register(&probe, name, ABI_ALL_NIC, 0);
	close(probe.fd);
	return error;
}

static void use(struct port *a, struct port *b, int fd, uint32_t seed) {
	struct port copy = *b;
	copy.fd = fd;
	send_frame(a, 60, broadcast, host_mac(1), seed);
	CHECK_EQ(poll_one(fd, POLLIN, 2000), POLLIN);
	expect_frame(&copy, 60, seed);
}

static void duplicates(void) {
	struct port a, b;
	pair(&a, &b);
	int fds[] = {dup(b.fd), dup2(b.fd, 100), dup3(b.fd, 101, O_CLOEXEC), fcntl(b.fd, F_DUPFD, 102), fcntl(b.fd, F_DUPFD_CLOEXEC, 110)};
	for (int i = 0; i < 5; i++) CHECK_OK(fds[i]);
	CHECK_EQ(fcntl(fds[2], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(fcntl(fds[4], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
	CHECK_EQ(fcntl(fds[3], F_GETFD) & FD_CLOEXEC, 0);
	for (uint32_t i = 0; i < 5; i++) use(&a, &b, fds[i], i);
	CHECK_OK(close(b.fd));
	for (uint32_t i = 0; i < 5; i++) {
		use(&a, &b, fds[i], 10 + i);
		CHECK_OK(close(fds[i]));
	}
	CHECK_ERRNO(ioctl(fds[4], ABI_TXSYNC, NULL), EBADF);
	CHECK_ERRNO(ioctl(b.fd, ABI_TXSYNC, NULL), EBADF);
}

static void dup2_over_a_port(void) {
	/* The number becomes another file's, and the port is closed with it. */
	struct port a;
	const char *name = vale("a");
	open_port(&a, name, ABI_ALL_NIC, ABI_EXCLUSIVE);
	int ends[2];
	CHECK_OK(pipe(ends));
	CHECK_EQ(dup2(ends[0], a.fd), a.fd);
	CHECK_EQ(held_apart(name), 0);
	CHECK_EQ(poll_one(a.fd, POLLIN, 0), 0);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	CHECK_EQ(poll_one(a.fd, POLLIN, 1000), POLLIN);
	char byte;
	CHECK_EQ(read(a.fd, &byte, 1), 1);
	CHECK(ioctl(a.fd, ABI_TXSYNC, NULL) == -1);
	/* And back: a port onto the number of a pipe. */
	struct port p, q;
	pair(&p, &q);
	CHECK_EQ(dup2(q.fd, ends[0]), ends[0]);
	use(&p, &q, ends[0], 5);
}

static void reused_number(void) {
	/* Closed by the C library's own ways, the number comes back as another file. */
	struct port a;
	for (int i = 0; i < 20; i++) {
		open_port(&a, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE);
		int number = a.fd;
		close_port(&a);
		int ends[2];
		CHECK_OK(pipe(ends));
		CHECK(ends[0] == number || ends[1] == number);
		CHECK_EQ(poll_one(ends[0], POLLIN, 0), 0);
		CHECK_OK(close(ends[0]));
		CHECK_OK(close(ends[1]));
	}
}

static void close_ranges(void) {
	struct port a, b;
	const char *first = vale("a"), *second = vale("b");
	open_port(&a, first, ABI_ALL_NIC, ABI_EXCLUSIVE);
	open_port(&b, second, ABI_ALL_NIC, ABI_EXCLUSIVE);
	CHECK(b.fd > a.fd);
	CHECK_OK(close_range((unsigned)b.fd, (unsigned)b.fd, 0));
	CHECK_OK(txsync(&a));
	CHECK_ERRNO(ioctl(b.fd, ABI_TXSYNC, NULL), EBADF);
	CHECK_EQ(held_apart(second), 0);
	CHECK_OK(close_range(3, ~0u, 0));
	CHECK_ERRNO(ioctl(a.fd, ABI_TXSYNC, NULL), EBADF);
	CHECK_EQ(held_apart(first), 0);
	/* The library works on. */
	open_port(&a, first, ABI_ALL_NIC, 0);
	CHECK_OK(txsync(&a));
	CHECK_OK(close_range(3, ~0u, CLOSE_RANGE_CLOEXEC));
	CHECK_OK(txsync(&a));
	CHECK_EQ(fcntl(a.fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static int open_descriptors(void) {
	int count = 0;
	DIR *folder = opendir("/proc/self/fd");
	while (readdir(folder)) count++;
	closedir(folder);
	return count;
}

static void no_descriptor_is_left(void) {
	struct port a, b;
	pair(&a, &b);
	close_port(&a);
	close_port(&b);
	int before = open_descriptors();
	for (int i = 0; i < 20; i++) {
		pair(&a, &b);
		send_frame(&a, 60, broadcast, host_mac(1), 1);
		CHECK_EQ(poll_one(b.fd, POLLIN, 1000), POLLIN);
		close_port(&a);
		close_port(&b);
	}
	CHECK_EQ(open_descriptors(), before);
}

static void mapping_outlives_the_descriptor(void) {
	struct port a;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	uint32_t slots = first_tx(&a)->num_slots;
	CHECK_OK(close(a.fd));
	CHECK_EQ(first_tx(&a)->num_slots, slots); /* readable still, and nobody's */
	first_tx(&a)->head = 99999;
	CHECK_OK(munmap(a.memory, a.size));
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	CHECK_EQ(first_tx(&a)->head, 0);
}

static void many_at_once(void) {
	struct port port[60];
	for (int i = 0; i < 60; i++) {
		char part[16];
		snprintf(part, sizeof part, "{m%d", i / 2);
		if (i & 1) part[0] = '}';
		memset(&port[i], 0, sizeof port[i]);
		port[i].reg = (struct abi_register){.mode = ABI_ALL_NIC, .tx_slots = 64, .rx_slots = 64};
		open_with(&port[i], end(part), NULL);
	}
	for (uint32_t i = 0; i < 30; i++) send_frame(&port[2 * i], 60, broadcast, host_mac(1), i);
	for (uint32_t i = 0; i < 30; i++) expect_frame(&port[2 * i + 1], 60, i);
}

const struct abi_case duplicate_cases[] = {
	{"process/duplicates", duplicates, 0},
	{"process/dup2-over-port", dup2_over_a_port, 0},
	{"process/reused-number", reused_number, 0},
	{"process/close-range", close_ranges, 0},
	{"process/no-descriptor-left", no_descriptor_is_left, 0},
	{"process/mapping-outlives", mapping_outlives_the_descriptor, 0},
	{"process/many-ports", many_at_once, 0},
	{NULL, NULL, 0},
};
