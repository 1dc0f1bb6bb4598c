/* Options of requests: how they are refused, and what each does. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

static int with_options(int fd, struct abi_register *reg, const char *name, void *options) {
	struct abi_header head;
	header(&head, ABI_REGISTER, name, reg);
	head.options = (uintptr_t)options;
	return ioctl(fd, ABI_CTRL, &head);
}

static void link_option(void *option, int type, void *next) {
	struct abi_option *head = option;
	head->type = (uint32_t)type;
	head->next = (uintptr_t)next;
	head->status = 0x77777777;
}

static void type_zero(void) {
	struct abi_option option = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&option, 0, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &option), EINVAL);
	CHECK_EQ(option.status, EINVAL);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

static void duplicate(void) {
	struct abi_opt_offsets first = {0}, second = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&first, ABI_OPT_OFFSETS, &second);
	link_option(&second, ABI_OPT_OFFSETS, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &first), EINVAL);
	CHECK_EQ(first.head.status, EINVAL);
	CHECK_EQ(second.head.status, EINVAL);
	CHECK_EQ(first.head.next, (uintptr_t)&second);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

static void unknown_type(void) {
	struct abi_option option = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&option, 99, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &option), EOPNOTSUPP);
	CHECK_EQ(option.status, EOPNOTSUPP);
	/* The registration did not happen. */
	struct port port = {.fd = fd};
	CHECK_ERRNO(txsync(&port), ENXIO);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

static void known_but_not_here(void) {
	/* An option that the request has no use for: it is told so in the option, and the request goes on. */
	struct abi_opt_csb option = {0};
	struct abi_port_info info = {0};
	struct abi_header head;
	header(&head, ABI_PORT_INFO, "", &info);
	link_option(&option, ABI_OPT_CSB, NULL);
	head.options = (uintptr_t)&option;
	CHECK_OK(ioctl(device(), ABI_CTRL, &head));
	CHECK_EQ(option.head.status, EOPNOTSUPP);
	/* Not so REGISTER. */
	struct abi_opt_loop_mode mode = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	link_option(&mode, ABI_OPT_LOOP_MODE, NULL);
	CHECK_ERRNO(with_options(device(), &reg, vale("a"), &mode), EOPNOTSUPP);
	CHECK_EQ(mode.head.status, EOPNOTSUPP);
}

static void looped_list(void) {
	struct abi_option first = {0}, second = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&first, 98, &second);
	link_option(&second, 99, &first);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &first), EMSGSIZE);
	link_option(&first, 98, &first);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &first), EMSGSIZE);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

static void too_long(void) {
	static struct { struct abi_option head; uint8_t bytes[8192]; } big;
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&big.head, ABI_OPT_EVENTFDS, NULL);
	big.head.size = sizeof big;
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &big), EMSGSIZE);
	big.head.size = UINT64_MAX;
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &big), EMSGSIZE);
	big.head.size = UINT64_MAX - 24;
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &big), EMSGSIZE);
}

static void statuses_on_errors(void) {
	/* The request fails for another reason: what is known of the options is told all the same. */
	struct abi_option unknown = {0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	link_option(&unknown, 99, NULL);
	CHECK(with_options(device(), &reg, "nobody0", &unknown) == -1);
	CHECK_EQ(unknown.status, EOPNOTSUPP);
}

static void offsets(void) {
	struct abi_opt_offsets option = {.max_offset = 128, .initial_offset = 64, .bits = 16};
	struct port port = {.reg = {.mode = ABI_ALL_NIC}};
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	open_with(&port, vale("a"), &option);
	CHECK_EQ(option.head.status, 0);
	CHECK(option.max_offset >= 128 && option.bits >= 16);
	struct abi_ring *ring = first_tx(&port);
	CHECK(ring->offset_mask != 0);
	CHECK_EQ(ring->offset_mask & 0xffff, 0xffff);
	for (uint32_t i = 0; i < ring->num_slots; i++) CHECK_EQ(ring->slot[i].ptr & ring->offset_mask, 64);
	CHECK_EQ(first_rx(&port)->slot[0].ptr & ring->offset_mask, 64);
}

static void offsets_carry_packets(void) {
	/* Two ends of a pipe, of which the packet begins at 64 in the sender's buffer. */
	struct abi_opt_offsets option = {.max_offset = 256, .initial_offset = 64, .bits = 0};
	struct port a = {.reg = {.mode = ABI_ALL_NIC}}, b;
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	open_with(&a, vale("a"), &option);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	CHECK_EQ(first_rx(&b)->offset_mask, 0);
	struct abi_ring *ring = first_tx(&a);
	struct abi_slot *slot = &ring->slot[ring->head];
	fill_frame(buffer(ring, slot->buf_idx) + 64, 200, broadcast, host_mac(1), 41);
	memset(buffer(ring, slot->buf_idx), 0xee, 64);
	slot->len = 200;
	ring->head = ring->cur = next_slot(ring, ring->head);
	CHECK_OK(txsync(&a));
	expect_frame(&b, 200, 41);
	/* And the other way: what comes lies at the receiver's offset. */
	send_frame(&b, 300, broadcast, host_mac(2), 42);
	struct abi_ring *in = first_rx(&a);
	for (double end = now() + 5; in->head == in->tail && now() < end; usleep(500)) CHECK_OK(rxsync(&a));
	CHECK(in->head != in->tail);
	slot = &in->slot[in->head];
	CHECK_EQ(slot->len, 300);
	uint64_t at = slot->ptr & in->offset_mask;
	CHECK_EQ(at, 64);
	const char *problem = check_frame(buffer(in, slot->buf_idx) + at, 300, 42);
	if (problem) FAIL("the frame is %s", problem);
}

static void offsets_refused(void) {
	struct abi_opt_offsets option = {.max_offset = 64, .initial_offset = 128, .bits = 16};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &option), EINVAL);
	CHECK_EQ(option.head.status, EINVAL);
	option = (struct abi_opt_offsets){.max_offset = 1 << 30, .bits = 16};
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &option), EINVAL);
	option = (struct abi_opt_offsets){.max_offset = 64, .bits = 65};
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	CHECK_ERRNO(with_options(fd, &reg, vale("a"), &option), EINVAL);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

static void offset_too_large_in_a_slot(void) {
	/* More than was declared: cut down, or the ring is reset; never read past the buffer. */
	struct abi_opt_offsets option = {.max_offset = 64, .initial_offset = 0, .bits = 32};
	struct port a = {.reg = {.mode = ABI_ALL_NIC}}, b;
	link_option(&option, ABI_OPT_OFFSETS, NULL);
	open_with(&a, vale("a"), &option);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	struct abi_ring *ring = first_tx(&a);
	put_frame(ring, 100, broadcast, host_mac(1), 1);
	ring->slot[0].ptr = 0x7fffffff;
	CHECK_OK(txsync(&a));
	ring->slot[1].ptr = 0;
	if (ring->head != ring->tail) {
		fill_frame(buffer(ring, ring->slot[ring->head].buf_idx), 100, broadcast, host_mac(1), 2);
		ring->slot[ring->head].len = 100;
		ring->slot[ring->head].ptr = 0;
		ring->head = ring->cur = next_slot(ring, ring->head);
		CHECK_OK(txsync(&a));
	}
	uint32_t seed = 0;
	CHECK(take_frame(&b, 5, &seed) != 0);
}

static void external_memory(void) {
	size_t size = 16 << 20;
	int file = memfd_create("netmap-abi", MFD_CLOEXEC);
	CHECK_OK(ftruncate(file, (off_t)size));
	uint8_t *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	CHECK(memory != MAP_FAILED);
	struct abi_opt_extmem option = {.usrptr = (uintptr_t)memory};
	option.pools.memsize = size;
	option.pools.interfaces.objects = 32, option.pools.interfaces.size = 1024;
	option.pools.rings.objects = 32, option.pools.rings.size = 36864;
	option.pools.buffers.objects = 4096, option.pools.buffers.size = 2048;
	link_option(&option, ABI_OPT_EXTMEM, NULL);
	struct port a = {.reg = {.mode = ABI_ALL_NIC, .tx_slots = 256, .rx_slots = 256}}, b;
	open_with(&a, vale("a"), &option);
	CHECK_EQ(option.head.status, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	CHECK(a.reg.mem_id != b.reg.mem_id);
	CHECK(a.reg.memsize <= size);
	/* What the program sees at its own pointer is the region. */
	struct abi_if *nif = (struct abi_if *)(memory + a.reg.offset);
	CHECK(memcmp(nif, a.nif, sizeof *nif) == 0);
	send_frame(&a, 500, broadcast, host_mac(1), 9);
	expect_frame(&b, 500, 9);
	send_frame(&b, 600, broadcast, host_mac(2), 10);
	expect_frame(&a, 600, 10);
}

static void external_memory_refused(void) {
	struct abi_opt_extmem option = {.usrptr = 0};
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	int fd = device();
	option.pools.memsize = 1 << 20;
	link_option(&option, ABI_OPT_EXTMEM, NULL);
	CHECK(with_options(fd, &reg, vale("a"), &option) == -1);
	CHECK(option.head.status != 0 && option.head.status != 0x77777777);
	struct port port = {.fd = fd};
	CHECK_ERRNO(txsync(&port), ENXIO);
	CHECK_OK(with_options(fd, &reg, vale("a"), NULL));
}

const struct abi_case option_cases[] = {
	{"option/type-zero", type_zero, 0},
	{"option/duplicate", duplicate, 0},
	{"option/unknown", unknown_type, 0},
	{"option/not-for-this-request", known_but_not_here, 0},
	{"option/looped-list", looped_list, 0},
	{"option/too-long", too_long, 0},
	{"option/status-on-error", statuses_on_errors, 0},
	{"option/offsets", offsets, 0},
	{"option/offsets-carry-packets", offsets_carry_packets, 0},
	{"option/offsets-refused", offsets_refused, 0},
	{"option/offset-too-large", offset_too_large_in_a_slot, 0},
	{"option/external-memory", external_memory, 0},
	{"option/external-memory-refused", external_memory_refused, 0},
	{NULL, NULL, 0},
};
