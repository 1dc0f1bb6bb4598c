/* Host rings of a card, and cards on switches. The stack answers questions for the card's address, NETMAP_ABI_NIC_ADDRESS. */
#include "../abi.h"

#include <arpa/inet.h>

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

static const char *address(void) {
	const char *text = getenv("NETMAP_ABI_NIC_ADDRESS");
	return text ? text : "198.18.1.1";
}

/* "Who has the card's address?", from a station that nobody knows. */
static uint32_t ask(uint8_t *to) {
	struct mac source = host_mac(77);
	uint8_t station[4] = {198, 18, 1, 9}, target[4];
	CHECK_EQ(inet_pton(AF_INET, address(), target), 1);
	memset(to, 0, 60);
	memset(to, 0xff, 6);
	memcpy(to + 6, source.bytes, 6);
	memcpy(to + 12, "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01", 10);
	memcpy(to + 22, source.bytes, 6);
	memcpy(to + 28, station, 4);
	memcpy(to + 38, target, 4);
	return 60;
}

static bool is_answer(const uint8_t *bytes, uint32_t length) {
	uint8_t target[4];
	inet_pton(AF_INET, address(), target);
	return length >= 42 && bytes[12] == 8 && bytes[13] == 6 && bytes[21] == 2 && memcmp(bytes + 28, target, 4) == 0;
}

static void put_question(struct port *port, struct abi_ring *ring) {
	for (double limit = now() + 5; ring->head == ring->tail && now() < limit;) CHECK_OK(txsync(port));
	struct abi_slot *slot = &ring->slot[ring->head];
	slot->len = (uint16_t)ask(buffer(ring, slot->buf_idx));
	slot->flags = 0;
	ring->head = ring->cur = next_slot(ring, ring->head);
	CHECK_OK(txsync(port));
}

/* The stack's answer on any ring of the port, within `seconds`. Slots get `flags` before they are given back. */
static bool answered(struct port *port, double seconds, uint16_t flags) {
	for (double limit = now() + seconds; now() < limit; usleep(500)) {
		CHECK_OK(rxsync(port));
		for (unsigned i = 0; i < port->nif->rx_rings + port->nif->host_rx_rings; i++) {
			struct abi_ring *ring = rx_ring(port, i);
			while (ring && ring->head != ring->tail) {
				struct abi_slot *slot = &ring->slot[ring->head];
				bool found = is_answer(buffer(ring, slot->buf_idx), slot->len);
				slot->flags |= flags;
				ring->head = ring->cur = next_slot(ring, ring->head);
				if (found && flags) CHECK_OK(rxsync(port));
				if (found) return true;
			}
		}
	}
	return false;
}

/* With the host rings alone the card's queues are the stack's still: what it answers goes out on the wire, to the other card. */
static void host_rings(void) {
	struct port port, wire;
	open_port(&wire, card(1), ABI_ALL_NIC, 0);
	open_port(&port, card(0), ABI_SW, 0);
	for (unsigned i = 0; i < port.nif->tx_rings; i++) CHECK(!tx_ring(&port, i));
	CHECK(tx_ring(&port, port.nif->tx_rings) != NULL);
	CHECK(rx_ring(&port, port.nif->rx_rings) != NULL);
	bool done = false;
	for (double limit = now() + 10; !done && now() < limit;) {
		put_question(&port, first_tx(&port));
		done = answered(&wire, 0.5, 0);
	}
	if (!done) FAIL("the stack does not answer what comes by the host rings");
}

static void one_host_ring(void) {
	struct port port = {.reg = {.mode = ABI_ONE_SW, .ringid = 0}};
	open_with(&port, card(0), NULL);
	CHECK(first_tx(&port) == tx_ring(&port, port.nif->tx_rings));
	CHECK_OK(txsync(&port));
	CHECK_OK(rxsync(&port));
	struct port bad = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ONE_SW, .ringid = 4000};
	CHECK_ERRNO(request(bad.fd, ABI_REGISTER, card(0), &reg), EINVAL);
}

static void host_ring_drains(void) {
	/* Slots too short or too long are skipped, and the ring goes on. */
	struct port port;
	open_port(&port, card(0), ABI_NIC_SW, 0);
	struct abi_ring *tx = tx_ring(&port, port.nif->tx_rings);
	for (int i = 0; i < 20; i++) {
		struct abi_slot *slot = &tx->slot[tx->head];
		slot->len = i % 2 ? 5 : 0;
		tx->head = tx->cur = next_slot(tx, tx->head);
	}
	CHECK_OK(txsync(&port));
	for (double limit = now() + 5; ready(tx) < tx->num_slots - 1 && now() < limit; usleep(1000)) CHECK_OK(txsync(&port));
	CHECK_EQ(ready(tx), tx->num_slots - 1);
	put_question(&port, tx);
	if (!answered(&port, 5, 0)) FAIL("the stack does not answer any more");
	/* And what it says is there for poll. */
	put_question(&port, tx);
	for (double limit = now() + 5;;) {
		CHECK_EQ(poll_one(port.fd, POLLIN, 5000), POLLIN);
		if (answered(&port, 0.01, 0)) break;
		if (now() > limit) FAIL("no answer by poll");
	}
}

static void both_kinds_of_rings(void) {
	/* The program is the cable between the card and its stack. */
	struct port a, b;
	open_port(&b, card(1), ABI_ALL_NIC, 0);
	open_port(&a, card(0), ABI_NIC_SW, 0);
	CHECK(tx_ring(&a, 0) && tx_ring(&a, a.nif->tx_rings) && rx_ring(&a, 0) && rx_ring(&a, a.nif->rx_rings));
	settle(&b, &a);
	put_question(&a, tx_ring(&a, a.nif->tx_rings));
	if (!answered(&a, 5, 0)) FAIL("the stack does not answer");
	send_frame(&a, 60, broadcast, host_mac(1), 4);
	expect_frame(&b, 60, 4);
}

static void forwarding(void) {
	/* With the ring's flag, marked slots go on to the other side at the next sync. */
	struct port a, b;
	open_port(&b, card(1), ABI_ALL_NIC, 0);
	open_port(&a, card(0), ABI_NIC_SW, 0);
	settle(&b, &a);
	for (unsigned i = 0; i < a.nif->rx_rings + a.nif->host_rx_rings; i++)
		if (rx_ring(&a, i)) rx_ring(&a, i)->flags |= ABI_R_FORWARD;
	put_question(&b, first_tx(&b));
	/* The question comes from the card and goes to the stack; the answer goes to the card. */
	double limit = now() + 10;
	bool done = false;
	while (!done && now() < limit) {
		CHECK_OK(rxsync(&a));
		for (unsigned i = 0; i < a.nif->rx_rings + a.nif->host_rx_rings; i++) {
			struct abi_ring *ring = rx_ring(&a, i);
			while (ring && ring->head != ring->tail) {
				ring->slot[ring->head].flags |= ABI_FORWARD;
				ring->head = ring->cur = next_slot(ring, ring->head);
			}
		}
		CHECK_OK(rxsync(&a));
		CHECK_OK(txsync(&a));
		done = answered(&b, 0.02, 0);
	}
	if (!done) FAIL("the answer did not come back through the forwarder");
}

/* MARK: cards on switches */

static void attached(void) {
	int fd = device();
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	char name[64];
	snprintf(name, sizeof name, "%s", vale(card(0)));
	CHECK_OK(request(fd, ABI_VALE_ATTACH, name, &attach));
	CHECK_ERRNO(request(fd, ABI_VALE_ATTACH, name, &attach), EBUSY);
	struct port busy = {.fd = device()}, a, b;
	CHECK_EQ(try_register(&busy, card(0), ABI_ALL_NIC, 0), EBUSY);
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, card(1), ABI_ALL_NIC, 0);
	settle(&a, &b);
	for (uint32_t i = 0; i < 150; i++) {
		send_frame(&a, 60 + i, broadcast, host_mac(1), i);
		expect_frame(&b, 60 + i, i);
		send_frame(&b, 60 + i, broadcast, host_mac(2), i + 5000);
		expect_frame(&a, 60 + i, i + 5000);
	}
	struct abi_vale_detach detach = {0};
	CHECK_OK(request(fd, ABI_VALE_DETACH, name, &detach));
	CHECK_EQ(try_register(&busy, card(0), ABI_ALL_NIC, 0), 0);
}

static void attached_with_host_rings(void) {
	int fd = device();
	struct abi_vale_attach attach = {.reg = {.mode = ABI_NIC_SW}};
	char name[64];
	snprintf(name, sizeof name, "%s", vale(card(0)));
	CHECK_OK(request(fd, ABI_VALE_ATTACH, name, &attach));
	struct port a;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	bool done = false;
	for (double limit = now() + 10; !done && now() < limit;) {
		put_question(&a, first_tx(&a));
		done = answered(&a, 0.5, 0);
	}
	struct abi_vale_detach detach = {0};
	CHECK_OK(request(fd, ABI_VALE_DETACH, name, &detach));
	if (!done) FAIL("the stack does not answer through the switch");
}

static void in_use_is_not_attached(void) {
	struct port port;
	open_port(&port, card(0), ABI_ALL_NIC, 0);
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	CHECK_ERRNO(request(device(), ABI_VALE_ATTACH, vale(card(0)), &attach), EBUSY);
}

static void polling(void) {
	int fd = device();
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	char name[64];
	snprintf(name, sizeof name, "%s", vale(card(0)));
	CHECK_OK(request(fd, ABI_VALE_ATTACH, name, &attach));
	struct abi_polling bad = {.mode = 7, .cpus = 1}, good = {.mode = 1, .cpus = 1};
	CHECK(request(fd, ABI_POLLING_ON, name, &bad) == -1);
	CHECK_OK(request(fd, ABI_POLLING_ON, name, &good));
	CHECK(request(fd, ABI_POLLING_ON, name, &good) == -1);
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, card(1), ABI_ALL_NIC, 0);
	settle(&b, &a);
	for (uint32_t i = 0; i < 100; i++) {
		send_frame(&b, 60 + i, broadcast, host_mac(2), i);
		expect_frame(&a, 60 + i, i);
	}
	CHECK_OK(request(fd, ABI_POLLING_OFF, name, &good));
	CHECK(request(fd, ABI_POLLING_OFF, name, &good) == -1);
	struct abi_vale_detach detach = {0};
	CHECK_OK(request(fd, ABI_VALE_DETACH, name, &detach));
}

const struct abi_case host_cases[] = {
	{"card/host-rings", host_rings, NEEDS_TWO_CARDS},
	{"card/one-host-ring", one_host_ring, NEEDS_CARDS},
	{"card/host-ring-drains", host_ring_drains, NEEDS_CARDS},
	{"card/both-kinds-of-rings", both_kinds_of_rings, NEEDS_TWO_CARDS},
	{"card/forwarding", forwarding, NEEDS_TWO_CARDS},
	{NULL, NULL, 0},
};

const struct abi_case attach_cases[] = {
	{"attach/card", attached, NEEDS_TWO_CARDS},
	{"attach/with-host-rings", attached_with_host_rings, NEEDS_CARDS},
	{"attach/in-use", in_use_is_not_attached, NEEDS_CARDS},
	{"attach/polling", polling, NEEDS_TWO_CARDS},
	{NULL, NULL, 0},
};
