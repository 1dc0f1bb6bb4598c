/* What the cases stand on: ports, frames, children. */
#include "abi.h"

#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

void fail_at(const char *file, int line, const char *format, ...) {
	char text[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	fprintf(stderr, "%s:%d: %s\n", file, line, text);
	_exit(1);
}

void skip(const char *why) {
	fprintf(stderr, "skipped: %s\n", why);
	_exit(77);
}

const char *tag(void) {
	const char *word = getenv("NETMAP_ABI_TAG");
	return word ? word : "t";
}

const char *named(const char *format, ...) {
	static char names[8][64];
	static int turn;
	char *name = names[turn++ & 7];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(name, 64, format, arguments);
	va_end(arguments);
	return name;
}

const char *card(int number) {
	const char *name = getenv(number ? "NETMAP_ABI_NIC2" : "NETMAP_ABI_NIC");
	if (!name) skip("there is no card in NETMAP_ABI_NIC and NETMAP_ABI_NIC2");
	return name;
}

double now(void) {
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

void nap(double seconds) {
	struct timespec time = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	while (nanosleep(&time, &time) != 0 && errno == EINTR) {}
}

int device(void) {
	int fd = open("/dev/netmap", O_RDWR);
	if (fd < 0) FAIL("/dev/netmap cannot be opened: %s", strerrorname_np(errno));
	return fd;
}

void header(struct abi_header *header, int type, const char *name, void *body) {
	memset(header, 0, sizeof *header);
	header->version = ABI_VERSION;
	header->type = (uint16_t)type;
	if (name) snprintf(header->name, sizeof header->name, "%s", name);
	header->body = (uintptr_t)body;
}

int request(int fd, int type, const char *name, void *body) {
	struct abi_header head;
	header(&head, type, name, body);
	return ioctl(fd, ABI_CTRL, &head);
}

int try_register(struct port *port, const char *name, int mode, uint64_t flags) {
	memset(&port->reg, 0, sizeof port->reg);
	port->reg.mode = (uint32_t)mode;
	port->reg.flags = flags;
	return request(port->fd, ABI_REGISTER, name, &port->reg) == 0 ? 0 : errno;
}

void map_port(struct port *port) {
	port->size = port->reg.memsize;
	port->memory = mmap(NULL, port->size, PROT_READ | PROT_WRITE, MAP_SHARED, port->fd, 0);
	if (port->memory == MAP_FAILED) FAIL("mmap of %zu bytes: %s", port->size, strerrorname_np(errno));
	if (port->reg.offset + sizeof(struct abi_if) > port->size) FAIL("offset %llu lies outside", (unsigned long long)port->reg.offset);
	port->nif = (struct abi_if *)(port->memory + port->reg.offset);
}

void open_with(struct port *port, const char *name, void *options) {
	struct abi_header head;
	port->fd = device();
	if (!port->reg.mode) port->reg.mode = ABI_ALL_NIC;
	header(&head, ABI_REGISTER, name, &port->reg);
	head.options = (uintptr_t)options;
	if (ioctl(port->fd, ABI_CTRL, &head) != 0) FAIL("%s cannot be registered: %s", name, strerrorname_np(errno));
	map_port(port);
}

void open_port(struct port *port, const char *name, int mode, uint64_t flags) {
	memset(port, 0, sizeof *port);
	port->reg.mode = (uint32_t)mode;
	port->reg.flags = flags;
	open_with(port, name, NULL);
}

void close_port(struct port *port) {
	if (port->memory) munmap(port->memory, port->size);
	if (port->fd >= 0) CHECK_OK(close(port->fd));
	port->memory = NULL;
	port->fd = -1;
}

static struct abi_ring *ring_at(const struct port *port, unsigned i) {
	int64_t at = port->nif->ring_ofs[i];
	return at ? (struct abi_ring *)((uint8_t *)port->nif + at) : NULL;
}

static unsigned tx_count(const struct port *port) { return port->nif->tx_rings + port->nif->host_tx_rings; }

struct abi_ring *tx_ring(const struct port *port, unsigned i) { return i < tx_count(port) ? ring_at(port, i) : NULL; }

struct abi_ring *rx_ring(const struct port *port, unsigned i) {
	return i < port->nif->rx_rings + port->nif->host_rx_rings ? ring_at(port, tx_count(port) + i) : NULL;
}

struct abi_ring *first_tx(const struct port *port) {
	for (unsigned i = 0; i < tx_count(port); i++)
		if (tx_ring(port, i)) return tx_ring(port, i);
	FAIL("%s: no transmit ring is held", port->nif->name);
}

struct abi_ring *first_rx(const struct port *port) {
	for (unsigned i = 0; i < port->nif->rx_rings + port->nif->host_rx_rings; i++)
		if (rx_ring(port, i)) return rx_ring(port, i);
	FAIL("%s: no receive ring is held", port->nif->name);
}

int txsync(const struct port *port) { return ioctl(port->fd, ABI_TXSYNC, NULL); }
int rxsync(const struct port *port) { return ioctl(port->fd, ABI_RXSYNC, NULL); }

/* MARK: frames */

const struct mac broadcast = {{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}};

struct mac host_mac(int number) {
	struct mac mac = {{0x02, 0x52, 0x57, 0, (uint8_t)(number >> 8), (uint8_t)number}};
	return mac;
}

static uint8_t body_byte(uint32_t seed, uint32_t i) { return (uint8_t)((seed * 2654435761u >> 16) + i * 7); }

void fill_frame(uint8_t *to, uint32_t length, struct mac target, struct mac source, uint32_t seed) {
	if (length < 20) FAIL("a frame of %u bytes has no room for its number", length);
	memcpy(to, target.bytes, 6);
	memcpy(to + 6, source.bytes, 6);
	to[12] = 0x88;
	to[13] = 0xb5; /* for experiments (IEEE 802) */
	memcpy(to + 14, &seed, 4);
	for (uint32_t i = 18; i < length; i++) to[i] = body_byte(seed, i);
}

uint32_t frame_seed(const uint8_t *bytes) {
	uint32_t seed;
	memcpy(&seed, bytes + 14, 4);
	return seed;
}

const char *check_frame(const uint8_t *bytes, uint32_t length, uint32_t seed) {
	if (length < 20) return "too short";
	if (bytes[12] != 0x88 || bytes[13] != 0xb5) return "another type";
	if (frame_seed(bytes) != seed) return "another number";
	for (uint32_t i = 18; i < length; i++)
		if (bytes[i] != body_byte(seed, i)) return "damaged";
	return NULL;
}

void put_frame(struct abi_ring *ring, uint32_t length, struct mac target, struct mac source, uint32_t seed) {
	if (ring->head == ring->tail) FAIL("there is no room in transmit ring %u", ring->ringid);
	struct abi_slot *slot = &ring->slot[ring->head];
	fill_frame(buffer(ring, slot->buf_idx), length, target, source, seed);
	slot->len = (uint16_t)length;
	slot->flags = 0;
	ring->head = ring->cur = next_slot(ring, ring->head);
}

void send_frame(struct port *port, uint32_t length, struct mac target, struct mac source, uint32_t seed) {
	struct abi_ring *ring = first_tx(port);
	for (double end = now() + 5; ring->head == ring->tail;) {
		if (now() > end) FAIL("no room in the transmit ring for 5 s");
		CHECK_OK(txsync(port));
	}
	put_frame(ring, length, target, source, seed);
	CHECK_OK(txsync(port));
}

uint32_t take_frame(struct port *port, double seconds, uint32_t *seed) {
	double end = now() + seconds;
	for (;;) {
		CHECK_OK(rxsync(port));
		for (unsigned i = 0; i < port->nif->rx_rings + port->nif->host_rx_rings; i++) {
			struct abi_ring *ring = rx_ring(port, i);
			while (ring && ring->head != ring->tail) {
				struct abi_slot *slot = &ring->slot[ring->head];
				uint8_t *bytes = buffer(ring, slot->buf_idx);
				uint32_t length = slot->len;
				uint32_t found = length >= 20 ? frame_seed(bytes) : 0;
				const char *problem = length >= 20 && bytes[12] == 0x88 && bytes[13] == 0xb5 ? check_frame(bytes, length, found) : NULL;
				bool ours = length >= 20 && bytes[12] == 0x88 && bytes[13] == 0xb5;
				ring->head = ring->cur = next_slot(ring, ring->head);
				if (problem) FAIL("frame %u of %u bytes: %s", found, length, problem);
				if (!ours) continue; /* what a network says by itself */
				if (seed) *seed = found;
				return length;
			}
		}
		if (now() >= end) return 0;
		usleep(500);
	}
}

void expect_frame(struct port *port, uint32_t length, uint32_t seed) {
	uint32_t found = 0, count = take_frame(port, 5, &found);
	if (!count) FAIL("frame %u did not come within 5 s", seed);
	if (found != seed) FAIL("frame %u came, not %u", found, seed);
	if (count != length) FAIL("frame %u came with %u bytes, not %u", seed, count, length);
}

void expect_nothing(struct port *port) {
	uint32_t seed = 0, count = take_frame(port, 0.2, &seed);
	if (count) FAIL("frame %u of %u bytes came, and nothing was to come", seed, count);
}

int poll_one(int fd, int events, int milliseconds) {
	struct pollfd one = {fd, (short)events, 0};
	int count = poll(&one, 1, milliseconds);
	return count < 0 ? -1 : one.revents;
}

/* MARK: children */

pid_t child(void (*run)(void *), void *argument) {
	fflush(NULL);
	pid_t pid = fork();
	if (pid < 0) FAIL("fork: %s", strerrorname_np(errno));
	if (pid == 0) {
		alarm(30);
		run(argument);
		_exit(0);
	}
	return pid;
}

void join(pid_t pid) {
	int status = 0;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR) FAIL("waitpid: %s", strerrorname_np(errno));
	if (WIFSIGNALED(status)) FAIL("a child was ended by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 77) skip("a child had to");
	if (WEXITSTATUS(status)) FAIL("a child ended with %d", WEXITSTATUS(status));
}

void send_descriptor(int socket, int fd) {
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	memset(&control, 0, sizeof control);
	char byte = 'd';
	struct iovec piece = {&byte, 1};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(head), &fd, sizeof fd);
	CHECK_EQ(sendmsg(socket, &message, 0), 1);
}

int receive_descriptor(int socket) {
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	char byte;
	struct iovec piece = {&byte, 1};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	CHECK_EQ(recvmsg(socket, &message, 0), 1);
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	if (!head || head->cmsg_type != SCM_RIGHTS) FAIL("no descriptor came");
	int fd;
	memcpy(&fd, CMSG_DATA(head), sizeof fd);
	return fd;
}
