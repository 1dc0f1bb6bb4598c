/* Cards: two cards cabled to each other, NETMAP_ABI_NIC and NETMAP_ABI_NIC2. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

/* Links may take a moment after a daemon's start. */
static void settle(struct port *a, struct port *b) {
	uint32_t seed;
	for (double limit = now() + 10; now() < limit;) {
		send_frame(a, 60, broadcast, host_mac(1), 0xfffffff0);
		if (take_frame(b, 0.1, &seed)) {
			while (take_frame(b, 0.1, &seed)) {}
			return;
		}
	}
	FAIL("nothing passes from %s to %s", card(0), card(1));
}

static void open_both(struct port *a, struct port *b) {
	open_port(a, card(0), ABI_ALL_NIC, 0);
	open_port(b, card(1), ABI_ALL_NIC, 0);
	settle(a, b);
	settle(b, a);
}

static void fields(void) {
	struct port port;
	open_port(&port, card(0), ABI_ALL_NIC, 0);
	struct abi_port_info info = {0};
	CHECK_OK(request(device(), ABI_PORT_INFO, card(0), &info));
	CHECK_EQ(info.tx_rings, port.nif->tx_rings);
	CHECK_EQ(info.rx_rings, port.nif->rx_rings);
	CHECK_EQ(info.tx_slots, first_tx(&port)->num_slots);
	CHECK_EQ(port.reg.mem_id, info.mem_id);
	for (unsigned i = 0; i < port.nif->tx_rings; i++) CHECK_EQ(tx_ring(&port, i)->ringid, i);
	for (unsigned i = 0; i < port.nif->host_tx_rings; i++) CHECK(!tx_ring(&port, port.nif->tx_rings + i));
	struct port bad = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ONE_NIC, .ringid = info.tx_rings > info.rx_rings ? info.tx_rings : info.rx_rings};
	CHECK_ERRNO(request(bad.fd, ABI_REGISTER, card(0), &reg), EINVAL);
}

static void there_and_back(void) {
	struct port a, b;
	open_both(&a, &b);
	for (uint32_t i = 0; i < 300; i++) {
		send_frame(&a, 60 + 4 * i % 1400, broadcast, host_mac(1), i);
		expect_frame(&b, 60 + 4 * i % 1400, i);
		send_frame(&b, 60 + i % 1300, broadcast, host_mac(2), i + 50000);
		expect_frame(&a, 60 + i % 1300, i + 50000);
	}
}

static void wakes_by_interrupt(void) {
	struct port a, b;
	open_both(&a, &b);
	for (uint32_t i = 0; i < 50; i++) {
		CHECK_EQ(poll_one(b.fd, POLLIN, i % 5 == 0 ? 20 : 0), 0);
		send_frame(&a, 60, broadcast, host_mac(1), i);
		double start = now();
		CHECK_EQ(poll_one(b.fd, POLLIN, 5000), POLLIN);
		if (now() - start > 1) FAIL("frame %u woke after %.3f s", i, now() - start);
		expect_frame(&b, 60, i);
	}
}

static void in_bursts(void) {
	struct port a, b;
	open_both(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	uint32_t sent = 0, came = 0, seed;
	while (came < 4000) {
		if (sent - came < 256 && tx->head != tx->tail && sent < 4000) {
			for (int i = 0; i < 32 && tx->head != tx->tail && sent < 4000; i++) put_frame(tx, 64, broadcast, host_mac(1), sent++);
		}
		CHECK_OK(txsync(&a));
		while (came < sent && take_frame(&b, 0, &seed)) {
			CHECK_EQ(seed, came);
			came++;
		}
		static double last;
		static uint32_t before;
		if (came != before) before = came, last = now();
		else if (last && now() - last > 5) FAIL("nothing came for 5 s after %u of %u frames", came, sent);
	}
}

static void zero_copy_forwarder(void) {
	/* Card to card by swapping: both are in one region. A peer on the wire is a second registration. */
	struct port a, b;
	open_both(&a, &b);
	if (a.reg.mem_id != b.reg.mem_id) FAIL("two cards have regions %u and %u", a.reg.mem_id, b.reg.mem_id);
	for (uint32_t i = 0; i < 300; i++) {
		/* a sends; b receives, and sends the same buffer back. */
		send_frame(&a, 60 + i % 1000, broadcast, host_mac(1), i);
		struct abi_ring *rx = NULL, *tx = first_tx(&b);
		for (double limit = now() + 5; !rx;) {
			CHECK_OK(rxsync(&b));
			for (unsigned r = 0; r < b.nif->rx_rings; r++)
				if (rx_ring(&b, r)->head != rx_ring(&b, r)->tail) rx = rx_ring(&b, r);
			if (now() > limit) FAIL("frame %u did not come", i);
		}
		for (double limit = now() + 5; tx->head == tx->tail && now() < limit;) CHECK_OK(txsync(&b));
		CHECK(tx->head != tx->tail);
		struct abi_slot *from = &rx->slot[rx->head], *to = &tx->slot[tx->head];
		uint32_t index = to->buf_idx;
		to->buf_idx = from->buf_idx;
		to->len = from->len;
		from->buf_idx = index;
		to->flags = from->flags = ABI_BUF_CHANGED;
		rx->head = rx->cur = next_slot(rx, rx->head);
		tx->head = tx->cur = next_slot(tx, tx->head);
		CHECK_OK(txsync(&b));
		expect_frame(&a, 60 + i % 1000, i);
	}
}

static void one_ring(void) {
	struct port port;
	memset(&port, 0, sizeof port);
	port.reg = (struct abi_register){.mode = ABI_ONE_NIC, .ringid = 0};
	open_with(&port, card(0), NULL);
	CHECK(tx_ring(&port, 0) && rx_ring(&port, 0));
	for (unsigned i = 1; i < port.nif->tx_rings; i++) CHECK(!tx_ring(&port, i));
	CHECK_OK(txsync(&port));
	CHECK_OK(rxsync(&port));
}

static void given_back(void) {
	/* Open and close: the card goes over to the program and back, again and again. */
	for (int i = 0; i < 10; i++) {
		struct port a, b;
		open_both(&a, &b);
		close_port(&a);
		close_port(&b);
	}
}

static void switch_name_refused(void) {
	struct port port = {.fd = device()};
	char name[64];
	snprintf(name, sizeof name, "%s", vale(card(0)));
	CHECK_EQ(try_register(&port, name, ABI_ALL_NIC, 0), EINVAL);
}

/* MARK: what hangs on cards */

static void pipes_of_a_card(void) {
	struct port a, b;
	char first[64], second[64];
	snprintf(first, sizeof first, "%s{1", card(0));
	snprintf(second, sizeof second, "%s}1", card(0));
	open_port(&a, first, ABI_ALL_NIC, 0);
	open_port(&b, second, ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_frame(&b, 60, 1);
	struct port nic;
	open_port(&nic, card(0), ABI_ALL_NIC, 0);
	CHECK_EQ(nic.reg.mem_id, a.reg.mem_id);
}

static void monitored(void) {
	struct port a, b, monitor;
	open_both(&a, &b);
	open_port(&monitor, card(0), ABI_ALL_NIC, ABI_MONITOR_TX | ABI_MONITOR_RX);
	for (uint32_t i = 0; i < 50; i++) {
		send_frame(&a, 70, broadcast, host_mac(1), i);
		expect_frame(&b, 70, i);
		for (double limit = now() + 5; ready(first_tx(&a)) < first_tx(&a)->num_slots - 1 && now() < limit;) CHECK_OK(txsync(&a));
		expect_frame(&monitor, 70, i);
		send_frame(&b, 75, broadcast, host_mac(2), 1000 + i);
		expect_frame(&a, 75, 1000 + i);
		CHECK_OK(rxsync(&a));
		expect_frame(&monitor, 75, 1000 + i);
	}
}

static void timestamps(void) {
	struct port a, b;
	open_both(&a, &b);
	for (unsigned i = 0; i < b.nif->rx_rings; i++) rx_ring(&b, i)->flags |= ABI_R_TIMESTAMP;
	struct timeval before, after;
	gettimeofday(&before, NULL);
	send_frame(&a, 60, broadcast, host_mac(1), 9);
	expect_frame(&b, 60, 9);
	gettimeofday(&after, NULL);
	long long stamp = 0;
	for (unsigned i = 0; i < b.nif->rx_rings; i++) {
		struct timeval *at = &rx_ring(&b, i)->ts;
		if (at->tv_sec * 1000000ll + at->tv_usec > stamp) stamp = at->tv_sec * 1000000ll + at->tv_usec;
	}
	CHECK(stamp >= before.tv_sec * 1000000ll + before.tv_usec - 1000);
	CHECK(stamp <= after.tv_sec * 1000000ll + after.tv_usec + 1000);
}

static void bad_slots_to_the_wire(void) {
	struct port a, b;
	open_both(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	static const uint32_t bad[] = {0, 1, 0xffffffff, 1u << 24};
	for (size_t k = 0; k < 4; k++) {
		uint32_t at = tx->head, index = tx->slot[at].buf_idx;
		tx->slot[at].buf_idx = bad[k];
		tx->slot[at].len = 60;
		tx->slot[at].flags = ABI_BUF_CHANGED;
		tx->head = tx->cur = next_slot(tx, at);
		CHECK_OK(txsync(&a));
		tx->slot[at].buf_idx = index;
		tx->slot[at].len = 60;
		tx->slot[at].flags = ABI_BUF_CHANGED;
		uint32_t seed = 0;
		for (double limit = now() + 5; seed != 900 + k;) {
			if (now() > limit) FAIL("after index %u nothing passes", bad[k]);
			send_frame(&a, 60, broadcast, host_mac(1), 900 + (uint32_t)k);
			take_frame(&b, 0.1, &seed);
		}
		while (take_frame(&b, 0.05, &seed)) {}
	}
	/* Too long for a buffer. */
	put_frame(tx, 60, broadcast, host_mac(1), 1);
	tx->slot[(tx->head + tx->num_slots - 1) % tx->num_slots].len = 0xffff;
	CHECK_OK(txsync(&a));
	uint32_t seed = 0;
	for (double limit = now() + 5; seed != 950 && now() < limit;) {
		send_frame(&a, 60, broadcast, host_mac(1), 950);
		take_frame(&b, 0.1, &seed);
	}
	CHECK_EQ(seed, 950);
}

const struct abi_case card_cases[] = {
	{"card/fields", fields, NEEDS_CARDS},
	{"card/there-and-back", there_and_back, NEEDS_TWO_CARDS},
	{"card/wakes", wakes_by_interrupt, NEEDS_TWO_CARDS},
	{"card/bursts", in_bursts, NEEDS_TWO_CARDS},
	{"card/zero-copy", zero_copy_forwarder, NEEDS_TWO_CARDS},
	{"card/one-ring", one_ring, NEEDS_CARDS},
	{"card/given-back", given_back, NEEDS_TWO_CARDS},
	{"card/switch-name-refused", switch_name_refused, NEEDS_CARDS},
	{"card/pipes", pipes_of_a_card, NEEDS_CARDS},
	{"card/monitored", monitored, NEEDS_TWO_CARDS},
	{"card/timestamps", timestamps, NEEDS_TWO_CARDS},
	{"card/bad-slots", bad_slots_to_the_wire, NEEDS_TWO_CARDS},
	{NULL, NULL, 0},
};
