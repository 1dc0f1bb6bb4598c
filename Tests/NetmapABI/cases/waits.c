/* Waiting: select, pselect, poll, ppoll, epoll_wait and epoll_pwait do the same thing. */
#include "ways.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/select.h>

static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b, uint64_t flags) {
	open_port(a, end("{w"), ABI_ALL_NIC, flags);
	open_port(b, end("}w"), ABI_ALL_NIC, flags);
}

static void time_outs(void) {
	struct port a, b;
	pair(&a, &b, 0);
	for (int way = 0; way < WAYS; way++) {
		double start = now();
		CHECK_EQ(wait_for(way, b.fd, POLLIN, -1, NULL, 150), 0);
		double took = now() - start;
		if (took < 0.14 || took > 2) FAIL("%s with 150 ms took %.3f s", way_names[way], took);
		start = now();
		CHECK_EQ(wait_for(way, b.fd, POLLIN, -1, NULL, 0), 0);
		if (now() - start > 0.5) FAIL("%s with 0 ms took %.3f s", way_names[way], now() - start);
	}
}

static void wakes(void) {
	struct port a, b;
	pair(&a, &b, 0);
	for (int way = 0; way < WAYS; way++)
		for (int round = 0; round < 3; round++) {
			struct later later = {&a, 0.05, (uint32_t)(way * 10 + round), -1};
			pthread_t thread;
			CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
			double start = now();
			int got = wait_for(way, b.fd, POLLIN, -1, NULL, 5000);
			double took = now() - start;
			if (got != POLLIN) FAIL("%s gave %#x", way_names[way], got);
			if (took > 0.5) FAIL("%s woke after %.3f s, 0.05 s was to be", way_names[way], took);
			pthread_join(thread, NULL);
			expect_frame(&b, 60, later.seed);
		}
}

static void wakes_without_time_out(void) {
	struct port a, b;
	pair(&a, &b, 0);
	for (int way = 0; way < WAYS; way++) {
		struct later later = {&a, 0.1, (uint32_t)way, -1};
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
		CHECK_EQ(wait_for(way, b.fd, POLLIN, -1, NULL, -1), POLLIN);
		pthread_join(thread, NULL);
		expect_frame(&b, 60, later.seed);
	}
}

static void writable(void) {
	struct port a, b;
	pair(&a, &b, 0);
	for (int way = 0; way < WAYS; way++) {
		CHECK_EQ(wait_for(way, a.fd, POLLOUT, -1, NULL, 1000), POLLOUT);
		CHECK_EQ(wait_for(way, a.fd, POLLOUT | POLLIN, -1, NULL, 1000), POLLOUT);
	}
}

static void *take_all(void *argument) {
	nap(0.05);
	uint32_t seed;
	while (take_frame(argument, 0, &seed)) {}
	CHECK_OK(rxsync(argument));
	return NULL;
}

static void writable_later(void) {
	struct port a, b;
	pair(&a, &b, 0);
	for (int way = 0; way < WAYS; way++) {
		struct abi_ring *tx = first_tx(&a);
		for (int round = 0; round < 3; round++) {
			while (tx->head != tx->tail) put_frame(tx, 60, broadcast, host_mac(1), 0);
			CHECK_OK(txsync(&a));
		}
		CHECK_EQ(wait_for(way, a.fd, POLLOUT, -1, NULL, 0), 0);
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, take_all, &b), 0);
		double start = now();
		int got = wait_for(way, a.fd, POLLOUT, -1, NULL, 5000);
		if (got != POLLOUT) FAIL("%s gave %#x", way_names[way], got);
		if (now() - start > 0.6) FAIL("%s woke after %.3f s", way_names[way], now() - start);
		pthread_join(thread, NULL);
		CHECK_OK(txsync(&a));
	}
}

static void every_poll_transmits(void) {
	struct port a, b;
	pair(&a, &b, 0);
	uint32_t seed = 0;
	for (int way = 0; way < WAYS; way++) {
		put_frame(first_tx(&a), 60, broadcast, host_mac(1), seed);
		CHECK_EQ(wait_for(way, a.fd, POLLIN, -1, NULL, 0), 0);
		expect_frame(&b, 60, seed++);
	}
	put_frame(first_tx(&a), 60, broadcast, host_mac(1), seed);
	CHECK_EQ(poll_one(a.fd, 0, 0), 0); /* even when it asks for nothing */
	expect_frame(&b, 60, seed);
}

static void no_tx_poll(void) {
	struct port a, b;
	pair(&a, &b, ABI_NO_TX_POLL);
	for (int way = 0; way < WAYS; way++) {
		put_frame(first_tx(&a), 60, broadcast, host_mac(1), (uint32_t)way);
		(void)wait_for(way, a.fd, POLLIN, -1, NULL, 0);
		CHECK_OK(rxsync(&b));
		CHECK_EQ(ready(first_rx(&b)), 0);
		CHECK_OK(txsync(&a));
		expect_frame(&b, 60, (uint32_t)way);
	}
}

static void poll_receives_only_when_asked(void) {
	struct port a, b;
	open_port(&a, end("{w"), ABI_ALL_NIC, 0);
	open_port(&b, end("}w"), ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_EQ(poll_one(b.fd, POLLOUT, 0), POLLOUT);
	CHECK_EQ(ready(first_rx(&b)), 0);
	CHECK_EQ(poll_one(b.fd, POLLIN, 1000), POLLIN);
	CHECK_EQ(ready(first_rx(&b)), 1);
}

static void receive_poll(void) {
	struct port a, b;
	open_port(&a, end("{w"), ABI_ALL_NIC, 0);
	open_port(&b, end("}w"), ABI_ALL_NIC, ABI_DO_RX_POLL);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_EQ(poll_one(b.fd, POLLOUT, 0) & POLLOUT, POLLOUT);
	CHECK_EQ(ready(first_rx(&b)), 1);
}

static void normal_bits(void) {
	struct port a, b;
	pair(&a, &b, 0);
	CHECK_EQ(poll_one(a.fd, POLLWRNORM, 0) & POLLWRNORM, POLLWRNORM);
	CHECK_EQ(poll_one(b.fd, POLLRDNORM, 0), 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_EQ(poll_one(b.fd, POLLRDNORM, 1000) & POLLRDNORM, POLLRDNORM);
}

static void ready_means_beyond_cur(void) {
	struct port a, b;
	pair(&a, &b, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	for (int way = 0; way < WAYS; way++) CHECK_EQ(wait_for(way, b.fd, POLLIN, -1, NULL, 1000), POLLIN); /* level, not edge */
	first_rx(&b)->cur = first_rx(&b)->tail;
	for (int way = 0; way < WAYS; way++) CHECK_EQ(wait_for(way, b.fd, POLLIN, -1, NULL, 0), 0);
}

static void mixed_set(void) {
	struct port a, b;
	pair(&a, &b, 0);
	int ends[2];
	CHECK_OK(pipe(ends));
	for (int way = 0; way < WAYS; way++) {
		int other = 0;
		CHECK_EQ(wait_for(way, b.fd, POLLIN, ends[0], &other, 20), 0);
		CHECK_EQ(other, 0);
		/* The pipe alone, later. */
		struct later later = {NULL, 0.05, 0, ends[1]};
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
		double start = now();
		CHECK_EQ(wait_for(way, b.fd, POLLIN, ends[0], &other, 5000), 0);
		CHECK_EQ(other, POLLIN);
		if (now() - start > 0.5) FAIL("%s woke after %.3f s", way_names[way], now() - start);
		pthread_join(thread, NULL);
		/* Both at once. */
		send_frame(&a, 60, broadcast, host_mac(1), (uint32_t)way);
		CHECK_EQ(wait_for(way, b.fd, POLLIN, ends[0], &other, 5000), POLLIN);
		CHECK_EQ(other, POLLIN);
		char byte;
		CHECK_EQ(read(ends[0], &byte, 1), 1);
		/* The port alone, later. */
		expect_frame(&b, 60, (uint32_t)way);
		later = (struct later){&a, 0.05, 100 + (uint32_t)way, -1};
		CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
		CHECK_EQ(wait_for(way, b.fd, POLLIN, ends[0], &other, 5000), POLLIN);
		CHECK_EQ(other, 0);
		pthread_join(thread, NULL);
		expect_frame(&b, 60, later.seed);
	}
}

static void two_ports_in_a_set(void) {
	struct port a, b, c, d;
	pair(&a, &b, 0);
	open_port(&c, end("{x"), ABI_ALL_NIC, 0);
	open_port(&d, end("}x"), ABI_ALL_NIC, 0);
	for (int way = 0; way < WAYS; way++) {
		int other = 0;
		CHECK_EQ(wait_for(way, b.fd, POLLIN, d.fd, &other, 0), 0);
		send_frame(&c, 60, broadcast, host_mac(1), (uint32_t)way);
		CHECK_EQ(wait_for(way, b.fd, POLLIN, d.fd, &other, 2000), 0);
		CHECK_EQ(other, POLLIN);
		expect_frame(&d, 60, (uint32_t)way);
		struct later later = {&a, 0.05, 50, -1};
		pthread_t thread;
		CHECK_EQ(pthread_create(&thread, NULL, send_later, &later), 0);
		CHECK_EQ(wait_for(way, b.fd, POLLIN, d.fd, &other, 5000), POLLIN);
		CHECK_EQ(other, 0);
		pthread_join(thread, NULL);
		expect_frame(&b, 60, 50);
	}
}

const struct abi_case wait_cases[] = {
	{"wait/time-outs", time_outs, 0},
	{"wait/wakes", wakes, 0},
	{"wait/without-time-out", wakes_without_time_out, 0},
	{"wait/writable", writable, 0},
	{"wait/writable-later", writable_later, 0},
	{"wait/every-poll-transmits", every_poll_transmits, 0},
	{"wait/no-tx-poll", no_tx_poll, 0},
	{"wait/receives-when-asked", poll_receives_only_when_asked, 0},
	{"wait/do-rx-poll", receive_poll, 0},
	{"wait/normal-bits", normal_bits, 0},
	{"wait/beyond-cur", ready_means_beyond_cur, 0},
	{"wait/mixed-set", mixed_set, 0},
	{"wait/two-ports", two_ports_in_a_set, 0},
	{NULL, NULL, 0},
};
