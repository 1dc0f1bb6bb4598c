/* Pipes and monitors. */
#include "../abi.h"

static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }
static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

static void both_directions(void) {
	struct port a, b;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	CHECK_EQ(a.reg.mem_id, b.reg.mem_id);
	for (uint32_t i = 0; i < 3000; i++) {
		send_frame(&a, 60 + i % 1400, broadcast, host_mac(1), i);
		send_frame(&b, 60 + i % 1300, broadcast, host_mac(2), i + 10000);
		expect_frame(&b, 60 + i % 1400, i);
		expect_frame(&a, 60 + i % 1300, i + 10000);
	}
}

static void nothing_without_the_other_end(void) {
	/* What is sent before somebody holds the other end is there when he comes, or the ring just fills: never an error. */
	struct port a, b;
	open_port(&a, end("{2"), ABI_ALL_NIC, 0);
	put_frame(first_tx(&a), 60, broadcast, host_mac(1), 1);
	CHECK_OK(txsync(&a));
	open_port(&b, end("}2"), ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 2);
	uint32_t seed = 0;
	CHECK(take_frame(&b, 5, &seed));
	if (seed == 1) expect_frame(&b, 60, 2);
	else CHECK_EQ(seed, 2);
}

static void pipes_are_apart(void) {
	struct port a, b, c, d;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	open_port(&c, end("{two"), ABI_ALL_NIC, 0);
	open_port(&d, end("}two"), ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	send_frame(&c, 60, broadcast, host_mac(1), 2);
	expect_frame(&b, 60, 1);
	expect_frame(&d, 60, 2);
	expect_nothing(&b);
	expect_nothing(&d);
	/* One parent: one region. */
	CHECK_EQ(a.reg.mem_id, c.reg.mem_id);
}

static void same_end_twice(void) {
	struct port a, again = {.fd = device()};
	open_port(&a, end("{1"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	CHECK_EQ(try_register(&again, end("{1"), ABI_ALL_NIC, 0), EBUSY);
	CHECK_EQ(try_register(&again, end("}1"), ABI_ALL_NIC, 0), 0);
}

static void bad_names(void) {
	struct port port = {.fd = device()};
	CHECK(try_register(&port, end("{"), ABI_ALL_NIC, 0) != 0);
	CHECK(try_register(&port, "{1", ABI_ALL_NIC, 0) != 0);
	CHECK(try_register(&port, end("{1}2"), ABI_SW, 0) != 0);
	CHECK_EQ(try_register(&port, end("{1"), ABI_ALL_NIC, 0), 0);
}

static void end_closes(void) {
	struct port a, b;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	for (uint32_t i = 0; i < 20; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
	for (uint32_t i = 0; i < 5; i++) expect_frame(&b, 60, i);
	close_port(&b);
	CHECK_OK(txsync(&a));
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	/* The pipe works again, and every slot of the transmitter's comes back. */
	uint32_t total = 0;
	for (double limit = now() + 5; total < 2000 && now() < limit;) {
		struct abi_ring *tx = first_tx(&a);
		while (tx->head != tx->tail && total < 2000) put_frame(tx, 60, broadcast, host_mac(1), 1000 + total++);
		CHECK_OK(txsync(&a));
		uint32_t seed;
		while (take_frame(&b, 0, &seed)) {}
		CHECK_OK(txsync(&a));
	}
	CHECK_EQ(total, 2000);
}

static void parent_of_a_pipe(void) {
	/* A pipe of a switch's port: its memory is the port's. */
	struct port port, a, b;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	open_port(&a, vale("a{1"), ABI_ALL_NIC, 0);
	open_port(&b, vale("a}1"), ABI_ALL_NIC, 0);
	CHECK_EQ(a.reg.mem_id, port.reg.mem_id);
	CHECK_EQ(b.reg.mem_id, port.reg.mem_id);
	send_frame(&a, 60, broadcast, host_mac(1), 4);
	expect_frame(&b, 60, 4);
}

static void whole_packets(void) {
	/* Fragments are shown together or not at all. */
	struct port a, b;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	for (int i = 0; i < 3; i++) {
		put_frame(tx, 200, broadcast, host_mac(1), 50 + (uint32_t)i);
		tx->slot[i].flags = i < 2 ? ABI_MOREFRAG : 0;
	}
	tx->head = tx->cur = 2; /* the last is kept back */
	CHECK_OK(txsync(&a));
	CHECK_OK(rxsync(&b));
	uint32_t early = ready(rx);
	CHECK(early == 0);
	tx->head = tx->cur = 3;
	CHECK_OK(txsync(&a));
	CHECK_OK(rxsync(&b));
	CHECK_EQ(ready(rx), 3);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(rx->slot[i].flags & ABI_MOREFRAG, i < 2 ? ABI_MOREFRAG : 0);
		const char *problem = check_frame(buffer(rx, rx->slot[i].buf_idx), 200, 50 + (uint32_t)i);
		if (problem) FAIL("fragment %d is %s", i, problem);
	}
}

static void many_rings(void) {
	struct port a, b;
	memset(&a, 0, sizeof a);
	a.reg = (struct abi_register){.mode = ABI_ALL_NIC, .tx_rings = 4, .rx_rings = 4, .tx_slots = 128, .rx_slots = 128};
	open_with(&a, end("{m"), NULL);
	open_port(&b, end("}m"), ABI_ALL_NIC, 0);
	CHECK_EQ(a.nif->tx_rings, b.nif->rx_rings);
	for (unsigned i = 0; i < a.nif->tx_rings; i++) put_frame(tx_ring(&a, i), 60, broadcast, host_mac(1), 70 + i);
	CHECK_OK(txsync(&a));
	CHECK_OK(rxsync(&b));
	for (unsigned i = 0; i < b.nif->rx_rings; i++) {
		CHECK_EQ(ready(rx_ring(&b, i)), 1);
		CHECK_EQ(frame_seed(buffer(rx_ring(&b, i), rx_ring(&b, i)->slot[0].buf_idx)), 70 + i);
	}
}

/* MARK: monitors */

static void monitor_needs_a_parent(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, ABI_MONITOR_RX), EINVAL);
	struct port parent;
	open_port(&parent, vale("a"), ABI_ALL_NIC, 0);
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, ABI_MONITOR_RX), 0);
}

static void watch(uint64_t flags, bool sees_tx, bool sees_rx) {
	struct port a, b, monitor;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	open_port(&monitor, end("{1"), ABI_ALL_NIC, flags);
	for (uint32_t i = 0; i < 50; i++) {
		send_frame(&a, 60 + i, broadcast, host_mac(1), i);
		expect_frame(&b, 60 + i, i);
		CHECK_OK(txsync(&a)); /* its slot comes back */
		if (sees_tx) expect_frame(&monitor, 60 + i, i);
		send_frame(&b, 70 + i, broadcast, host_mac(2), 1000 + i);
		expect_frame(&a, 70 + i, 1000 + i);
		CHECK_OK(rxsync(&a));
		if (sees_rx) expect_frame(&monitor, 70 + i, 1000 + i);
	}
	expect_nothing(&monitor);
}

static void monitor_transmit(void) { watch(ABI_MONITOR_TX, true, false); }
static void monitor_receive(void) { watch(ABI_MONITOR_RX, false, true); }
static void monitor_both(void) { watch(ABI_MONITOR_TX | ABI_MONITOR_RX, true, true); }
static void monitor_zero_copy(void) { watch(ABI_MONITOR_TX | ABI_MONITOR_RX | ABI_ZCOPY_MON, true, true); }

static void monitor_never_delays(void) {
	/* Nobody reads the monitor: traffic goes on. */
	struct port a, b, monitor, zero;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	open_port(&monitor, end("{1"), ABI_ALL_NIC, ABI_MONITOR_TX | ABI_MONITOR_RX);
	open_port(&zero, end("}1"), ABI_ALL_NIC, ABI_MONITOR_RX | ABI_ZCOPY_MON);
	for (uint32_t i = 0; i < 5000; i++) {
		send_frame(&a, 60, broadcast, host_mac(1), i);
		expect_frame(&b, 60, i);
	}
}

static void monitor_outlives_parent(void) {
	struct port a, monitor;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&monitor, vale("a"), ABI_ALL_NIC, ABI_MONITOR_RX | ABI_MONITOR_TX);
	close_port(&a);
	CHECK(rxsync(&monitor) == 0 || errno == ENXIO);
	close_port(&monitor);
	open_port(&a, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE);
}

static void monitor_zero_copy_in_a_burst(void) {
	struct port a, b, monitor;
	open_port(&a, end("{1"), ABI_ALL_NIC, 0);
	open_port(&b, end("}1"), ABI_ALL_NIC, 0);
	open_port(&monitor, end("{1"), ABI_ALL_NIC, ABI_MONITOR_TX | ABI_ZCOPY_MON);
	CHECK_EQ(monitor.reg.mem_id, a.reg.mem_id);
	uint32_t sent = 0, seen = 0;
	for (int round = 0; round < 50; round++) {
		uint32_t seed;
		for (int i = 0; i < 30; i++) send_frame(&a, 80, broadcast, host_mac(1), sent++);
		for (int i = 0; i < 30; i++) expect_frame(&b, 80, sent - 30 + (uint32_t)i);
		CHECK_OK(rxsync(&b));
		CHECK_OK(txsync(&a));
		while (take_frame(&monitor, 0, &seed)) {
			CHECK_EQ(seed, seen);
			seen++;
		}
	}
	CHECK_EQ(seen, sent);
}

const struct abi_case pipe_cases[] = {
	{"pipe/both-directions", both_directions, 0},
	{"pipe/one-end-alone", nothing_without_the_other_end, 0},
	{"pipe/apart", pipes_are_apart, 0},
	{"pipe/same-end-twice", same_end_twice, 0},
	{"pipe/bad-names", bad_names, 0},
	{"pipe/end-closes", end_closes, 0},
	{"pipe/of-a-switch-port", parent_of_a_pipe, 0},
	{"pipe/whole-packets", whole_packets, 0},
	{"pipe/many-rings", many_rings, 0},
	{NULL, NULL, 0},
};

const struct abi_case monitor_cases[] = {
	{"monitor/needs-a-parent", monitor_needs_a_parent, 0},
	{"monitor/transmit", monitor_transmit, 0},
	{"monitor/receive", monitor_receive, 0},
	{"monitor/both", monitor_both, 0},
	{"monitor/zero-copy", monitor_zero_copy, 0},
	{"monitor/zero-copy-burst", monitor_zero_copy_in_a_burst, 0},
	{"monitor/never-delays", monitor_never_delays, 0},
	{"monitor/outlives-parent", monitor_outlives_parent, 0},
	{NULL, NULL, 0},
};
