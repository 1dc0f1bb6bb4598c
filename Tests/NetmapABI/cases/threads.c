/* Waiting, seen from several threads, and what else waiting does. */
#include "ways.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b, uint64_t flags) {
	open_port(a, end("{w"), ABI_ALL_NIC, flags);
	open_port(b, end("}w"), ABI_ALL_NIC, flags);
}

static void on_signal(int number) { (void)number; }

static void *signal_later(void *argument) {
	nap(0.1);
	pthread_kill(*(pthread_t *)argument, SIGUSR1);
	return NULL;
}

static void interrupted(void) {
	struct port a, b;
	pair(&a, &b, 0);
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART, and it would not help */
	CHECK_OK(sigaction(SIGUSR1, &action, NULL));
	for (int restart = 0; restart < 2; restart++) {
		action.sa_flags = restart ? SA_RESTART : 0;
		CHECK_OK(sigaction(SIGUSR1, &action, NULL));
		for (int way = 0; way < WAYS; way++) {
			pthread_t self = pthread_self(), thread;
			CHECK_EQ(pthread_create(&thread, NULL, signal_later, &self), 0);
			double start = now();
			errno = 0;
			int got = wait_for(way, b.fd, POLLIN, -1, NULL, 3000);
			int error = errno;
			double took = now() - start;
			pthread_join(thread, NULL);
			if (got != -1 || error != EINTR) FAIL("%s gave %d (%s)", way_names[way], got, strerrorname_np(error));
			if (took > 1) FAIL("%s was interrupted after %.3f s", way_names[way], took);
		}
	}
}

static void signal_mask(void) {
	/* ppoll, pselect and epoll_pwait put a mask on for as long as they wait. */
	struct port a, b;
	pair(&a, &b, 0);
	struct sigaction action = {.sa_handler = on_signal};
	CHECK_OK(sigaction(SIGUSR1, &action, NULL));
	sigset_t blocked, none;
	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
	struct timespec time = {2, 0};
	struct pollfd one = {b.fd, POLLIN, 0};
	raise(SIGUSR1);
	CHECK_ERRNO(ppoll(&one, 1, &time, &none), EINTR);
	raise(SIGUSR1);
	fd_set in;
	FD_ZERO(&in);
	FD_SET(b.fd, &in);
	CHECK_ERRNO(pselect(b.fd + 1, &in, NULL, NULL, &time, &none), EINTR);
	int set = epoll_create1(0);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = b.fd}, found;
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, b.fd, &event));
	raise(SIGUSR1);
	CHECK_ERRNO(epoll_pwait(set, &found, 1, 2000, &none), EINTR);
	raise(SIGUSR1); /* blocked: it waits to the end */
	struct timespec brief = {0, 50000000};
	CHECK_EQ(ppoll(&one, 1, &brief, &blocked), 0);
}

static void epoll_life(void) {
	struct port a, b;
	pair(&a, &b, 0);
	int set = epoll_create1(0);
	struct epoll_event want = {.events = EPOLLIN, .data.u64 = 0x123456789abcdefull}, found[4];
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, b.fd, &want));
	CHECK_ERRNO(epoll_ctl(set, EPOLL_CTL_ADD, b.fd, &want), EEXIST);
	CHECK_EQ(epoll_wait(set, found, 4, 0), 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_EQ(epoll_wait(set, found, 4, 1000), 1);
	CHECK_EQ(found[0].data.u64, 0x123456789abcdefull);
	CHECK_EQ(found[0].events, EPOLLIN);
	want.events = EPOLLOUT;
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_MOD, b.fd, &want));
	CHECK_EQ(epoll_wait(set, found, 4, 1000), 1);
	CHECK_EQ(found[0].events, EPOLLOUT);
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_DEL, b.fd, NULL));
	CHECK_EQ(epoll_wait(set, found, 4, 20), 0);
	CHECK_ERRNO(epoll_ctl(set, EPOLL_CTL_DEL, b.fd, NULL), ENOENT);
	want.events = EPOLLIN | EPOLLONESHOT;
	CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, b.fd, &want));
	CHECK_EQ(epoll_wait(set, found, 4, 1000), 1);
	CHECK_EQ(epoll_wait(set, found, 4, 20), 0);
	/* A closed descriptor leaves the set. */
	close_port(&b);
	CHECK_EQ(epoll_wait(set, found, 4, 20), 0);
}

/* One thread sends, one receives, on the two ends; then both sides at once on each. */
struct traffic { struct port *port; uint32_t count; uint32_t lost; };

static void *sender(void *argument) {
	struct traffic *traffic = argument;
	struct abi_ring *tx = first_tx(traffic->port);
	for (uint32_t i = 0; i < traffic->count;) {
		if (poll_one(traffic->port->fd, POLLOUT, 5000) != POLLOUT) FAIL("no room after %u frames", i);
		while (i < traffic->count && tx->head != tx->tail) put_frame(tx, 64, broadcast, host_mac(1), i++);
		CHECK_OK(txsync(traffic->port));
	}
	return NULL;
}

static void *receiver(void *argument) {
	struct traffic *traffic = argument;
	struct abi_ring *rx = first_rx(traffic->port);
	for (uint32_t i = 0; i < traffic->count;) {
		if (poll_one(traffic->port->fd, POLLIN, 5000) != POLLIN) FAIL("nothing came after %u frames", i);
		for (; rx->head != rx->tail; i++) {
			struct abi_slot *slot = &rx->slot[rx->head];
			const char *problem = check_frame(buffer(rx, slot->buf_idx), slot->len, i);
			if (problem) FAIL("frame %u is %s", i, problem);
			rx->head = rx->cur = next_slot(rx, rx->head);
		}
	}
	return NULL;
}

static void threads(void) {
	struct port a, b;
	pair(&a, &b, 0);
	struct traffic there = {&a, 50000, 0}, back = {&b, 50000, 0};
	pthread_t thread[4];
	CHECK_EQ(pthread_create(&thread[0], NULL, sender, &there), 0);
	CHECK_EQ(pthread_create(&thread[1], NULL, sender, &back), 0);
	CHECK_EQ(pthread_create(&thread[2], NULL, receiver, &there), 0);
	CHECK_EQ(pthread_create(&thread[3], NULL, receiver, &back), 0);
	for (int i = 0; i < 4; i++) pthread_join(thread[i], NULL);
}

static void *syncs(void *argument) {
	for (double limit = now() + 1; now() < limit;) {
		CHECK_OK(txsync(argument));
		CHECK_OK(rxsync(argument));
	}
	return NULL;
}

static void two_syncs_at_once(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	pthread_t thread[3];
	for (int i = 0; i < 3; i++) CHECK_EQ(pthread_create(&thread[i], NULL, syncs, &a), 0);
	uint32_t count = 0;
	for (double limit = now() + 0.9; now() < limit; count++) {
		send_frame(&a, 60, broadcast, host_mac(1), count);
		expect_frame(&b, 60, count);
	}
	for (int i = 0; i < 3; i++) pthread_join(thread[i], NULL);
	CHECK(count > 0);
}

static void other_descriptor_closes(void) {
	/* Somebody sleeps on a port while another thread closes an unrelated one. */
	struct port a, b, c;
	pair(&a, &b, 0);
	open_port(&c, vale("c"), ABI_ALL_NIC, 0);
	struct later later = {&a, 0.2, 3, -1};
	pthread_t thread;
	CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
	close_port(&c);
	CHECK_EQ(poll_one(b.fd, POLLIN, 3000), POLLIN);
	pthread_join(thread, NULL);
}

const struct abi_case thread_cases[] = {
	{"wait/interrupted", interrupted, 0},
	{"wait/signal-mask", signal_mask, 0},
	{"wait/epoll-life", epoll_life, 0},
	{"wait/threads", threads, 0},
	{"wait/two-syncs-at-once", two_syncs_at_once, 0},
	{"wait/other-closes", other_descriptor_closes, 0},
	{NULL, NULL, 0},
};
