/* What a sync does, and what happens to who breaks its rules. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *pipe_end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void pair(struct port *a, struct port *b) {
	open_port(a, pipe_end("{1"), ABI_ALL_NIC, 0);
	open_port(b, pipe_end("}1"), ABI_ALL_NIC, 0);
}

/* MARK: syncs */

static void order_of_indices(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	for (uint32_t i = 0; i < 10; i++) put_frame(tx, 60, broadcast, host_mac(1), i);
	CHECK_EQ(rx->tail, 0); /* nothing happens before the sync */
	CHECK_OK(txsync(&a));
	CHECK_OK(rxsync(&b));
	CHECK_EQ(rx->head, 0);
	CHECK_EQ(ready(rx), 10);
	/* Taking some gives that many back to the other side. */
	rx->head = rx->cur = 4;
	CHECK_OK(rxsync(&b));
	CHECK_EQ(ready(rx), 6);
	CHECK_OK(txsync(&a));
	CHECK_EQ(tx->head, 10);
	/* Slots come back at the latest when the other side is done with them. */
	CHECK(ready(tx) >= tx->num_slots - 1 - 6);
}

static void cur_ahead_of_head(void) {
	/* cur says from where to wake; head what is given back. */
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	for (uint32_t i = 0; i < 8; i++) put_frame(tx, 60, broadcast, host_mac(1), i);
	CHECK_OK(txsync(&a));
	CHECK_OK(rxsync(&b));
	rx->cur = rx->tail; /* has seen all, gives back none */
	CHECK_OK(rxsync(&b));
	CHECK_EQ(rx->head, 0);
	CHECK_EQ(rx->cur, rx->tail);
	CHECK_EQ(poll_one(b.fd, POLLIN, 0), 0); /* nothing new beyond cur */
	CHECK_OK(txsync(&a));
	CHECK_EQ(rx->head, 0);
	for (uint32_t i = 0; i < 8; i++) CHECK_EQ(frame_seed(buffer(rx, rx->slot[i].buf_idx)), i); /* all eight are still there */
	put_frame(tx, 60, broadcast, host_mac(1), 8);
	CHECK_OK(txsync(&a));
	CHECK_EQ(poll_one(b.fd, POLLIN, 1000), POLLIN);
	rx->head = rx->cur = rx->tail;
	CHECK_OK(rxsync(&b));
	CHECK_OK(txsync(&a));
	CHECK_EQ(ready(tx), tx->num_slots - 1);
}

static void full_ring(void) {
	/* n - 1 slots at most are anybody's; the rest waits for room. */
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	uint32_t sent = 0;
	CHECK_OK(rxsync(&b)); /* A reader is there. */
	for (uint32_t before = 1; sent != before;) {
		before = sent;
		while (tx->head != tx->tail) put_frame(tx, 60, broadcast, host_mac(1), sent++);
		CHECK_OK(txsync(&a));
		CHECK(sent <= 4 * tx->num_slots);
	}
	CHECK_OK(rxsync(&b));
	CHECK_EQ(ready(rx), rx->num_slots - 1); /* one slot stays empty */
	CHECK_EQ(poll_one(a.fd, POLLOUT, 0), 0);
	/* All that was taken comes out, in order, whole. */
	for (uint32_t i = 0; i < sent; i++) {
		expect_frame(&b, 60, i);
		if (i % 64 == 0) CHECK_OK(txsync(&a));
	}
	CHECK_EQ(poll_one(a.fd, POLLOUT, 1000), POLLOUT);
}

static void contents_stay(void) {
	/* A slot's buffer and what is in it stay until the program gets the slot back. */
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	uint32_t index = tx->slot[0].buf_idx;
	for (uint32_t i = 0; i < 5; i++) put_frame(tx, 100, broadcast, host_mac(1), i);
	CHECK_OK(txsync(&a));
	for (uint32_t i = 0; i < 5; i++) {
		const char *problem = check_frame(buffer(tx, tx->slot[i].buf_idx), 100, i);
		if (problem) FAIL("transmitted slot %u is %s", i, problem);
	}
	CHECK_EQ(tx->slot[0].buf_idx, index);
	/* And in a receive ring: a slot that was not given back keeps its packet while others come. */
	struct abi_ring *rx = first_rx(&b);
	CHECK_OK(rxsync(&b));
	for (uint32_t i = 5; i < 50; i++) {
		put_frame(tx, 100, broadcast, host_mac(1), i);
		CHECK_OK(txsync(&a));
		CHECK_OK(rxsync(&b));
	}
	for (uint32_t i = 0; i < 50; i++) {
		const char *problem = check_frame(buffer(rx, rx->slot[i].buf_idx), 100, i);
		if (problem) FAIL("received slot %u is %s", i, problem);
	}
}

static void tail_is_restored(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	uint32_t tail = tx->tail;
	tx->tail = 3;
	CHECK_OK(txsync(&a));
	CHECK_EQ(tx->tail, tail);
	put_frame(tx, 60, broadcast, host_mac(1), 1);
	CHECK_OK(txsync(&a));
	expect_frame(&b, 60, 1);
	struct abi_ring *rx = first_rx(&b);
	tail = rx->tail;
	rx->tail = rx->num_slots + 99;
	CHECK_OK(rxsync(&b));
	CHECK_EQ(rx->tail, tail);
}

/* MARK: violations: that ring is reset, the ioctl still says 0, poll says POLLERR */

/* Head and cur of a transmit ring after a reset: back to what the other side knew. */
static void transmit_violation(uint32_t head, uint32_t cur) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	for (uint32_t i = 0; i < 5; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
	uint32_t tail = tx->tail;
	CHECK_EQ(tx->head, 5);
	tx->head = head;
	tx->cur = cur;
	CHECK_OK(txsync(&a));
	CHECK_EQ(tx->head, 5);
	CHECK_EQ(tx->cur, 5);
	CHECK_EQ(tx->tail, tail);
	tx->head = head;
	tx->cur = cur;
	CHECK_EQ(poll_one(a.fd, POLLOUT, 100) & POLLERR, POLLERR);
	/* The ring works again, and nothing was sent twice or lost. */
	send_frame(&a, 60, broadcast, host_mac(1), 5);
	for (uint32_t i = 0; i < 6; i++) expect_frame(&b, 60, i);
	expect_nothing(&b);
}

static void head_beyond_ring(void) { transmit_violation(1u << 20, 1u << 20); }
static void head_at_slot_count(void) { transmit_violation(1024 * 1024 - 1, 5); }
static void head_backwards(void) { transmit_violation(2, 2); }
static void head_all_ones(void) { transmit_violation(0xffffffff, 0xffffffff); }
static void cur_behind_head(void) { transmit_violation(10, 7); }
static void cur_beyond_ring(void) { transmit_violation(6, 1u << 31); }

static void head_beyond_tail(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	while (tx->head != tx->tail) put_frame(tx, 60, broadcast, host_mac(1), tx->head);
	CHECK_OK(txsync(&a));
	uint32_t head = tx->head, tail = tx->tail;
	tx->head = tx->cur = next_slot(tx, tail);
	CHECK_OK(txsync(&a));
	CHECK_EQ(tx->head, head);
	CHECK_EQ(tx->cur, head);
	CHECK_EQ(tx->tail, tail);
}

static void receive_violation(uint32_t head, uint32_t cur) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *rx = first_rx(&b);
	for (uint32_t i = 0; i < 8; i++) send_frame(&a, 60, broadcast, host_mac(1), i);
	CHECK_OK(rxsync(&b));
	rx->head = rx->cur = 4;
	CHECK_OK(rxsync(&b));
	uint32_t tail = rx->tail;
	rx->head = head;
	rx->cur = cur;
	CHECK_OK(rxsync(&b));
	CHECK_EQ(rx->head, 4);
	CHECK_EQ(rx->cur, 4);
	CHECK_EQ(rx->tail, tail);
	rx->head = head;
	rx->cur = cur;
	CHECK_EQ(poll_one(b.fd, POLLIN, 100) & POLLERR, POLLERR);
	for (uint32_t i = 4; i < 8; i++) expect_frame(&b, 60, i);
	send_frame(&a, 60, broadcast, host_mac(1), 8);
	expect_frame(&b, 60, 8);
}

static void receive_head_beyond_tail(void) { receive_violation(20, 20); }
static void receive_head_backwards(void) { receive_violation(1, 1); }
static void receive_head_beyond_ring(void) { receive_violation(1u << 20, 1u << 20); }
static void receive_cur_behind_head(void) { receive_violation(7, 5); }
static void receive_cur_beyond_tail(void) { receive_violation(5, 9); }

/* A slot with a wrong index loses index and length; one with a wrong length loses the length alone. */
static void slots_of_a_reset_ring(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *tx = first_tx(&a);
	uint32_t good = tx->slot[3].buf_idx, kept = tx->slot[7].buf_idx;
	tx->slot[0].buf_idx = 0;
	tx->slot[1].buf_idx = 1;
	tx->slot[2].buf_idx = 0xffffffff;
	tx->slot[3].len = (uint16_t)(tx->nr_buf_size + 1);
	tx->slot[0].len = tx->slot[1].len = tx->slot[2].len = 60;
	tx->slot[7].len = 64;
	tx->head = tx->cur = tx->num_slots + 5;
	CHECK_OK(txsync(&a));
	CHECK_EQ(tx->head, 0);
	CHECK_EQ(tx->cur, 0);
	for (int i = 0; i < 3; i++) {
		CHECK(tx->slot[i].buf_idx < 2 || tx->slot[i].buf_idx < 1 << 20);
		CHECK(tx->slot[i].buf_idx != 0xffffffff);
		CHECK_EQ(tx->slot[i].len, 0);
	}
	CHECK_EQ(tx->slot[3].buf_idx, good);
	CHECK_EQ(tx->slot[3].len, 0);
	CHECK_EQ(tx->slot[7].buf_idx, kept);
	CHECK_EQ(tx->slot[7].len, 64);
}

/* A wrong index in a slot that is sent: never another's memory, and the next packets go on. */
static void bad_index_in_a_sent_slot(void) {
	struct port a, b;
	static const uint32_t bad[] = {0, 1, 0xffffffff, 0x7fffffff, 1u << 24};
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		uint32_t at = tx->head, index = tx->slot[at].buf_idx;
		tx->slot[at].buf_idx = bad[k];
		tx->slot[at].len = 60;
		tx->slot[at].flags = ABI_BUF_CHANGED;
		tx->head = tx->cur = next_slot(tx, at);
		CHECK_OK(txsync(&a));
		tx->slot[at].buf_idx = index;
		tx->slot[at].flags = ABI_BUF_CHANGED;
		for (double end = now() + 2; now() < end && tx->head == tx->tail;) CHECK_OK(txsync(&a));
		send_frame(&a, 60, broadcast, host_mac(1), 100 + (uint32_t)k);
		uint32_t seed = 0;
		for (double end = now() + 5; seed != 100 + k;) {
			if (now() > end) FAIL("after index %u no packet passes", bad[k]);
			take_frame(&b, 0.05, &seed);
		}
	}
}

static void bad_length_in_a_sent_slot(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a);
	static const uint16_t bad[] = {0xffff, 0, 1, 13};
	for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
		uint32_t at = tx->head;
		put_frame(tx, 60, broadcast, host_mac(1), 7);
		tx->slot[at].len = bad[k];
		CHECK_OK(txsync(&a));
		CHECK_OK(rxsync(&b));
		struct abi_ring *rx = first_rx(&b);
		for (uint32_t i = rx->head; i != rx->tail; i = next_slot(rx, i)) CHECK(rx->slot[i].len <= rx->nr_buf_size);
		rx->head = rx->cur = rx->tail;
		send_frame(&a, 60, broadcast, host_mac(1), 200 + (uint32_t)k);
		uint32_t seed = 0;
		for (double end = now() + 5; seed != 200 + k;) {
			if (now() > end) FAIL("after length %u no packet passes", bad[k]);
			take_frame(&b, 0.05, &seed);
		}
	}
}

static void a_reset_leaves_other_rings_alone(void) {
	struct port a, b;
	memset(&a, 0, sizeof a);
	a.reg = (struct abi_register){.mode = ABI_ALL_NIC, .tx_rings = 2, .rx_rings = 2};
	open_with(&a, vale("a"), NULL);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *first = tx_ring(&a, 0), *second = tx_ring(&a, 1);
	CHECK(first && second);
	put_frame(second, 60, broadcast, host_mac(1), 31);
	first->head = first->cur = 1u << 30;
	CHECK_OK(txsync(&a));
	CHECK_EQ(first->head, 0);
	CHECK_EQ(second->head, 1);
	expect_frame(&b, 60, 31);
}

static void timestamp(void) {
	struct port a, b;
	pair(&a, &b);
	struct abi_ring *rx = first_rx(&b);
	rx->flags |= ABI_R_TIMESTAMP;
	struct timeval before, after;
	gettimeofday(&before, NULL);
	send_frame(&a, 60, broadcast, host_mac(1), 1);
	CHECK_OK(rxsync(&b));
	gettimeofday(&after, NULL);
	long long stamp = rx->ts.tv_sec * 1000000ll + rx->ts.tv_usec;
	CHECK(stamp >= before.tv_sec * 1000000ll + before.tv_usec - 1000);
	CHECK(stamp <= after.tv_sec * 1000000ll + after.tv_usec + 1000);
}

const struct abi_case sync_cases[] = {
	{"sync/order", order_of_indices, 0},
	{"sync/cur-ahead-of-head", cur_ahead_of_head, 0},
	{"sync/full", full_ring, 0},
	{"sync/contents-stay", contents_stay, 0},
	{"sync/tail-restored", tail_is_restored, 0},
	{"sync/head-beyond-ring", head_beyond_ring, 0},
	{"sync/head-far", head_at_slot_count, 0},
	{"sync/head-backwards", head_backwards, 0},
	{"sync/head-all-ones", head_all_ones, 0},
	{"sync/head-beyond-tail", head_beyond_tail, 0},
	{"sync/cur-behind-head", cur_behind_head, 0},
	{"sync/cur-beyond-ring", cur_beyond_ring, 0},
	{"sync/receive-head-beyond-tail", receive_head_beyond_tail, 0},
	{"sync/receive-head-backwards", receive_head_backwards, 0},
	{"sync/receive-head-beyond-ring", receive_head_beyond_ring, 0},
	{"sync/receive-cur-behind-head", receive_cur_behind_head, 0},
	{"sync/receive-cur-beyond-tail", receive_cur_beyond_tail, 0},
	{"sync/slots-of-a-reset-ring", slots_of_a_reset_ring, 0},
	{"sync/bad-index", bad_index_in_a_sent_slot, 0},
	{"sync/bad-length", bad_length_in_a_sent_slot, 0},
	{"sync/other-rings", a_reset_leaves_other_rings_alone, 0},
	{"sync/timestamp", timestamp, 0},
	{NULL, NULL, 0},
};
