/*
 * ringway-netmap.h: netmap ports of ringwayd for programs in C. Link with -lringway-netmap-client.
 *
 *     char why[256];
 *     rw_netmap *port = rw_netmap_open("netmap:ix0", 0, why, sizeof why);
 *     if (!port) errx(1, "%s", why);
 *     struct rw_netmap_ring in;
 *     rw_netmap_ring(port, RW_NETMAP_RECEIVE, 0, &in);
 *     while (rw_netmap_wait(port, RW_NETMAP_RECEIVE, -1) > 0) {
 *         uint32_t i = rw_netmap_head(&in), end = rw_netmap_tail(&in);
 *         for (; i != end; i = rw_netmap_next(&in, i))
 *             look(rw_netmap_bytes(&in, rw_netmap_slot(&in, i)->buffer), rw_netmap_slot(&in, i)->length);
 *         rw_netmap_set_head(&in, end);
 *     }
 *     rw_netmap_close(port);
 *
 * Functions that fail answer NULL or -1 and set errno; rw_netmap_error has a sentence about it. One thread at a time opens,
 * waits on and closes a port; different rings may be used by different threads. A forked child opens a port of its own.
 */
#ifndef RINGWAY_NETMAP_H
#define RINGWAY_NETMAP_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Only clang knows these two words. */
#ifndef __clang__
#define RW_NETMAP_NONNULL
#define RW_NETMAP_NULLABLE
#else
#define RW_NETMAP_NONNULL _Nonnull
#define RW_NETMAP_NULLABLE _Nullable
#endif

typedef struct rw_netmap rw_netmap;

/* Directions, and what a wait is for: may be added. */
enum { RW_NETMAP_RECEIVE = 1, RW_NETMAP_TRANSMIT = 2 };

/* A slot names a buffer; it is netmap's own structure. */
struct rw_netmap_slot {
    uint32_t buffer;
    uint16_t length; /* bytes of the packet */
    uint16_t flags;  /* RW_NETMAP_CHANGED … */
    uint64_t pointer;
};
enum { RW_NETMAP_CHANGED = 1 /* another buffer than before */, RW_NETMAP_MORE = 0x20 /* the packet goes on in the next slot */ };

/* A ring of an open port: slots head … tail are the program's. Copies are the same ring. */
struct rw_netmap_ring {
    uint8_t *RW_NETMAP_NONNULL header;  /* struct netmap_ring */
    uint8_t *RW_NETMAP_NONNULL buffers; /* buffer 0 */
    uint32_t buffer_count;              /* that lie in the port's memory from there on */
    uint32_t buffer_size;               /* bytes */
    uint32_t slots;
    uint32_t direction; /* RW_NETMAP_RECEIVE or RW_NETMAP_TRANSMIT */
    uint32_t is_host;   /* not 0: towards the interface layer */
    uint32_t number;    /* among the rings of its kind */
    uint64_t reserved;
};

/*
 * Registers a port: "netmap:ix0", "netmap:ix0-1/T", "netmap:ix0^", "vale0:a", "netmap:ix0{1" …
 * socket: the daemon's; NULL for $RINGWAY_NETMAP_SOCKET, or /run/ringway/netmap.sock.
 * why: takes a sentence when there is an error, cut at `room` bytes; may be NULL.
 * errno: EINVAL (name), ENOENT or ECONNREFUSED (no daemon), EACCES, ENXIO (no such port), EBUSY, ENOMEM …
 */
rw_netmap *RW_NETMAP_NULLABLE rw_netmap_open(const char *RW_NETMAP_NONNULL name, const char *RW_NETMAP_NULLABLE socket, char *RW_NETMAP_NULLABLE why, size_t room);
/* The same with sizes: slots a ring and extra buffers, 0 leaves them to the daemon. */
rw_netmap *RW_NETMAP_NULLABLE rw_netmap_open_sized(
    const char *RW_NETMAP_NONNULL name, const char *RW_NETMAP_NULLABLE socket, uint32_t transmit_slots, uint32_t receive_slots, uint32_t extra_buffers,
    char *RW_NETMAP_NULLABLE why, size_t room);
/* Gives everything back; rings of the port must not be used any more. */
void rw_netmap_close(rw_netmap *RW_NETMAP_NULLABLE port);
/* Registers anew after the daemon or the card went away: rings must be asked for again. 0 or -1. */
int rw_netmap_reopen(rw_netmap *RW_NETMAP_NONNULL port);
/* The sentence of the port's last error, until its next one; "" before. */
const char *RW_NETMAP_NONNULL rw_netmap_error(rw_netmap *RW_NETMAP_NONNULL port);

/* How many rings of a direction the port holds; 0 when it is not open. */
uint32_t rw_netmap_rings(rw_netmap *RW_NETMAP_NONNULL port, int direction);
/* One of them, from 0: 0, or -1 with ENOENT. */
int rw_netmap_ring(rw_netmap *RW_NETMAP_NONNULL port, int direction, uint32_t index, struct rw_netmap_ring *RW_NETMAP_NONNULL ring);

/* Transmit: hands filled slots over, takes sent ones back. Receive: takes what came, gives read slots back. 0 or -1 (ENXIO: gone). */
int rw_netmap_sync(rw_netmap *RW_NETMAP_NONNULL port, int direction);
/*
 * Waits until a ring of these directions is ready, and transmits what is pending. milliseconds: -1 waits for ever.
 * What is ready (directions), 0 when the time is over, -1: EINTR, EIO (a ring was reset: an index or a length in it was wrong),
 * ENXIO (gone: reopen).
 */
int rw_netmap_wait(rw_netmap *RW_NETMAP_NONNULL port, int directions, int milliseconds);

/*
 * For poll(2) beside other descriptors: arm, wait for no time, poll the descriptor for POLLIN, drain, wait for no time again.
 * Poll no longer than 100 milliseconds where several programs share the descriptor.
 */
int rw_netmap_descriptor(rw_netmap *RW_NETMAP_NONNULL port);
void rw_netmap_arm(rw_netmap *RW_NETMAP_NONNULL port, int directions);
void rw_netmap_drain(rw_netmap *RW_NETMAP_NONNULL port);

/* Extra buffers: 0 when there is none left. What is not given back goes back to the daemon at the end. */
uint32_t rw_netmap_take_buffer(rw_netmap *RW_NETMAP_NONNULL port);
void rw_netmap_give_buffer(rw_netmap *RW_NETMAP_NONNULL port, uint32_t buffer);

/* What stands in a ring. Indexes that are out of range mean slot 0 and buffer 0, which is nobody's. */

static inline uint32_t rw_netmap_head(const struct rw_netmap_ring *RW_NETMAP_NONNULL r) { return *(const volatile uint32_t *)(r->header + 20); }
static inline uint32_t rw_netmap_tail(const struct rw_netmap_ring *RW_NETMAP_NONNULL r) { return __atomic_load_n((const uint32_t *)(const void *)(r->header + 28), __ATOMIC_ACQUIRE); }
/* Slots between head and tail. */
static inline uint32_t rw_netmap_available(const struct rw_netmap_ring *RW_NETMAP_NONNULL r)
{
    uint32_t head = rw_netmap_head(r), tail = rw_netmap_tail(r);
    return tail >= head ? tail - head : tail + r->slots - head;
}
/* Gives all slots before `head` back, at the next sync or wait. */
static inline void rw_netmap_set_head(const struct rw_netmap_ring *RW_NETMAP_NONNULL r, uint32_t head)
{
    *(volatile uint32_t *)(r->header + 24) = head;
    __atomic_store_n((uint32_t *)(void *)(r->header + 20), head, __ATOMIC_RELEASE);
}
static inline uint32_t rw_netmap_next(const struct rw_netmap_ring *RW_NETMAP_NONNULL r, uint32_t i) { return i + 1 >= r->slots ? 0 : i + 1; }
static inline struct rw_netmap_slot *RW_NETMAP_NONNULL rw_netmap_slot(const struct rw_netmap_ring *RW_NETMAP_NONNULL r, uint32_t i)
{
    return (struct rw_netmap_slot *)(void *)(r->header + 256) + (i < r->slots ? i : 0);
}
static inline uint8_t *RW_NETMAP_NONNULL rw_netmap_bytes(const struct rw_netmap_ring *RW_NETMAP_NONNULL r, uint32_t buffer)
{
    return r->buffers + (size_t)(buffer < r->buffer_count ? buffer : 0) * r->buffer_size;
}

#ifdef __cplusplus
}
#endif
#endif
