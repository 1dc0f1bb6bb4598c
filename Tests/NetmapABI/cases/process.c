/* A port's descriptor in several processes: forked, passed, inherited by exec, duplicated. */
#include "../abi.h"

#include <sys/socket.h>
#include <sys/wait.h>

static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }
static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b) {
	open_port(a, end("{1"), ABI_ALL_NIC, 0);
	open_port(b, end("}1"), ABI_ALL_NIC, 0);
}

static void echo(struct port *port, uint32_t count) {
	for (uint32_t i = 0; i < count; i++) {
		uint32_t seed = 0, length = take_frame(port, 10, &seed);
		if (!length) FAIL("frame %u did not come to the child", i);
		send_frame(port, length, broadcast, host_mac(2), seed + 5000);
	}
}

static void echo_child(void *argument) { echo(argument, 100); }

static void ask(struct port *port, uint32_t count) {
	for (uint32_t i = 0; i < count; i++) {
		send_frame(port, 80 + i, broadcast, host_mac(1), i);
		expect_frame(port, 80 + i, i + 5000);
	}
}

static void child_uses_parent_closes(void) {
	struct port a, b;
	pair(&a, &b);
	pid_t pid = child(echo_child, &b);
	close_port(&b);
	ask(&a, 100);
	join(pid);
}

static void both_use_it(void) {
	/* Parent and child take turns at the same port. */
	struct port a, b;
	pair(&a, &b);
	pid_t pid = child(echo_child, &b);
	ask(&a, 100);
	join(pid);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_frame(&b, 60, 1);
}

static void child_maps_anew(void *argument) {
	struct port *port = argument, mine = *port;
	munmap(port->memory, port->size);
	map_port(&mine);
	echo(&mine, 10);
}

static void child_maps(void) {
	struct port a, b;
	pair(&a, &b);
	pid_t pid = child(child_maps_anew, &b);
	close_port(&b);
	ask(&a, 10);
	join(pid);
}

static void child_polls(void *argument) {
	struct port *port = argument;
	for (uint32_t i = 0; i < 20; i++) {
		CHECK_EQ(poll_one(port->fd, POLLIN, 10000), POLLIN);
		expect_frame(port, 60, i);
		send_frame(port, 61, broadcast, host_mac(2), i);
	}
}

static void child_waits(void) {
	struct port a, b;
	pair(&a, &b);
	pid_t pid = child(child_polls, &b);
	for (uint32_t i = 0; i < 20; i++) {
		usleep(2000);
		send_frame(&a, 60, broadcast, host_mac(1), i);
		CHECK_EQ(poll_one(a.fd, POLLIN, 10000), POLLIN);
		expect_frame(&a, 61, i);
	}
	join(pid);
}


static void opened_before_registered_after(void) {
	/* One process opens, another registers: the open file is what is registered. */
	struct port port = {.fd = device()};
	const char *name = end("{c");
	struct port copy = port;
	pid_t pid = fork();
	if (pid == 0) {
		CHECK_EQ(try_register(&copy, name, ABI_ALL_NIC, 0), 0);
		_exit(0);
	}
	join(pid);
	struct port again = {.fd = port.fd};
	CHECK_EQ(try_register(&again, name, ABI_ALL_NIC, 0), EBUSY);
	CHECK_OK(txsync(&port));
}

static int held_apart(const char *name) {
	struct port probe = {.fd = device()};
	int error = try_register(&probe, name, ABI_ALL_NIC, 0);
	close(probe.fd);
	return error;
}

static void waits_for_a_byte(void *argument) {
	char byte;
	if (read(*(int *)argument, &byte, 1) != 1) FAIL("the parent said nothing");
}

static void lives_until_the_last_close(void) {
	struct port a;
	const char *name = vale("a");
	int ends[2];
	CHECK_OK(pipe(ends));
	open_port(&a, name, ABI_ALL_NIC, ABI_EXCLUSIVE);
	pid_t pid = child(waits_for_a_byte, &ends[0]);
	close_port(&a);
	CHECK_EQ(held_apart(name), EBUSY);
	CHECK_EQ(write(ends[1], "x", 1), 1);
	join(pid);
	CHECK_EQ(held_apart(name), 0);
}

static void parent_exits_first(void) {
	/* The grandchild goes on after its parent has ended. */
	struct port a, b;
	pair(&a, &b);
	int ends[2];
	CHECK_OK(pipe(ends));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		if (fork() == 0) {
			close(ends[0]);
			close(a.fd);
			nap(0.2);
			echo(&b, 20);
			CHECK_EQ(write(ends[1], "k", 1), 1);
			_exit(0);
		}
		_exit(0);
	}
	join(pid);
	close(ends[1]);
	close_port(&b);
	ask(&a, 20);
	char byte = 0;
	CHECK_EQ(read(ends[0], &byte, 1), 1);
	CHECK_EQ(byte, 'k');
}

static void killed_child(void) {
	/* kill -9 of one of two holders leaves the other's port alone; of the last, frees it. */
	struct port a;
	const char *name = vale("k");
	int ends[2];
	CHECK_OK(pipe(ends));
	open_port(&a, name, ABI_ALL_NIC, ABI_EXCLUSIVE);
	pid_t pid = fork();
	if (pid == 0) {
		for (;;) {
			txsync(&a);
			rxsync(&a);
		}
	}
	nap(0.05);
	CHECK_OK(kill(pid, SIGKILL));
	int status;
	char byte;
	while (waitpid(pid, &status, 0) < 0) {}
	CHECK_OK(txsync(&a));
	CHECK_EQ(held_apart(name), EBUSY);
	close_port(&a);
	pid = fork();
	if (pid == 0) {
		open_port(&a, name, ABI_ALL_NIC, ABI_EXCLUSIVE);
		CHECK_EQ(write(ends[1], "x", 1), 1);
		for (;;) txsync(&a);
	}
	CHECK_EQ(read(ends[0], &byte, 1), 1);
	CHECK_EQ(held_apart(name), EBUSY);
	CHECK_OK(kill(pid, SIGKILL));
	while (waitpid(pid, &status, 0) < 0) {}
	CHECK_EQ(held_apart(name), 0);
}

/* MARK: to programs that are not our children's copies */

static void run_inherited(int fd, const struct port *port, int *tell) {
	char number[16], size[32], offset[32], self[256];
	ssize_t count = readlink("/proc/self/exe", self, sizeof self - 1);
	CHECK(count > 0);
	self[count] = 0;
	snprintf(number, sizeof number, "%d", fd);
	snprintf(size, sizeof size, "%zu", port->size);
	snprintf(offset, sizeof offset, "%llu", (unsigned long long)port->reg.offset);
	setenv("NETMAP_ABI_SIZE", size, 1);
	setenv("NETMAP_ABI_OFFSET", offset, 1);
	if (tell) {
		char socket[16];
		snprintf(socket, sizeof socket, "%d", *tell);
		setenv("NETMAP_ABI_SOCKET", socket, 1);
		strcpy(number, "-1");
	}
	execl(self, self, "--inherited", number, NULL);
	FAIL("exec of %s: %s", self, strerrorname_np(errno));
}

int inherited(int fd) {
	alarm(30);
	const char *socket = getenv("NETMAP_ABI_SOCKET");
	if (fd < 0) fd = receive_descriptor(atoi(socket));
	struct port port = {.fd = fd};
	port.reg.memsize = strtoull(getenv("NETMAP_ABI_SIZE"), NULL, 10);
	port.reg.offset = strtoull(getenv("NETMAP_ABI_OFFSET"), NULL, 10);
	struct port again = {.fd = fd};
	CHECK_EQ(try_register(&again, "whatever{1", ABI_ALL_NIC, 0), EBUSY);
	map_port(&port);
	for (uint32_t i = 0; i < 10; i++) {
		CHECK_EQ(poll_one(fd, POLLIN, 10000), POLLIN);
		uint32_t seed = 0, length = take_frame(&port, 5, &seed);
		send_frame(&port, length, broadcast, host_mac(2), seed + 5000);
	}
	return 0;
}

static void exec_with_it(void) {
	struct port a, b;
	pair(&a, &b);
	int flags = fcntl(b.fd, F_GETFD);
	CHECK_OK(flags);
	CHECK_OK(fcntl(b.fd, F_SETFD, flags & ~FD_CLOEXEC));
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) run_inherited(b.fd, &b, NULL);
	close_port(&b);
	ask(&a, 10);
	join(pid);
}

static void passed_to_a_stranger(void) {
	/* The program is there before the port is, and gets the descriptor through a socket. */
	int sockets[2];
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	struct port a, b;
	pair(&a, &b);
	int moved = dup(sockets[1]);
	fflush(NULL);
	pid_t pid = fork();
	if (pid == 0) {
		fcntl(a.fd, F_SETFD, FD_CLOEXEC);
		fcntl(b.fd, F_SETFD, FD_CLOEXEC);
		run_inherited(-1, &b, &moved);
	}
	send_descriptor(sockets[0], b.fd);
	close_port(&b);
	ask(&a, 10);
	join(pid);
}

static void passed_to_itself(void) {
	int sockets[2];
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets));
	struct port a, b;
	pair(&a, &b);
	send_descriptor(sockets[0], b.fd);
	CHECK_OK(close(b.fd));
	b.fd = receive_descriptor(sockets[1]);
	CHECK_OK(rxsync(&b));
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_EQ(poll_one(b.fd, POLLIN, 2000), POLLIN);
	expect_frame(&b, 60, 1);
}

const struct abi_case process_cases[] = {
	{"process/child-uses-parent-closes", child_uses_parent_closes, 0},
	{"process/both-use-it", both_use_it, 0},
	{"process/child-maps", child_maps, 0},
	{"process/child-waits", child_waits, 0},
	{"process/registered-by-child", opened_before_registered_after, 0},
	{"process/last-close", lives_until_the_last_close, 0},
	{"process/parent-exits-first", parent_exits_first, 0},
	{"process/killed", killed_child, 0},
	{"process/exec", exec_with_it, 0},
	{"process/passed-to-stranger", passed_to_a_stranger, 0},
	{"process/passed-to-itself", passed_to_itself, 0},
	{NULL, NULL, 0},
};
