/* What is mapped, and what a fresh ring looks like. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b) {
	open_port(a, end("{1"), ABI_ALL_NIC, 0);
	open_port(b, end("}1"), ABI_ALL_NIC, 0);
}

static void interface_fields(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	CHECK_EQ(strcmp(port.nif->name, vale("a")), 0);
	CHECK_EQ(port.nif->version, ABI_VERSION);
	CHECK_EQ(port.nif->tx_rings, port.reg.tx_rings);
	CHECK_EQ(port.nif->rx_rings, port.reg.rx_rings);
	CHECK(port.nif->host_tx_rings >= 1 && port.nif->host_rx_rings >= 1);
	CHECK_EQ(port.nif->bufs_head, 0);
	CHECK_EQ(port.reg.offset % 8, 0);
	/* The host rings have entries, and this port has none of them. */
	for (unsigned i = 0; i < port.nif->host_tx_rings; i++) CHECK(!tx_ring(&port, port.nif->tx_rings + i));
	for (unsigned i = 0; i < port.nif->host_rx_rings; i++) CHECK(!rx_ring(&port, port.nif->rx_rings + i));
}

static void private_flag(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	/* Ports of a switch have regions of their own, and say so. */
	CHECK(a.reg.mem_id != b.reg.mem_id);
	CHECK(a.reg.mem_id != 1 && b.reg.mem_id != 1);
	CHECK_EQ(a.nif->flags & ABI_IF_PRIVATE, ABI_IF_PRIVATE);
}

static void fresh_ring(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&port), *rx = first_rx(&port);
	CHECK_EQ(tx->head, 0);
	CHECK_EQ(tx->cur, 0);
	CHECK_EQ(tx->tail, tx->num_slots - 1); /* one slot stays empty */
	CHECK_EQ(rx->head, 0);
	CHECK_EQ(rx->cur, 0);
	CHECK_EQ(rx->tail, 0);
	CHECK_EQ(tx->dir, 0);
	CHECK_EQ(rx->dir, 1);
	CHECK_EQ(tx->ringid, 0);
	CHECK_EQ(tx->flags, 0);
	CHECK_EQ(tx->offset_mask, 0);
	CHECK_EQ(tx->nr_buf_size, rx->nr_buf_size);
	struct abi_ring *rings[] = {tx, rx};
	for (int r = 0; r < 2; r++)
		for (uint32_t i = 0; i < rings[r]->num_slots; i++) {
			struct abi_slot *slot = &rings[r]->slot[i];
			CHECK_EQ(slot->len, rings[r]->nr_buf_size);
			CHECK_EQ(slot->flags, 0);
			CHECK_EQ(slot->ptr, 0);
			uint8_t *at = buffer(rings[r], slot->buf_idx);
			CHECK(at >= port.memory && at + rings[r]->nr_buf_size <= port.memory + port.size);
		}
}

static void buffers_are_apart(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	struct abi_ring *rings[] = {first_tx(&port), first_rx(&port)};
	static uint8_t seen[1 << 20];
	for (int r = 0; r < 2; r++)
		for (uint32_t i = 0; i < rings[r]->num_slots; i++) {
			uint32_t index = rings[r]->slot[i].buf_idx;
			CHECK(index >= 2 && index < sizeof seen);
			CHECK(!seen[index]++);
		}
}

static void semaphore_is_the_programs(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *rings[] = {first_tx(&a), first_rx(&b)};
	for (int r = 0; r < 2; r++) memset(rings[r]->sem, 0xa5, 128);
	for (uint32_t i = 0; i < 100; i++) send_frame(&a, 60, broadcast, host_mac(1), i), expect_frame(&b, 60, i);
	for (int r = 0; r < 2; r++)
		for (int i = 0; i < 128; i++) CHECK_EQ(rings[r]->sem[i], 0xa5);
}

static void reopened_ring_is_fresh(void) {
	struct port a, b;
	pair(&a, &b);
	for (uint32_t i = 0; i < 10; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
	close_port(&a);
	close_port(&b);
	pair(&a, &b);
	CHECK_EQ(first_tx(&a)->head, 0);
	CHECK_EQ(first_tx(&a)->tail, first_tx(&a)->num_slots - 1);
	CHECK_EQ(first_rx(&b)->tail, 0);
	expect_nothing(&b);
}

static void null_port(void) {
	/* For its memory alone: of which region, it has to say. */
	struct port port = {.fd = device()};
	const char *name = named("n%s%d", tag(), (int)getpid() % 10000);
	CHECK_EQ(try_register(&port, name, ABI_NULL, 0), EINVAL);
	CHECK_OK(close(port.fd));
	port.reg = (struct abi_register){.mode = ABI_NULL, .mem_id = 1};
	open_with(&port, name, NULL);
	CHECK(port.size > 0);
	CHECK_OK(txsync(&port));
	CHECK_OK(rxsync(&port));
	for (unsigned i = 0; i < port.nif->tx_rings; i++) CHECK(!tx_ring(&port, i));
	for (unsigned i = 0; i < port.nif->rx_rings; i++) CHECK(!rx_ring(&port, i));
}

const struct abi_case layout_cases[] = {
	{"layout/interface", interface_fields, 0},
	{"layout/private-regions", private_flag, 0},
	{"layout/fresh-ring", fresh_ring, 0},
	{"layout/buffers-apart", buffers_are_apart, 0},
	{"layout/semaphore", semaphore_is_the_programs, 0},
	{"layout/reopened", reopened_ring_is_fresh, 0},
	{"layout/null-port", null_port, 0},
	{NULL, NULL, 0},
};
