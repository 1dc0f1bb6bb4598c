/* CSB mode: heads and tails in the program's own memory, and the loop that looks at them. */
#include "../abi.h"

#include <pthread.h>
#include <sys/eventfd.h>

static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

/* One transmit and one receive ring: entry 0 and entry 1. */
struct board {
	struct abi_atok atok[2];
	struct abi_ktoa ktoa[2];
} __attribute__((aligned(64)));

static int enable(int fd, void *atok, void *ktoa, uint32_t *status) {
	struct abi_opt_csb option = {.head = {.type = ABI_OPT_CSB}, .atok = (uintptr_t)atok, .ktoa = (uintptr_t)ktoa};
	struct abi_header head;
	header(&head, ABI_CSB_ENABLE, "", NULL);
	head.options = (uintptr_t)&option;
	int result = ioctl(fd, ABI_CTRL, &head), error = errno;
	if (status) *status = option.head.status;
	errno = error;
	return result;
}

static void enabling(void) {
	static struct board board;
	struct port port = {.fd = device()};
	CHECK(enable(port.fd, board.atok, board.ktoa, NULL) == -1); /* not registered */
	CHECK_EQ(try_register(&port, end("{1"), ABI_ALL_NIC, 0), 0);
	CHECK_ERRNO(enable(port.fd, board.atok, board.ktoa, NULL), EINVAL); /* not exclusive */
	close(port.fd);
	port.fd = device();
	CHECK_EQ(try_register(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE), 0);
	CHECK_ERRNO(request(port.fd, ABI_CSB_ENABLE, "", NULL), EINVAL); /* no option */
	CHECK_ERRNO(enable(port.fd, (uint8_t *)board.atok + 4, board.ktoa, NULL), EINVAL);
	CHECK_ERRNO(enable(port.fd, board.atok, (uint8_t *)board.ktoa + 32, NULL), EINVAL);
	CHECK_ERRNO(enable(port.fd, (void *)64, board.ktoa, NULL), EFAULT);
	CHECK_OK(txsync(&port));
	uint32_t status = 77;
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, &status));
	CHECK_EQ(status, 0);
	/* The entries say how the rings are. */
	map_port(&port);
	struct abi_ring *tx = first_tx(&port);
	CHECK_EQ(board.ktoa[0].hwtail, tx->num_slots - 1);
	CHECK_EQ(board.ktoa[0].hwcur, 0);
	CHECK_EQ(board.ktoa[1].hwtail, 0);
	CHECK_EQ(board.ktoa[0].kern_need_kick, 1);
	CHECK_EQ(board.atok[0].appl_need_kick, 1);
}

static void enabled_by_register(void) {
	static struct board board;
	struct abi_opt_csb option = {.head = {.type = ABI_OPT_CSB}, .atok = (uintptr_t)board.atok, .ktoa = (uintptr_t)board.ktoa};
	struct port port = {.reg = {.mode = ABI_ALL_NIC, .flags = ABI_EXCLUSIVE}};
	open_with(&port, end("{1"), &option);
	CHECK_EQ(option.head.status, 0);
	CHECK_ERRNO(txsync(&port), EBUSY);
}

static void syncs_are_refused(void) {
	static struct board board;
	struct port port;
	open_port(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	CHECK_OK(txsync(&port));
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	CHECK_ERRNO(txsync(&port), EBUSY);
	CHECK_ERRNO(rxsync(&port), EBUSY);
	CHECK_EQ(poll_one(port.fd, POLLIN | POLLOUT, 0) & POLLERR, POLLERR);
}

static void starting_is_refused(void) {
	struct abi_loop_start start = {.sleep_us = 100};
	struct port port = {.fd = device()};
	CHECK_ERRNO(request(port.fd, ABI_LOOP_START, "", &start), ENXIO);
	CHECK_EQ(try_register(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE), 0);
	CHECK_ERRNO(request(port.fd, ABI_LOOP_START, "", &start), EINVAL); /* no CSB */
	static struct board board;
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	start.sleep_us = 1000001;
	CHECK_ERRNO(request(port.fd, ABI_LOOP_START, "", &start), EINVAL);
}

static void stopped_before_started(void) {
	static struct board board;
	struct abi_loop_start start = {.sleep_us = 100};
	struct port port;
	open_port(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	CHECK_OK(request(port.fd, ABI_LOOP_STOP, "", NULL));
	double begin = now();
	CHECK_OK(request(port.fd, ABI_LOOP_START, "", &start));
	CHECK(now() - begin < 2);
}

struct loop { int fd; struct abi_opt_eventfds *events; int result; };

static void *run_loop(void *argument) {
	struct loop *loop = argument;
	struct abi_loop_start start = {.sleep_us = 50};
	struct abi_header head;
	header(&head, ABI_LOOP_START, "", &start);
	head.options = (uintptr_t)loop->events;
	loop->result = ioctl(loop->fd, ABI_CTRL, &head) == 0 ? 0 : errno;
	return NULL;
}

static void stop_loop(struct loop *loop, pthread_t thread) {
	CHECK_OK(request(loop->fd, ABI_LOOP_STOP, "", NULL));
	pthread_join(thread, NULL);
	CHECK_EQ(loop->result, 0);
}

#define LOAD(field) __atomic_load_n(&(field), __ATOMIC_ACQUIRE)
#define STORE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELEASE)

/* Packets both ways through the entries, `kick` after each step. */
static void exchange(struct board *board, struct port *port, struct port *peer, void (*kick)(int, void *), void *argument) {
	struct abi_ring *tx = first_tx(port), *rx = first_rx(port);
	uint32_t head = LOAD(board->atok[0].head), taken = LOAD(board->atok[1].head);
	for (uint32_t i = 0; i < 300; i++) {
		for (double limit = now() + 5; LOAD(board->ktoa[0].hwtail) == head;)
			if (now() > limit) FAIL("no room in the transmit ring");
		struct abi_slot *slot = &tx->slot[head];
		fill_frame(buffer(tx, slot->buf_idx), 100, broadcast, host_mac(1), i);
		slot->len = 100;
		slot->flags = 0;
		head = next_slot(tx, head);
		STORE(board->atok[0].cur, head);
		STORE(board->atok[0].head, head);
		if (kick) kick(0, argument);
		expect_frame(peer, 100, i);
		send_frame(peer, 110, broadcast, host_mac(2), 1000 + i);
		if (kick) kick(1, argument);
		for (double limit = now() + 5; LOAD(board->ktoa[1].hwtail) == taken;)
			if (now() > limit) FAIL("frame %u did not come through the loop", i);
		slot = &rx->slot[taken];
		const char *problem = check_frame(buffer(rx, slot->buf_idx), slot->len, 1000 + i);
		if (problem) FAIL("frame %u is %s", i, problem);
		taken = next_slot(rx, taken);
		STORE(board->atok[1].cur, taken);
		STORE(board->atok[1].head, taken);
	}
}

static void loop_moves_packets(void) {
	static struct board board;
	struct port port, peer;
	open_port(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	open_port(&peer, end("}1"), ABI_ALL_NIC, 0);
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	struct loop loop = {port.fd, NULL, -1};
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, run_loop, &loop), 0);
	nap(0.05);
	exchange(&board, &port, &peer, NULL, NULL);
	struct abi_loop_start again = {.sleep_us = 10};
	CHECK_ERRNO(request(port.fd, ABI_LOOP_START, "", &again), EBUSY);
	stop_loop(&loop, thread);
	/* And once more. */
	CHECK_EQ(pthread_create(&thread, NULL, run_loop, &loop), 0);
	nap(0.05);
	exchange(&board, &port, &peer, NULL, NULL);
	stop_loop(&loop, thread);
}

static void kick_event(int ring, void *argument) {
	int *events = argument;
	CHECK_OK(eventfd_write(events[ring], 1));
}

static void loop_with_events(void) {
	static struct board board;
	struct port port, peer;
	open_port(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	open_port(&peer, end("}1"), ABI_ALL_NIC, 0);
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	int io[2], irq[2];
	struct abi_opt_eventfds *option = calloc(1, 24 + 16);
	option->head.type = ABI_OPT_EVENTFDS;
	option->head.size = 24 + 8; /* one entry short */
	for (int i = 0; i < 2; i++) {
		option->fds[i].io = io[i] = eventfd(0, EFD_NONBLOCK);
		option->fds[i].irq = irq[i] = eventfd(0, EFD_NONBLOCK);
	}
	struct loop loop = {port.fd, option, -1};
	run_loop(&loop);
	CHECK_EQ(loop.result, EINVAL);
	CHECK_EQ(option->head.status, EINVAL);
	option->head.size = 24 + 16;
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, run_loop, &loop), 0);
	nap(0.05);
	exchange(&board, &port, &peer, kick_event, io);
	/* Whoever asks to be kicked is. */
	STORE(board.atok[1].appl_need_kick, 1);
	eventfd_t value;
	while (eventfd_read(irq[1], &value) == 0) {}
	send_frame(&peer, 120, broadcast, host_mac(2), 5);
	CHECK_EQ(poll_one(irq[1], POLLIN, 5000), POLLIN);
	stop_loop(&loop, thread);
}

static void hostile_entries(void) {
	static struct board board;
	struct port port, peer;
	open_port(&port, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	open_port(&peer, end("}1"), ABI_ALL_NIC, 0);
	CHECK_OK(enable(port.fd, board.atok, board.ktoa, NULL));
	struct loop loop = {port.fd, NULL, -1};
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, run_loop, &loop), 0);
	uint32_t word = 1;
	for (double limit = now() + 0.5; now() < limit;) {
		word = word * 1664525 + 1013904223;
		STORE(board.atok[word >> 31].head, word);
		STORE(board.atok[word >> 30 & 1].cur, word >> 16);
		if (word & 0x100) STORE(board.ktoa[0].hwtail, word);
	}
	request(port.fd, ABI_LOOP_STOP, "", NULL);
	pthread_join(thread, NULL);
	CHECK_OK(close(port.fd));
	struct port again, other;
	open_port(&again, end("{2"), ABI_ALL_NIC, 0);
	open_port(&other, end("}2"), ABI_ALL_NIC, 0);
	send_frame(&again, 60, broadcast, host_mac(1), 3);
	expect_frame(&other, 60, 3);
}

const struct abi_case loop_cases[] = {
	{"csb/enabling", enabling, 0},
	{"csb/by-register", enabled_by_register, 0},
	{"csb/syncs-refused", syncs_are_refused, 0},
	{"csb/start-refused", starting_is_refused, 0},
	{"csb/stopped-before-started", stopped_before_started, 0},
	{"csb/loop", loop_moves_packets, 0},
	{"csb/loop-with-events", loop_with_events, 0},
	{"csb/hostile-entries", hostile_entries, 0},
	{NULL, NULL, 0},
};
