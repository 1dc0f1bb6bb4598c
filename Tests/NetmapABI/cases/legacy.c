/* The requests of before API 12: one structure for all, by NIOCREGIF and NIOCGINFO. */
#include "../abi.h"

static const char *vale(const char *part) { return named("vale%s%d:%s", tag(), (int)getpid() % 10000, part); }

static void legacy(struct abi_nmreq *nmr, const char *name) {
	memset(nmr, 0, sizeof *nmr);
	nmr->version = ABI_VERSION;
	memcpy(nmr->name, name, strnlen(name, sizeof nmr->name - 1));
}

/* As a program does it: registers, maps by the answer. */
static void open_legacy(struct port *port, struct abi_nmreq *nmr) {
	memset(port, 0, sizeof *port);
	port->fd = device();
	CHECK_OK(ioctl(port->fd, ABI_REGIF, nmr));
	port->reg.memsize = nmr->memsize;
	port->reg.offset = nmr->offset;
	map_port(port);
}

static void versions(void) {
	int fd = device();
	struct abi_nmreq nmr;
	for (uint32_t version = 0; version < 14; version++) {
		legacy(&nmr, vale("a"));
		nmr.version = version;
		CHECK_ERRNO(ioctl(fd, ABI_GINFO, &nmr), EINVAL);
		CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EINVAL);
	}
	legacy(&nmr, vale("a"));
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
}

static void info_of_nothing(void) {
	struct abi_nmreq nmr;
	legacy(&nmr, "");
	CHECK_OK(ioctl(device(), ABI_GINFO, &nmr));
	CHECK(nmr.memsize > 0);
	CHECK_EQ(nmr.arg2, 1);
}

static void info(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	struct abi_nmreq nmr;
	legacy(&nmr, vale("a"));
	CHECK_OK(ioctl(device(), ABI_GINFO, &nmr));
	CHECK_EQ(nmr.tx_rings, port.nif->tx_rings);
	CHECK_EQ(nmr.rx_slots, first_rx(&port)->num_slots);
	CHECK_EQ(nmr.arg2, port.reg.mem_id);
	legacy(&nmr, "nobody0");
	CHECK_ERRNO(ioctl(device(), ABI_GINFO, &nmr), ENXIO);
}

static void register_all(void) {
	struct abi_nmreq nmr;
	struct port a, b;
	legacy(&nmr, vale("a"));
	open_legacy(&a, &nmr); /* flags 0, ringid 0: all rings */
	CHECK_EQ(nmr.tx_rings, a.nif->tx_rings);
	CHECK_EQ(nmr.tx_slots, first_tx(&a)->num_slots);
	CHECK(nmr.arg2 != 0);
	legacy(&nmr, vale("b"));
	nmr.flags = ABI_ALL_NIC;
	open_legacy(&b, &nmr);
	send_frame(&a, 60, broadcast, host_mac(1), 5);
	expect_frame(&b, 60, 5);
}

static void register_errors(void) {
	struct abi_nmreq nmr;
	int fd = device();
	legacy(&nmr, "nobody0");
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), ENXIO);
	legacy(&nmr, vale("a"));
	nmr.ringid = ABI_HW_RING | 7;
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EINVAL);
	legacy(&nmr, vale("a"));
	nmr.ringid = ABI_SW_RING;
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EINVAL);
	legacy(&nmr, vale("a"));
	nmr.arg2 = 60001;
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EINVAL);
	legacy(&nmr, vale("a"));
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EBUSY);
}

static void one_ring(void) {
	struct abi_nmreq nmr;
	struct port all, one;
	legacy(&nmr, vale("a"));
	nmr.tx_rings = nmr.rx_rings = 2;
	nmr.flags = ABI_ALL_NIC;
	open_legacy(&all, &nmr);
	legacy(&nmr, vale("a"));
	nmr.ringid = ABI_HW_RING | 1;
	open_legacy(&one, &nmr);
	CHECK(!tx_ring(&one, 0) && tx_ring(&one, 1) && !rx_ring(&one, 0) && rx_ring(&one, 1));
	close_port(&one);
	legacy(&nmr, vale("a"));
	nmr.flags = ABI_ONE_NIC;
	nmr.ringid = 1;
	open_legacy(&one, &nmr);
	CHECK(!tx_ring(&one, 0) && tx_ring(&one, 1));
}

static void no_tx_poll(void) {
	struct abi_nmreq nmr;
	struct port a, b;
	legacy(&nmr, vale("a"));
	nmr.ringid = ABI_RING_NO_TX_POLL;
	open_legacy(&a, &nmr);
	open_port(&b, vale("b"), ABI_ALL_NIC, 0);
	put_frame(first_tx(&a), 60, broadcast, host_mac(1), 3);
	CHECK(poll_one(a.fd, POLLIN, 50) >= 0);
	expect_nothing(&b);
	CHECK_OK(txsync(&a));
	expect_frame(&b, 60, 3);
}

static void pipes(void) {
	struct abi_nmreq nmr;
	struct port a, b;
	const char *base = named("q%s%d", tag(), (int)getpid() % 10000);
	legacy(&nmr, base);
	nmr.flags = ABI_PIPE_MASTER;
	nmr.ringid = 5;
	open_legacy(&a, &nmr);
	legacy(&nmr, base);
	nmr.flags = ABI_PIPE_SLAVE;
	nmr.ringid = 5;
	open_legacy(&b, &nmr);
	send_frame(&a, 60, broadcast, host_mac(1), 11);
	expect_frame(&b, 60, 11);
	send_frame(&b, 61, broadcast, host_mac(1), 12);
	expect_frame(&a, 61, 12);
}

static void extra_buffers(void) {
	struct abi_nmreq nmr;
	struct port a;
	legacy(&nmr, vale("a"));
	nmr.arg3 = 8;
	open_legacy(&a, &nmr);
	CHECK_EQ(nmr.arg3, 8);
	uint32_t count = 0;
	for (uint32_t at = a.nif->bufs_head; at && count < 100; count++) memcpy(&at, buffer(first_tx(&a), at), 4);
	CHECK_EQ(count, 8);
}

static void persistent(void) {
	int fd = device();
	struct abi_nmreq nmr;
	const char *name = named("v%s%d", tag(), (int)getpid() % 10000);
	legacy(&nmr, name);
	nmr.cmd = ABI_CMD_NEWIF;
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	CHECK(ioctl(fd, ABI_REGIF, &nmr) == -1 && errno == EEXIST);
	const char *port = named("vale%s%d:%s", tag(), (int)getpid() % 10000, name);
	if (strlen(port) < 16) {
		legacy(&nmr, port);
		nmr.cmd = ABI_CMD_ATTACH;
		CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
		legacy(&nmr, port);
		nmr.cmd = ABI_CMD_LIST;
		CHECK_OK(ioctl(fd, ABI_GINFO, &nmr));
		legacy(&nmr, port);
		nmr.cmd = ABI_CMD_DETACH;
		CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	}
	legacy(&nmr, name);
	nmr.cmd = ABI_CMD_DELIF;
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	CHECK(ioctl(fd, ABI_REGIF, &nmr) == -1);
}

static void header_length(void) {
	struct port port;
	open_port(&port, vale("a"), ABI_ALL_NIC, 0);
	int fd = device();
	struct abi_nmreq nmr;
	legacy(&nmr, vale("a"));
	nmr.cmd = ABI_CMD_VNET_HDR;
	nmr.arg1 = 12;
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	legacy(&nmr, vale("a"));
	nmr.cmd = ABI_CMD_VNET_HDR_GET;
	CHECK_OK(ioctl(fd, ABI_REGIF, &nmr));
	CHECK_EQ(nmr.arg1, 12);
	legacy(&nmr, vale("a"));
	nmr.cmd = ABI_CMD_VNET_HDR;
	nmr.arg1 = 11;
	CHECK_ERRNO(ioctl(fd, ABI_REGIF, &nmr), EINVAL);
}

static void unknown_command(void) {
	struct abi_nmreq nmr;
	legacy(&nmr, vale("a"));
	nmr.cmd = 99;
	CHECK_ERRNO(ioctl(device(), ABI_REGIF, &nmr), EINVAL);
	uint8_t configure[272] = {0};
	CHECK(ioctl(device(), ABI_CONFIG, configure) == -1); /* for modules of switches: there is none */
}

const struct abi_case legacy_cases[] = {
	{"legacy/versions", versions, 0},
	{"legacy/info-of-nothing", info_of_nothing, 0},
	{"legacy/info", info, 0},
	{"legacy/register", register_all, 0},
	{"legacy/register-errors", register_errors, 0},
	{"legacy/one-ring", one_ring, 0},
	{"legacy/no-tx-poll", no_tx_poll, 0},
	{"legacy/pipes", pipes, 0},
	{"legacy/extra-buffers", extra_buffers, 0},
	{"legacy/persistent-ports", persistent, 0},
	{"legacy/header-length", header_length, 0},
	{"legacy/unknown-command", unknown_command, 0},
	{NULL, NULL, 0},
};
