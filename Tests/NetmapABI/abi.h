/* A case is a function; CHECK ends it with a sentence. Every case runs in a process of its own.
 *
 * Names of ports begin with the words in NETMAP_ABI_TAG, so that several runs may share one daemon; cards come from
 * NETMAP_ABI_NIC and NETMAP_ABI_NIC2, which are cabled to each other.
 */
#ifndef ABI_H
#define ABI_H

#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "netmap_abi.h"

enum need { NOTHING = 0, NEEDS_CARDS = 1, NEEDS_TWO_CARDS = 2 };

struct abi_case {
	const char *name;
	void (*run)(void);
	enum need need;
};
/* One table a file, ended by a case without a name. */
extern const struct abi_case request_cases[], port_cases[], option_cases[], legacy_cases[], layout_cases[], sync_cases[], pipe_cases[],
	vale_cases[], monitor_cases[], memory_cases[], wait_cases[], thread_cases[], process_cases[], duplicate_cases[], foreign_cases[],
	loop_cases[], card_cases[], host_cases[], attach_cases[];

void fail_at(const char *file, int line, const char *format, ...) __attribute__((noreturn, format(printf, 3, 4)));
void skip(const char *why) __attribute__((noreturn));
#define FAIL(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
#define CHECK(condition) \
	do { \
		if (!(condition)) FAIL("%s does not hold", #condition); \
	} while (0)
#define CHECK_EQ(value, wanted) \
	do { \
		long long v_ = (long long)(value), w_ = (long long)(wanted); \
		if (v_ != w_) FAIL("%s is %lld, not %lld (%s)", #value, v_, w_, #wanted); \
	} while (0)
/* The call fails, and with this errno. */
#define CHECK_ERRNO(call, wanted) \
	do { \
		errno = 0; \
		long r_ = (long)(call); \
		int e_ = errno; \
		if (r_ != -1) FAIL("%s gave %ld, not an error", #call, r_); \
		if (e_ != (wanted)) FAIL("%s failed with %s, not %s", #call, strerrorname_np(e_), #wanted); \
	} while (0)
#define CHECK_OK(call) \
	do { \
		errno = 0; \
		long r_ = (long)(call); \
		int e_ = errno; \
		if (r_ < 0) FAIL("%s failed with %s", #call, strerrorname_np(e_)); \
	} while (0)

/* A name of this run's: "vale" NAME ":" PORT, NAME "{1" ... Four buffers, used in turn. */
const char *named(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *tag(void);
const char *card(int number);
double now(void);
void nap(double seconds);

/* Descriptors and requests */
int device(void);
void header(struct abi_header *header, int type, const char *name, void *body);
/* The ioctl's result, and errno. */
int request(int fd, int type, const char *name, void *body);

struct port {
	int fd;
	uint8_t *memory;
	size_t size;
	struct abi_if *nif;
	struct abi_register reg;
};
/* errno of a registration, 0 when it worked; nothing is mapped. */
int try_register(struct port *port, const char *name, int mode, uint64_t flags);
/* Opens the device, registers and maps. */
void open_port(struct port *port, const char *name, int mode, uint64_t flags);
/* The same, with what `port->reg` already asks for, and options. */
void open_with(struct port *port, const char *name, void *options);
void map_port(struct port *port);
void close_port(struct port *port);
/* Ring i as the interface counts them: card rings first, then host rings. NULL: not held. */
struct abi_ring *tx_ring(const struct port *port, unsigned i);
struct abi_ring *rx_ring(const struct port *port, unsigned i);
/* The first that is held. */
struct abi_ring *first_tx(const struct port *port);
struct abi_ring *first_rx(const struct port *port);

/* Rings */
static inline uint8_t *buffer(const struct abi_ring *ring, uint32_t index) {
	return (uint8_t *)ring + ring->buf_ofs + (size_t)index * ring->nr_buf_size;
}
static inline uint32_t next_slot(const struct abi_ring *ring, uint32_t i) { return i + 1 == ring->num_slots ? 0 : i + 1; }
static inline uint32_t space(const volatile struct abi_ring *ring) {
	return ring->tail >= ring->cur ? ring->tail - ring->cur : ring->tail + ring->num_slots - ring->cur;
}
static inline uint32_t ready(const volatile struct abi_ring *ring) {
	return ring->tail >= ring->head ? ring->tail - ring->head : ring->tail + ring->num_slots - ring->head;
}
int txsync(const struct port *port);
int rxsync(const struct port *port);

/* Frames: an Ethernet header, then bytes that follow from `seed`. */
struct mac { uint8_t bytes[6]; };
struct mac host_mac(int number);
extern const struct mac broadcast;
void fill_frame(uint8_t *to, uint32_t length, struct mac target, struct mac source, uint32_t seed);
/* NULL, or what is wrong. */
const char *check_frame(const uint8_t *bytes, uint32_t length, uint32_t seed);
uint32_t frame_seed(const uint8_t *bytes);

/* Puts one frame into the ring's next slot (no sync). The ring must have room. */
void put_frame(struct abi_ring *ring, uint32_t length, struct mac target, struct mac source, uint32_t seed);
/* Sends one by a sync of its own. */
void send_frame(struct port *port, uint32_t length, struct mac target, struct mac source, uint32_t seed);
/* Takes one within `seconds`, by rxsync; its length, 0 for none. `seed` gets what the frame was made from. */
uint32_t take_frame(struct port *port, double seconds, uint32_t *seed);
/* Exactly this frame comes next, whole and undamaged. */
void expect_frame(struct port *port, uint32_t length, uint32_t seed);
/* Nothing comes for a while. */
void expect_nothing(struct port *port);
/* poll(2) on one descriptor: its revents; negative: an error. */
int poll_one(int fd, int events, int milliseconds);

/* Children: the case fails when one does. */
pid_t child(void (*run)(void *), void *argument);
void join(pid_t pid);
/* A descriptor through a socket. */
void send_descriptor(int socket, int fd);
int receive_descriptor(int socket);


/* What `netmap-abi --inherited FD` does after exec: uses a port that it was given. */
int inherited(int fd);

#endif
