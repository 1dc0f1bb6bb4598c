/* What requests tell of ports, and what they change. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

static void port_info_of_nothing(void) {
	int fd = device();
	struct abi_port_info info = {0};
	CHECK_OK(request(fd, ABI_PORT_INFO, "", &info));
	CHECK(info.memsize > 0);
	CHECK_EQ(info.mem_id, 1);
	CHECK_EQ(info.tx_rings, 0);
}

static void port_info(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	int fd = device();
	struct abi_port_info info = {0};
	CHECK_OK(request(fd, ABI_PORT_INFO, vale("a"), &info));
	CHECK_EQ(info.tx_rings, port.nif->tx_rings);
	CHECK_EQ(info.rx_rings, port.nif->rx_rings);
	CHECK_EQ(info.tx_slots, first_tx(&port)->num_slots);
	CHECK_EQ(info.rx_slots, first_rx(&port)->num_slots);
	CHECK_EQ(info.mem_id, port.reg.mem_id);
	CHECK_EQ(info.memsize, port.reg.memsize);
	/* It registered nothing. */
	struct port other = {.fd = fd};
	CHECK_ERRNO(txsync(&other), ENXIO);
}

static void pools_info(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	struct abi_pools_info pools = {.mem_id = port.reg.mem_id};
	CHECK_OK(request(device(), ABI_POOLS_INFO, vale("a"), &pools));
	struct abi_ring *ring = first_tx(&port);
	CHECK_EQ(pools.memsize, port.reg.memsize);
	CHECK_EQ(pools.mem_id, port.reg.mem_id);
	CHECK_EQ(pools.buffers.size, ring->nr_buf_size);
	CHECK_EQ(buffer(ring, 0) - port.memory, pools.buffers.offset);
	CHECK(pools.interfaces.offset <= port.reg.offset && port.reg.offset < pools.rings.offset);
	size_t at = (size_t)((uint8_t *)ring - port.memory);
	CHECK(pools.rings.offset <= at && at < pools.buffers.offset);
	CHECK(pools.rings.offset + (uint64_t)pools.rings.objects * pools.rings.size <= pools.buffers.offset);
	CHECK(pools.buffers.offset + (uint64_t)pools.buffers.objects * pools.buffers.size <= pools.memsize);
	for (uint32_t i = 0; i < ring->num_slots; i++)
		CHECK(ring->slot[i].buf_idx >= 2 && ring->slot[i].buf_idx < pools.buffers.objects);
}

static void header_lengths(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	int fd = device();
	struct abi_port_hdr length = {.length = 77};
	CHECK_OK(request(fd, ABI_HDR_GET, vale("a"), &length));
	CHECK_EQ(length.length, 0);
	static const uint32_t good[] = {10, 12, 0}, bad[] = {1, 9, 11, 13, 14, 0xffffffff};
	for (size_t i = 0; i < 3; i++) {
		length.length = good[i];
		CHECK_OK(request(fd, ABI_HDR_SET, vale("a"), &length));
		length.length = 77;
		CHECK_OK(request(fd, ABI_HDR_GET, vale("a"), &length));
		CHECK_EQ(length.length, good[i]);
	}
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		length.length = bad[i];
		CHECK_ERRNO(request(fd, ABI_HDR_SET, vale("a"), &length), EINVAL);
	}
	length.length = 12;
	CHECK_ERRNO(request(fd, ABI_HDR_SET, "nobody0", &length), ENXIO);
}

static void detach_what_is_not_there(void) {
	int fd = device();
	struct abi_vale_detach detach = {0};
	CHECK(request(fd, ABI_VALE_DETACH, vale("nobody0"), &detach) == -1);
	CHECK(errno == ENXIO || errno == ENOENT || errno == EINVAL || errno == ENODEV);
	struct abi_vale_attach attach = {.reg = {.mode = ABI_ALL_NIC}};
	CHECK_ERRNO(request(fd, ABI_VALE_ATTACH, vale("nobody0"), &attach), ENXIO);
	CHECK(request(fd, ABI_DELIF, "nobody0", NULL) == -1);
	struct abi_polling polling = {.mode = 1, .cpus = 1};
	CHECK(request(fd, ABI_POLLING_ON, vale("nobody0"), &polling) == -1);
	CHECK(request(fd, ABI_POLLING_OFF, vale("nobody0"), &polling) == -1);
}

static void too_much_is_asked_for(void) {
	struct port port = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ALL_NIC, .tx_slots = 0xffffffff, .rx_slots = 0xffffffff};
	int result = request(port.fd, ABI_REGISTER, vale("a"), &reg);
	/* Cut down, as netmap does, or refused: never taken at its word. */
	if (result == 0) CHECK(reg.tx_slots <= 1 << 20 && reg.rx_slots <= 1 << 20);
	else CHECK(errno == ENOMEM || errno == EINVAL);
}

static void ring_sizes_of_a_program(void) {
	struct port port = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ALL_NIC, .tx_slots = 128, .rx_slots = 64, .tx_rings = 2, .rx_rings = 2};
	CHECK_OK(request(port.fd, ABI_REGISTER, vale("a"), &reg));
	port.reg = reg;
	map_port(&port);
	CHECK_EQ(reg.tx_slots, 128);
	CHECK_EQ(reg.rx_slots, 64);
	CHECK_EQ(reg.tx_rings, 2);
	CHECK_EQ(reg.rx_rings, 2);
	CHECK_EQ(tx_ring(&port, 1)->num_slots, 128);
	CHECK_EQ(rx_ring(&port, 1)->num_slots, 64);
	CHECK_EQ(tx_ring(&port, 1)->ringid, 1);
}

static void one_ring_of_two(void) {
	struct port all, one;
	memset(&all, 0, sizeof all);
	all.reg = (struct abi_register){.mode = ABI_ALL_NIC, .tx_rings = 2, .rx_rings = 2};
	open_with(&all, vale("a"), NULL);
	memset(&one, 0, sizeof one);
	one.reg = (struct abi_register){.mode = ABI_ONE_NIC, .ringid = 1};
	open_with(&one, vale("a"), NULL);
	CHECK_EQ(one.nif->tx_rings, 2);
	CHECK(!tx_ring(&one, 0) && tx_ring(&one, 1) && !rx_ring(&one, 0) && rx_ring(&one, 1));
	CHECK_EQ(tx_ring(&one, 1)->ringid, 1);
	struct port other = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ONE_NIC, .ringid = 2};
	CHECK_ERRNO(request(other.fd, ABI_REGISTER, vale("a"), &reg), EINVAL);
}

static void list_names_ports(void) {
	struct port a, b;
	open_port(&a, vale("a"), ABI_ALL_NIC, 0);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	int fd = device();
	/* By name: where it is. */
	struct abi_vale_list list = {0};
	CHECK_OK(request(fd, ABI_VALE_LIST, vale("a"), &list));
	struct abi_vale_list other = {0};
	CHECK_OK(request(fd, ABI_VALE_LIST, vale("b"), &other));
	CHECK_EQ(list.bridge, other.bridge);
	CHECK(list.port != other.port);
	/* All of them, one after the other: both names turn up. */
	int seen = 0;
	struct abi_vale_list at = {0};
	for (int i = 0; i < 4096; i++) {
		struct abi_header head;
		header(&head, ABI_VALE_LIST, "", &at);
		if (ioctl(fd, ABI_CTRL, &head) != 0) break;
		if (!strcmp(head.name, vale("a"))) seen |= 1;
		if (!strcmp(head.name, vale("b"))) seen |= 2;
		at.port++;
	}
	CHECK_EQ(seen, 3);
	/* A port that is not there: refused, or answered with an index that no port has. */
	if (request(fd, ABI_VALE_LIST, vale("c"), &list) == 0) CHECK(list.port >= 254);
	else CHECK_EQ(errno, ENOENT);
}

const struct abi_case port_cases[] = {
	{"request/port-info-of-nothing", port_info_of_nothing, 0},
	{"request/port-info", port_info, 0},
	{"request/pools-info", pools_info, 0},
	{"request/header-lengths", header_lengths, 0},
	{"request/not-attached", detach_what_is_not_there, 0},
	{"request/too-much", too_much_is_asked_for, 0},
	{"request/ring-sizes", ring_sizes_of_a_program, 0},
	{"request/one-ring-of-two", one_ring_of_two, 0},
	{"request/vale-list", list_names_ports, 0},
	{NULL, NULL, 0},
};
