/* VALE switches and persistent ports. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *own(const char *part) { return named("v%s%d%s", tag(), (int)getpid() % 10000, part); }

static void three(struct port port[3]) {
	open_port(&port[0], vale("a"), ABI_ALL_NIC, 0);
	open_port(&port[1], vale("b"), ABI_ALL_NIC, 0);
	open_port(&port[2], vale("c"), ABI_ALL_NIC, 0);
}

static void unknown_goes_everywhere(void) {
	struct port port[3];
	three(port);
	send_frame(&port[0], 60, host_mac(99), host_mac(1), 1);
	expect_frame(&port[1], 60, 1);
	expect_frame(&port[2], 60, 1);
	expect_nothing(&port[0]);
}

static void broadcast_goes_everywhere(void) {
	struct port port[3];
	three(port);
	struct mac multicast = {{0x01, 0, 0x5e, 0, 0, 5}};
	send_frame(&port[1], 64, broadcast, host_mac(2), 7);
	send_frame(&port[1], 65, multicast, host_mac(2), 8);
	for (int i = 0; i < 3; i += 2) {
		expect_frame(&port[i], 64, 7);
		expect_frame(&port[i], 65, 8);
	}
	expect_nothing(&port[1]);
}

static void learns(void) {
	struct port port[3];
	three(port);
	send_frame(&port[0], 60, broadcast, host_mac(1), 1);
	expect_frame(&port[1], 60, 1);
	expect_frame(&port[2], 60, 1);
	send_frame(&port[1], 60, host_mac(1), host_mac(2), 2);
	expect_frame(&port[0], 60, 2);
	expect_nothing(&port[2]);
	/* The station moves. */
	send_frame(&port[2], 60, broadcast, host_mac(1), 3);
	expect_frame(&port[0], 60, 3);
	expect_frame(&port[1], 60, 3);
	send_frame(&port[1], 60, host_mac(1), host_mac(2), 4);
	expect_frame(&port[2], 60, 4);
	expect_nothing(&port[0]);
}

static void does_not_learn(void) {
	struct port port[3];
	three(port);
	struct abi_ring *tx = first_tx(&port[0]);
	put_frame(tx, 60, broadcast, host_mac(1), 1);
	tx->slot[0].flags = ABI_NO_LEARN;
	CHECK_OK(txsync(&port[0]));
	expect_frame(&port[1], 60, 1);
	expect_frame(&port[2], 60, 1);
	send_frame(&port[1], 60, host_mac(1), host_mac(2), 2);
	expect_frame(&port[0], 60, 2);
	expect_frame(&port[2], 60, 2); /* unknown still */
}

static void forgets_ports(void) {
	/* A station behind a port that has gone is unknown again. */
	struct port port[3];
	three(port);
	send_frame(&port[0], 60, broadcast, host_mac(1), 1);
	expect_frame(&port[1], 60, 1);
	expect_frame(&port[2], 60, 1);
	close_port(&port[0]);
	open_port(&port[0], vale("d"), ABI_ALL_NIC, 0);
	send_frame(&port[1], 60, host_mac(1), host_mac(2), 2);
	expect_frame(&port[2], 60, 2);
}

static void switches_are_apart(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, named("vale%sx%d:a", tag(), (int)getpid() % 10000), ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_nothing(&b);
}

static void many_in_order(void) {
	struct port port[3];
	three(port);
	uint32_t sent = 0, got[3] = {0};
	while (got[1] < 5000 || got[2] < 5000) {
		struct abi_ring *tx = first_tx(&port[0]);
		for (int i = 0; i < 32 && sent < 5000 && tx->head != tx->tail; i++, sent++)
			put_frame(tx, 60 + sent % 1440, broadcast, host_mac(1), sent);
		CHECK_OK(txsync(&port[0]));
		for (int p = 1; p < 3; p++)
			for (uint32_t seed; got[p] < sent; got[p]++) {
				if (!take_frame(&port[p], 1, &seed)) FAIL("frame %u did not come", got[p]);
				CHECK_EQ(seed, got[p]);
			}
	}
}

static void full_receiver_drops(void) {
	struct port a, b, c;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	uint32_t slots = first_rx(&b)->num_slots, seed;
	for (uint32_t i = 0; i < 3 * slots; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
	/* The first ones are kept, the rest is lost, and the sender did not wait. */
	uint32_t count = 0;
	while (take_frame(&b, 0, &seed)) CHECK_EQ(seed, count++);
	CHECK(count >= slots / 2 && count < slots);
	/* Another receiver does not suffer from it. */
	open_port(&c, vale("c"), ABI_ALL_NIC, 0);
	for (uint32_t i = 0; i < 2 * slots; i++) {
		send_frame(&a, 60, broadcast, host_mac(1), i);
		expect_frame(&c, 60, i);
	}
}

static void always_copies(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	uint32_t sender = first_tx(&a)->slot[0].buf_idx, receiver = first_rx(&b)->slot[0].buf_idx;
	send_frame(&a, 1000, broadcast, host_mac(1), 77);
	CHECK_OK(rxsync(&b));
	CHECK_EQ(first_tx(&a)->slot[0].buf_idx, sender);
	CHECK_EQ(first_rx(&b)->slot[0].buf_idx, receiver);
	/* What the sender does to his buffer afterwards is not seen. */
	memset(buffer(first_tx(&a), sender), 0, 1000);
	expect_frame(&b, 1000, 77);
}

static void indirect(void) {
	/* The slot points into the program's own memory. */
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	static uint8_t mine[2048];
	for (uint32_t i = 0; i < 20; i++) {
		fill_frame(mine, 900 + i, broadcast, host_mac(1), i);
		memset(buffer(tx, tx->slot[tx->head].buf_idx), 0, 1000);
		struct abi_slot *slot = &tx->slot[tx->head];
		slot->ptr = (uintptr_t)mine;
		slot->flags = ABI_INDIRECT;
		slot->len = (uint16_t)(900 + i);
		tx->head = tx->cur = next_slot(tx, tx->head);
		CHECK_OK(txsync(&a));
		expect_frame(&b, 900 + i, i);
	}
	/* A pointer to nothing: no packet of somebody's, no end of the world. */
	struct abi_slot *slot = &tx->slot[tx->head];
	slot->ptr = 8;
	slot->flags = ABI_INDIRECT;
	slot->len = 100;
	tx->head = tx->cur = next_slot(tx, tx->head);
	(void)txsync(&a);
	while (tx->slot[tx->head].flags) {
		tx->slot[tx->head].flags = 0;
		break;
	}
	CHECK_OK(rxsync(&b));
	first_rx(&b)->head = first_rx(&b)->cur = first_rx(&b)->tail;
	for (int i = 0; i < 3 && first_tx(&a)->head == first_tx(&a)->tail; i++) CHECK_OK(txsync(&a));
	send_frame(&a, 60, broadcast, host_mac(1), 500);
	uint32_t seed = 0;
	for (double limit = now() + 5; seed != 500 && now() < limit;) take_frame(&b, 0.05, &seed);
	CHECK_EQ(seed, 500);
}

static void fragments(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	/* One packet of 3 slots, then one of a single slot. */
	static uint8_t whole[6000], got[6000];
	fill_frame(whole, 4500, broadcast, host_mac(1), 21);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	for (int i = 0; i < 3; i++) {
		struct abi_slot *slot = &tx->slot[tx->head];
		memcpy(buffer(tx, slot->buf_idx), whole + 1500 * i, 1500);
		slot->len = 1500;
		slot->flags = i < 2 ? ABI_MOREFRAG : 0;
		tx->head = tx->cur = next_slot(tx, tx->head);
	}
	CHECK_OK(txsync(&a));
	uint32_t length = 0;
	for (double limit = now() + 5; rx->head == rx->tail && now() < limit; usleep(500)) CHECK_OK(rxsync(&b));
	for (bool more = true; more;) {
		CHECK(rx->head != rx->tail);
		struct abi_slot *slot = &rx->slot[rx->head];
		CHECK(length + slot->len <= sizeof got);
		memcpy(got + length, buffer(rx, slot->buf_idx), slot->len);
		length += slot->len;
		more = slot->flags & ABI_MOREFRAG;
		rx->head = rx->cur = next_slot(rx, rx->head);
	}
	CHECK_EQ(length, 4500);
	CHECK(memcmp(whole, got, 4500) == 0);
	send_frame(&a, 60, broadcast, host_mac(1), 22);
	expect_frame(&b, 60, 22);
}

static void too_many_fragments(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	for (uint32_t i = 0; i < 200; i++) {
		put_frame(tx, 60, broadcast, host_mac(1), i);
		tx->slot[i].flags = ABI_MOREFRAG;
	}
	CHECK_OK(txsync(&a));
	while (tx->head != 0 && ready(tx) == 0) CHECK_OK(txsync(&a));
	put_frame(tx, 60, broadcast, host_mac(1), 999);
	CHECK_OK(txsync(&a));
	send_frame(&a, 60, broadcast, host_mac(1), 1000);
	uint32_t seed = 0;
	for (double limit = now() + 5; seed != 1000 && now() < limit;) take_frame(&b, 0.05, &seed);
	CHECK_EQ(seed, 1000);
}

static void virtio_headers(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, ABI_ACCEPT_VNET_HDR);
	open_port(&b, vale("b"), ABI_ALL_NIC, ABI_ACCEPT_VNET_HDR);
	int fd = device();
	struct abi_port_hdr length = {.length = 12};
	CHECK_OK(request(fd, ABI_HDR_SET, vale("a"), &length));
	CHECK_OK(request(fd, ABI_HDR_SET, vale("b"), &length));
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	struct abi_slot *slot = &tx->slot[tx->head];
	uint8_t *at = buffer(tx, slot->buf_idx);
	memset(at, 0, 12);
	fill_frame(at + 12, 100, broadcast, host_mac(1), 5);
	slot->len = 112;
	tx->head = tx->cur = next_slot(tx, tx->head);
	CHECK_OK(txsync(&a));
	for (double limit = now() + 5; rx->head == rx->tail && now() < limit; usleep(500)) CHECK_OK(rxsync(&b));
	CHECK(rx->head != rx->tail);
	CHECK_EQ(rx->slot[rx->head].len, 112);
	const char *problem = check_frame(buffer(rx, rx->slot[rx->head].buf_idx) + 12, 100, 5);
	if (problem) FAIL("the frame behind the header is %s", problem);
	/* To a port without headers: the header is taken off. */
	struct port c;
	open_port(&c, vale("c"), ABI_ALL_NIC, 0);
	slot = &tx->slot[tx->head];
	at = buffer(tx, slot->buf_idx);
	memset(at, 0, 12);
	fill_frame(at + 12, 100, broadcast, host_mac(1), 6);
	slot->len = 112;
	tx->head = tx->cur = next_slot(tx, tx->head);
	CHECK_OK(txsync(&a));
	expect_frame(&c, 100, 6);
}

static void two_programs_share_a_port(void) {
	struct port a, again, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&again, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	CHECK_EQ(a.reg.mem_id, again.reg.mem_id);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_frame(&b, 60, 1);
	close_port(&a);
	send_frame(&again, 60, broadcast, host_mac(1), 2);
	expect_frame(&b, 60, 2);
}

static void many_ports(void) {
	/* 254 ports to a switch, and not one more. */
	static struct port port[254];
	char name[16];
	for (int i = 0; i < 254; i++) {
		port[i].fd = device();
		snprintf(name, sizeof name, "p%d", i);
		struct abi_register reg = {.mode = ABI_ALL_NIC, .tx_slots = 64, .rx_slots = 64};
		if (request(port[i].fd, ABI_REGISTER, vale(name), &reg) != 0) FAIL("port %d: %s", i, strerrorname_np(errno));
	}
	struct port one = {.fd = device()};
	CHECK(try_register(&one, vale("more"), ABI_ALL_NIC, 0) != 0);
	CHECK_OK(close(port[7].fd));
	/* The daemon hears of a close a moment later. */
	int refused = EBUSY;
	for (double limit = now() + 5; refused && now() < limit; usleep(1000)) refused = try_register(&one, vale("more"), ABI_ALL_NIC, 0);
	CHECK_EQ(refused, 0);
}

/* MARK: persistent ports */

static void persistent(void) {
	int fd = device();
	struct abi_newif newif = {.tx_slots = 256, .rx_slots = 256, .tx_rings = 1, .rx_rings = 1};
	CHECK_OK(request(fd, ABI_NEWIF, own("k"), &newif));
	CHECK_ERRNO(request(fd, ABI_NEWIF, own("k"), &newif), EEXIST);
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	CHECK_OK(request(fd, ABI_VALE_ATTACH, vale(own("k")), &attach));
	CHECK(request(fd, ABI_VALE_ATTACH, vale(own("k")), &attach) == -1);
	struct port a, k;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&k, own("k"), ABI_ALL_NIC, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_frame(&k, 60, 1);
	send_frame(&k, 61, broadcast, host_mac(2), 2);
	expect_frame(&a, 61, 2);
	CHECK(request(fd, ABI_DELIF, own("k"), NULL) == -1); /* it is in use */
	close_port(&k);
	open_port(&k, own("k"), ABI_ALL_NIC, 0); /* still there, still attached */
	send_frame(&a, 60, broadcast, host_mac(1), 3);
	expect_frame(&k, 60, 3);
	close_port(&k);
	struct abi_vale_detach detach = {0};
	CHECK_OK(request(fd, ABI_VALE_DETACH, vale(own("k")), &detach));
	CHECK_OK(request(fd, ABI_DELIF, own("k"), NULL));
	struct port gone = {.fd = device()};
	CHECK_EQ(try_register(&gone, own("k"), ABI_ALL_NIC, 0), ENXIO);
}

static void persistent_outlives_its_maker(void) {
	struct abi_newif newif = {0};
	int fd = device();
	CHECK_OK(request(fd, ABI_NEWIF, own("l"), &newif));
	CHECK_OK(close(fd));
	struct port port;
	open_port(&port, own("l"), ABI_ALL_NIC, 0);
	close_port(&port);
	fd = device();
	CHECK_OK(request(fd, ABI_DELIF, own("l"), NULL));
}

static void bad_switch_names(void) {
	int fd = device();
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	struct port port = {.fd = fd};
	struct abi_newif newif = {0};
	CHECK(try_register(&port, "vale", ABI_ALL_NIC, 0) != 0);
	CHECK(try_register(&port, "vale0:", ABI_ALL_NIC, 0) != 0);
	CHECK(request(fd, ABI_VALE_ATTACH, "nobody0", &attach) == -1);
	CHECK(request(fd, ABI_NEWIF, "", &newif) == -1);
	CHECK(request(fd, ABI_NEWIF, "vale0:x", &newif) == -1);
}

const struct abi_case vale_cases[] = {
	{"vale/unknown", unknown_goes_everywhere, 0},
	{"vale/broadcast", broadcast_goes_everywhere, 0},
	{"vale/learning", learns, 0},
	{"vale/no-learn", does_not_learn, 0},
	{"vale/forgets-ports", forgets_ports, 0},
	{"vale/switches-apart", switches_are_apart, 0},
	{"vale/many-in-order", many_in_order, 0},
	{"vale/full-drops", full_receiver_drops, 0},
	{"vale/copies", always_copies, 0},
	{"vale/indirect", indirect, 0},
	{"vale/fragments", fragments, 0},
	{"vale/too-many-fragments", too_many_fragments, 0},
	{"vale/virtio-headers", virtio_headers, 0},
	{"vale/shared-port", two_programs_share_a_port, 0},
	{"vale/254-ports", many_ports, 0},
	{"vale/persistent", persistent, 0},
	{"vale/persistent-outlives-maker", persistent_outlives_its_maker, 0},
	{"vale/bad-names", bad_switch_names, 0},
	{NULL, NULL, 0},
};
