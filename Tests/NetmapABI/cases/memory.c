/* Regions: extra buffers, sharing, zero copy, and indexes that are not one's own. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static uint32_t list_length(const struct port *port) {
	uint32_t count = 0;
	for (uint32_t at = port->nif->bufs_head; at && count < 100000; count++) memcpy(&at, buffer(first_tx(port), at), 4);
	return count;
}

static void extra_buffers(void) {
	struct port port = {.reg = {.mode = ABI_ALL_NIC, .extra_bufs = 40}};
	open_with(&port, vale("a"), NULL);
	CHECK_EQ(port.reg.extra_bufs, 40);
	CHECK_EQ(list_length(&port), 40);
	/* One goes into the ring, the slot's own onto the list. */
	struct port b;
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&port);
	for (uint32_t i = 0; i < 100; i++) {
		struct abi_slot *slot = &tx->slot[tx->head];
		uint32_t taken = port.nif->bufs_head, following;
		memcpy(&following, buffer(tx, taken), 4);
		memcpy(buffer(tx, slot->buf_idx), &following, 4);
		port.nif->bufs_head = slot->buf_idx;
		slot->buf_idx = taken;
		put_frame(tx, 90, broadcast, host_mac(1), i);
		tx->slot[(tx->head + tx->num_slots - 1) % tx->num_slots].flags = ABI_BUF_CHANGED;
		CHECK_OK(txsync(&port));
		expect_frame(&b, 90, i);
		CHECK_EQ(list_length(&port), 40);
	}
}

static void extra_buffers_come_back(void) {
	for (int i = 0; i < 30; i++) {
		struct port port = {.reg = {.mode = ABI_ALL_NIC, .extra_bufs = 1000}};
		open_with(&port, vale("a"), NULL);
		CHECK_EQ(list_length(&port), port.reg.extra_bufs);
		CHECK(port.reg.extra_bufs > 0);
		if (i % 3 == 1) port.nif->bufs_head = 0;
		if (i % 3 == 2) port.nif->bufs_head = 0xfffffff0;
		close_port(&port);
	}
}

static void extra_list_in_a_circle(void) {
	struct port port = {.reg = {.mode = ABI_ALL_NIC, .extra_bufs = 4}};
	open_with(&port, vale("a"), NULL);
	uint32_t first = port.nif->bufs_head;
	memcpy(buffer(first_tx(&port), first), &first, 4);
	close_port(&port);
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
}

static void shared_region(void) {
	/* A switch port in the region of another program's port. */
	struct port a, b, c;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	memset(&b, 0, sizeof b);
	b.reg = (struct abi_register){.mode = ABI_ALL_NIC, .mem_id = a.reg.mem_id};
	open_with(&b, vale("b"), NULL);
	CHECK_EQ(b.reg.mem_id, a.reg.mem_id);
	CHECK_EQ(b.reg.memsize, a.reg.memsize);
	CHECK(a.reg.offset != b.reg.offset);
	open_port(&c, vale("c"), ABI_ALL_NIC, 0);
	send_frame(&c, 60, broadcast, host_mac(1), 1);
	expect_frame(&a, 60, 1);
	expect_frame(&b, 60, 1);
	/* One mapping shows both. */
	struct abi_if *other = (struct abi_if *)(a.memory + b.reg.offset);
	CHECK_EQ(strcmp(other->name, vale("b")), 0);
}

static void global_region(void) {
	struct port a = {.reg = {.mode = ABI_ALL_NIC, .mem_id = 1}}, b = {.reg = {.mode = ABI_ALL_NIC, .mem_id = 1}};
	open_with(&a, vale("a"), NULL);
	open_with(&b, vale("b"), NULL);
	CHECK_EQ(a.reg.mem_id, 1);
	CHECK_EQ(b.reg.mem_id, 1);
	CHECK_EQ(a.nif->flags & ABI_IF_PRIVATE, 0);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	expect_frame(&b, 60, 1);
}

static void zero_copy_between_ports(void) {
	/* From one pipe to the next of the same region, by swapping indexes: what a forwarder does. */
	struct port in, mid_in, mid_out, out;
	open_port(&in, end("{1"), ABI_ALL_NIC, 0);
	open_port(&mid_in, end("}1"), ABI_ALL_NIC, 0);
	open_port(&mid_out, end("{2"), ABI_ALL_NIC, 0);
	open_port(&out, end("}2"), ABI_ALL_NIC, 0);
	CHECK_EQ(mid_in.reg.mem_id, mid_out.reg.mem_id);
	struct abi_ring *rx = first_rx(&mid_in), *tx = first_tx(&mid_out);
	for (uint32_t i = 0; i < 4000; i++) {
		send_frame(&in, 60 + i % 1400, broadcast, host_mac(1), i);
		for (double limit = now() + 5; rx->head == rx->tail && now() < limit;) CHECK_OK(rxsync(&mid_in));
		CHECK(rx->head != rx->tail);
		for (double limit = now() + 5; tx->head == tx->tail && now() < limit;) CHECK_OK(txsync(&mid_out));
		CHECK(tx->head != tx->tail);
		struct abi_slot *from = &rx->slot[rx->head], *to = &tx->slot[tx->head];
		uint32_t index = to->buf_idx;
		to->buf_idx = from->buf_idx;
		to->len = from->len;
		from->buf_idx = index;
		to->flags = from->flags = ABI_BUF_CHANGED;
		rx->head = rx->cur = next_slot(rx, rx->head);
		tx->head = tx->cur = next_slot(tx, tx->head);
		CHECK_OK(txsync(&mid_out));
		CHECK_OK(rxsync(&mid_in));
		expect_frame(&out, 60 + i % 1400, i);
	}
}

static void duplicated_index(void) {
	/* The same buffer in two slots: the program's own loss, and only while it runs. */
	for (int round = 0; round < 5; round++) {
		struct port a, b;
		open_port(&a, vale("a"), ABI_ALL_NIC, 0);
		open_port(&b, vale("b"), ABI_ALL_NIC, 0);
		struct abi_ring *tx = first_tx(&a);
		for (uint32_t i = 1; i < 20; i++) {
			tx->slot[i].buf_idx = tx->slot[0].buf_idx;
			tx->slot[i].flags = ABI_BUF_CHANGED;
		}
		for (uint32_t i = 0; i < 20; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
		close_port(&a);
		close_port(&b);
	}
}

static void another_ports_buffer(void) {
	/* In a region of its own, a port's indexes reach nobody else. In a shared one: what the other holds stays his. */
	struct port a, b, c;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	memset(&b, 0, sizeof b);
	b.reg = (struct abi_register){.mode = ABI_ALL_NIC, .mem_id = a.reg.mem_id};
	open_with(&b, vale("b"), NULL);
	open_port(&c, vale("c"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	tx->slot[0].buf_idx = first_rx(&b)->slot[5].buf_idx;
	tx->slot[0].flags = ABI_BUF_CHANGED;
	tx->slot[0].len = 60;
	tx->head = tx->cur = 1;
	CHECK_OK(txsync(&a));
	for (uint32_t i = 0; i < 100; i++) {
		send_frame(&c, 64, broadcast, host_mac(3), 600 + i);
		uint32_t seed = 0;
		for (double limit = now() + 5; seed != 600 + i && now() < limit;) take_frame(&b, 0.05, &seed);
		CHECK_EQ(seed, 600 + i);
	}
}

const struct abi_case memory_cases[] = {
	{"memory/extra-buffers", extra_buffers, 0},
	{"memory/extra-buffers-come-back", extra_buffers_come_back, 0},
	{"memory/extra-list-in-a-circle", extra_list_in_a_circle, 0},
	{"memory/shared-region", shared_region, 0},
	{"memory/global-region", global_region, 0},
	{"memory/zero-copy", zero_copy_between_ports, 0},
	{"memory/duplicated-index", duplicated_index, 0},
	{"memory/another-ports-buffer", another_ports_buffer, 0},
	{NULL, NULL, 0},
};
