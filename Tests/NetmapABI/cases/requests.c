/* Requests by NIOCCTRL, and what is refused. */
#include "../abi.h"

/* A port that nobody else has: ephemeral, on a switch of this case's own. */
static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }
static const char *pipe_end(const char *part) { return named("p%s%d%s", tag(), (int)getpid() % 10000, part); }

static void header_versions(void) {
	int fd = device();
	for (int version = 0; version < 40; version++) {
		struct abi_port_info info = {0};
		struct abi_header head;
		header(&head, ABI_PORT_INFO, "", &info);
		head.version = (uint16_t)version;
		if (version == 14 || version == 15) CHECK_OK(ioctl(fd, ABI_CTRL, &head));
		else CHECK_ERRNO(ioctl(fd, ABI_CTRL, &head), EINVAL);
	}
}

static void header_reserved(void) {
	int fd = device();
	struct abi_port_info info = {0};
	struct abi_header head;
	header(&head, ABI_PORT_INFO, "", &info);
	head.reserved = 1;
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, &head), EINVAL);
	head.reserved = 0;
	CHECK_OK(ioctl(fd, ABI_CTRL, &head));
}

static void header_types(void) {
	int fd = device();
	uint8_t body[64] = {0};
	CHECK_ERRNO(request(fd, 0, "x", body), EINVAL);
	CHECK_ERRNO(request(fd, 16, "x", body), EINVAL);
	CHECK_ERRNO(request(fd, 0xffff, "x", body), EINVAL);
}

static void header_survives(void) {
	/* What the program wrote there is what it reads afterwards. */
	int fd = device();
	struct abi_port_info info = {0};
	struct abi_header head, before;
	header(&head, ABI_PORT_INFO, "", &info);
	before = head;
	CHECK_OK(ioctl(fd, ABI_CTRL, &head));
	CHECK(memcmp(&head, &before, sizeof head) == 0);
	info.mem_id = 60001;
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, &head), EINVAL);
	CHECK(memcmp(&head, &before, sizeof head) == 0);
}

static void body_missing(void) {
	int fd = device();
	static const int with[] = {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13};
	for (size_t i = 0; i < sizeof with / sizeof *with; i++) CHECK_ERRNO(request(fd, with[i], "nobody0", NULL), EINVAL);
}

static void body_unexpected(void) {
	int fd = device();
	uint8_t body[64] = {0};
	CHECK_ERRNO(request(fd, ABI_DELIF, "nobody0", body), EINVAL);
	CHECK_ERRNO(request(fd, ABI_LOOP_STOP, "", body), EINVAL);
	CHECK_ERRNO(request(fd, ABI_CSB_ENABLE, "", body), EINVAL);
}

static void bad_pointers(void) {
	int fd = device();
	struct abi_header head;
	struct abi_port_info info = {0};
	uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(page != MAP_FAILED);
	CHECK_OK(mprotect(page + 4096, 4096, PROT_NONE));
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, NULL), EFAULT);
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, page + 4096), EFAULT);
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, page + 4096 - 40), EFAULT);
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, page + 4096 - 16), EFAULT);
	CHECK_ERRNO(ioctl(fd, ABI_GINFO, NULL), EFAULT);
	CHECK_ERRNO(request(fd, ABI_PORT_INFO, "", page + 4096), EFAULT);
	CHECK_ERRNO(request(fd, ABI_PORT_INFO, "", page + 4096 - 8), EFAULT);
	header(&head, ABI_PORT_INFO, "", &info);
	head.options = (uintptr_t)(page + 4096);
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, &head), EFAULT);
	/* An option whose body ends outside. */
	struct abi_option *option = (struct abi_option *)(page + 4096 - sizeof *option);
	memset(option, 0, sizeof *option);
	option->type = ABI_OPT_CSB;
	head.options = (uintptr_t)option;
	CHECK_ERRNO(ioctl(fd, ABI_CTRL, &head), EFAULT);
	head.options = 0;
	CHECK_OK(ioctl(fd, ABI_CTRL, &head));
}

static void unknown_ioctl(void) {
	int fd = device();
	int word = 0;
	CHECK(ioctl(fd, 0xc0046998u, &word) == -1);
	CHECK(ioctl(fd, 0x5401u, &word) == -1); /* TCGETS: no terminal */
}

static void name_not_ended(void) {
	int fd = device();
	struct abi_register reg = {.mode = ABI_ALL_NIC};
	struct abi_header head;
	header(&head, ABI_REGISTER, "", &reg);
	memset(head.name, 'x', sizeof head.name);
	CHECK(ioctl(fd, ABI_CTRL, &head) == -1);
	CHECK(errno == EINVAL || errno == ENXIO);
}

static void missing_interface(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, "nobody0", ABI_ALL_NIC, 0), ENXIO);
	CHECK_EQ(try_register(&port, "nobody0", ABI_SW, 0), ENXIO);
	struct abi_port_info info = {0};
	CHECK_ERRNO(request(port.fd, ABI_PORT_INFO, "nobody0", &info), ENXIO);
	struct abi_pools_info pools = {0};
	CHECK_ERRNO(request(port.fd, ABI_POOLS_INFO, "nobody0", &pools), ENXIO);
}

static void register_twice(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, 0), 0);
	struct port again = {.fd = port.fd};
	CHECK_EQ(try_register(&again, vale("b"), ABI_ALL_NIC, 0), EBUSY);
	CHECK_EQ(try_register(&again, vale("a"), ABI_ALL_NIC, 0), EBUSY);
	/* The first registration is as good as before. */
	map_port(&port);
	CHECK_OK(txsync(&port));
}

static void failed_register_leaves_it_usable(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, "nobody0", ABI_ALL_NIC, 0), ENXIO);
	CHECK_EQ(try_register(&port, vale("a"), ABI_SW, 0), EINVAL);
	CHECK_ERRNO(txsync(&port), ENXIO);
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, 0), 0);
	map_port(&port);
	CHECK_OK(txsync(&port));
}

static void close_unregisters(void) {
	struct port port;
	for (int i = 0; i < 5; i++) {
		open_port(&port, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE);
		close_port(&port);
	}
}

static void sync_before_register(void) {
	struct port port = {.fd = device()};
	CHECK_ERRNO(txsync(&port), ENXIO);
	CHECK_ERRNO(rxsync(&port), ENXIO);
}

static void mmap_before_register(void) {
	int fd = device();
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	CHECK_EQ(errno, EINVAL);
}

static void mmap_bounds(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	int rw = PROT_READ | PROT_WRITE;
	CHECK(mmap(NULL, port.size + 4096, rw, MAP_SHARED, port.fd, 0) == MAP_FAILED);
	CHECK_EQ(errno, EINVAL);
	CHECK(mmap(NULL, 4096, rw, MAP_SHARED, port.fd, (off_t)((port.size + 4095) & ~4095ull)) == MAP_FAILED);
	CHECK_EQ(errno, EINVAL);
	/* A part of it, read-only, and from an offset: the same memory. */
	uint8_t *part = mmap(NULL, 4096, PROT_READ, MAP_SHARED, port.fd, 0);
	CHECK(part != MAP_FAILED);
	CHECK(memcmp(part, port.memory, 4096) == 0);
}

static void mmap_offset(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	/* Hugepages have their own idea of offsets: 2 MiB suits both. */
	size_t at = 2 << 20;
	if (port.size < 2 * at) skip("the region is small");
	uint8_t *part = mmap(NULL, at, PROT_READ | PROT_WRITE, MAP_SHARED, port.fd, (off_t)at);
	CHECK(part != MAP_FAILED);
	/* Nobody's ring starts at the last word before the end of the second part. */
	volatile uint8_t *here = part + 64, *there = port.memory + at + 64;
	uint8_t before = *there;
	CHECK_EQ(*here, before);
}

static void mmap_executable(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_SHARED, port.fd, 0) == MAP_FAILED);
	CHECK(errno == EINVAL || errno == EPERM || errno == EACCES);
}

static void poll_before_register(void) {
	int fd = device();
	CHECK_EQ(poll_one(fd, POLLIN, 0) & POLLERR, POLLERR);
	CHECK_EQ(poll_one(fd, POLLOUT, 1000) & POLLERR, POLLERR);
	CHECK_EQ(poll_one(fd, 0, 0) & POLLERR, POLLERR);
}

static void unknown_memory(void) {
	struct port port = {.fd = device()};
	struct abi_register reg = {.mode = ABI_ALL_NIC, .mem_id = 60001};
	CHECK_ERRNO(request(port.fd, ABI_REGISTER, vale("a"), &reg), EINVAL);
	struct abi_port_info info = {.mem_id = 60001};
	CHECK_ERRNO(request(port.fd, ABI_PORT_INFO, "", &info), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, 0), 0);
}

static void modes_refused(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, vale("a"), ABI_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_NIC_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_ONE_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_PIPE_MASTER, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_PIPE_SLAVE, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), 9, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), -1, 0), EINVAL);
	CHECK_EQ(try_register(&port, pipe_end("{1"), ABI_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, pipe_end("{1"), ABI_NIC_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, pipe_end("{1"), ABI_ONE_SW, 0), EINVAL);
	CHECK_EQ(try_register(&port, pipe_end("}1"), ABI_PIPE_SLAVE, 0), EINVAL);
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, 0), 0);
}

static void unknown_flags_are_ignored(void) {
	struct port port = {.fd = device()};
	CHECK_EQ(try_register(&port, vale("a"), ABI_ALL_NIC, 1ull << 40 | 0x80 | 0x1000), 0);
}

static void ring_out_of_range(void) {
	struct port port = {.fd = device()};
	memset(&port.reg, 0, sizeof port.reg);
	struct abi_register reg = {.mode = ABI_ONE_NIC, .ringid = 1};
	CHECK_ERRNO(request(port.fd, ABI_REGISTER, vale("a"), &reg), EINVAL);
	reg = (struct abi_register){.mode = ABI_ONE_NIC, .ringid = 0xffff};
	CHECK_ERRNO(request(port.fd, ABI_REGISTER, vale("a"), &reg), EINVAL);
	reg = (struct abi_register){.mode = ABI_ONE_NIC, .ringid = 0};
	CHECK_OK(request(port.fd, ABI_REGISTER, vale("a"), &reg));
}

static void exclusive(void) {
	struct port first, second = {.fd = device()};
	open_port(&first, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE);
	CHECK_EQ(try_register(&second, vale("a"), ABI_ALL_NIC, 0), EBUSY);
	CHECK_EQ(try_register(&second, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE), EBUSY);
	CHECK_EQ(try_register(&second, vale("b"), ABI_ALL_NIC, ABI_EXCLUSIVE), 0);
	close_port(&first);
	struct port third = {.fd = device()};
	CHECK_EQ(try_register(&third, vale("a"), ABI_ALL_NIC, 0), 0);
}

static void exclusive_after_shared(void) {
	struct port first, second, third = {.fd = device()};
	open_port(&first, vale("a"), ABI_ALL_NIC, 0);
	open_port(&second, vale("a"), ABI_ALL_NIC, 0);
	CHECK_EQ(try_register(&third, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE), EBUSY);
	close_port(&first);
	CHECK_EQ(try_register(&third, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE), EBUSY);
	close_port(&second);
	CHECK_EQ(try_register(&third, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE), 0);
}

static void exclusive_by_direction(void) {
	/* Rings of one direction do not clash with those of the other. */
	struct port tx, rx, third = {.fd = device()};
	open_port(&tx, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE | ABI_TX_RINGS_ONLY);
	open_port(&rx, vale("a"), ABI_ALL_NIC, ABI_EXCLUSIVE | ABI_RX_RINGS_ONLY);
	CHECK(first_tx(&tx) && !rx_ring(&tx, 0));
	CHECK(first_rx(&rx) && !tx_ring(&rx, 0));
	CHECK_EQ(try_register(&third, vale("a"), ABI_ALL_NIC, ABI_RX_RINGS_ONLY), EBUSY);
}

const struct abi_case request_cases[] = {
	{"request/versions", header_versions, 0},
	{"request/reserved", header_reserved, 0},
	{"request/unknown-types", header_types, 0},
	{"request/header-unchanged", header_survives, 0},
	{"request/body-missing", body_missing, 0},
	{"request/body-unexpected", body_unexpected, 0},
	{"request/bad-pointers", bad_pointers, 0},
	{"request/unknown-ioctl", unknown_ioctl, 0},
	{"request/name-without-end", name_not_ended, 0},
	{"request/missing-interface", missing_interface, 0},
	{"request/register-twice", register_twice, 0},
	{"request/failed-register", failed_register_leaves_it_usable, 0},
	{"request/close-unregisters", close_unregisters, 0},
	{"request/sync-before-register", sync_before_register, 0},
	{"request/mmap-before-register", mmap_before_register, 0},
	{"request/mmap-bounds", mmap_bounds, 0},
	{"request/mmap-offset", mmap_offset, 0},
	{"request/mmap-executable", mmap_executable, 0},
	{"request/poll-before-register", poll_before_register, 0},
	{"request/unknown-memory", unknown_memory, 0},
	{"request/modes-refused", modes_refused, 0},
	{"request/unknown-flags", unknown_flags_are_ignored, 0},
	{"request/ring-out-of-range", ring_out_of_range, 0},
	{"request/exclusive", exclusive, 0},
	{"request/exclusive-after-shared", exclusive_after_shared, 0},
	{"request/exclusive-by-direction", exclusive_by_direction, 0},
	{NULL, NULL, 0},
};
