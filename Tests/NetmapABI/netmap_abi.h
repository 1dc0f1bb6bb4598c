/* netmap's binary interface, user API 14, as this project understands it: layouts and numbers of x86-64 Linux.
 *
 * Written from the specification, for tests: what programs were compiled against is the public header, and
 * every line here must agree with it. Sizes and offsets are asserted below, where a compiler sees them.
 *
 *   region (one mapping):  | interfaces | rings | buffers |
 *   interface ──ring_ofs──> ring (header, slots) ──buf_ofs + index x size──> buffer
 */
#ifndef NETMAP_ABI_H
#define NETMAP_ABI_H

#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>

#define ABI_VERSION 14

/* ioctl(2) */
#define ABI_GINFO 0xc03c6991u
#define ABI_REGIF 0xc03c6992u
#define ABI_TXSYNC 0x6994u
#define ABI_RXSYNC 0x6995u
#define ABI_CONFIG 0xc1106996u
#define ABI_CTRL 0xc0586997u

/* Rings and slots */
struct abi_slot {
	uint32_t buf_idx;
	uint16_t len, flags;
	uint64_t ptr;
};

struct abi_ring {
	int64_t buf_ofs;
	uint32_t num_slots, nr_buf_size;
	uint16_t ringid, dir; /* 0: transmit */
	uint32_t head, cur, tail, flags;
	uint32_t pad0;
	struct timeval ts;
	uint64_t offset_mask, buf_align;
	uint64_t pad1[7];
	uint8_t sem[128];
	struct abi_slot slot[];
};

struct abi_if {
	char name[16];
	uint32_t version, flags;
	uint32_t tx_rings, rx_rings, bufs_head, host_tx_rings, host_rx_rings;
	uint32_t spare[3];
	int64_t ring_ofs[]; /* card tx, host tx, card rx, host rx; 0: not held */
};
#define ABI_IF_PRIVATE 1u

enum abi_slot_flag {
	ABI_BUF_CHANGED = 1, ABI_REPORT = 2, ABI_FORWARD = 4, ABI_NO_LEARN = 8, ABI_INDIRECT = 0x10,
	ABI_MOREFRAG = 0x20, ABI_TXMON = 0x40, ABI_PORT_SHIFT = 8
};
enum abi_ring_flag { ABI_R_TIMESTAMP = 2, ABI_R_FORWARD = 4 };
#define ABI_MOST_FRAGMENTS 64

/* Requests */
struct abi_header {
	uint16_t version, type;
	uint32_t reserved;
	char name[64];
	uint64_t options, body;
};

enum abi_request {
	ABI_REGISTER = 1, ABI_PORT_INFO = 2, ABI_VALE_ATTACH = 3, ABI_VALE_DETACH = 4, ABI_VALE_LIST = 5, ABI_HDR_SET = 6,
	ABI_HDR_GET = 7, ABI_NEWIF = 8, ABI_DELIF = 9, ABI_POLLING_ON = 10, ABI_POLLING_OFF = 11, ABI_POOLS_INFO = 12,
	ABI_LOOP_START = 13, ABI_LOOP_STOP = 14, ABI_CSB_ENABLE = 15
};

struct abi_register {
	uint64_t offset, memsize;
	uint32_t tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings, host_tx_rings, host_rx_rings;
	uint16_t mem_id, ringid;
	uint32_t mode, extra_bufs;
	uint32_t pad;
	uint64_t flags;
};

enum abi_mode {
	ABI_ALL_NIC = 1, ABI_SW = 2, ABI_NIC_SW = 3, ABI_ONE_NIC = 4, ABI_PIPE_MASTER = 5, ABI_PIPE_SLAVE = 6, ABI_NULL = 7,
	ABI_ONE_SW = 8
};
enum abi_register_flag {
	ABI_MONITOR_TX = 0x100, ABI_MONITOR_RX = 0x200, ABI_ZCOPY_MON = 0x400, ABI_EXCLUSIVE = 0x800,
	ABI_RX_RINGS_ONLY = 0x2000, ABI_TX_RINGS_ONLY = 0x4000, ABI_ACCEPT_VNET_HDR = 0x8000, ABI_DO_RX_POLL = 0x10000,
	ABI_NO_TX_POLL = 0x20000
};

struct abi_port_info {
	uint64_t memsize;
	uint32_t tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings, host_tx_rings, host_rx_rings;
	uint16_t mem_id, pad[3];
};
struct abi_vale_attach {
	struct abi_register reg;
	uint32_t port_index, pad;
};
struct abi_vale_detach { uint32_t port_index, pad; };
struct abi_vale_list { uint16_t bridge, pad; uint32_t port; };
struct abi_port_hdr { uint32_t length, pad; };
struct abi_newif { uint32_t tx_slots, rx_slots; uint16_t tx_rings, rx_rings, mem_id, pad; };
struct abi_polling { uint32_t mode, first_cpu, cpus, pad; };
struct abi_pool { uint64_t offset; uint32_t objects, size; };
struct abi_pools_info {
	uint64_t memsize;
	uint16_t mem_id, pad[3];
	struct abi_pool interfaces, rings, buffers;
};
struct abi_loop_start { uint32_t sleep_us, pad; };

/* Options */
struct abi_option {
	uint64_t next;
	uint32_t type, status;
	uint64_t size;
};
enum abi_option_type { ABI_OPT_EXTMEM = 1, ABI_OPT_EVENTFDS = 2, ABI_OPT_CSB = 3, ABI_OPT_LOOP_MODE = 4, ABI_OPT_OFFSETS = 5 };
struct abi_opt_extmem {
	struct abi_option head;
	uint64_t usrptr;
	struct abi_pools_info pools;
};
struct abi_opt_eventfds {
	struct abi_option head;
	struct { int32_t io, irq; } fds[];
};
struct abi_opt_csb {
	struct abi_option head;
	uint64_t atok, ktoa;
};
struct abi_opt_loop_mode { struct abi_option head; uint32_t mode, pad; };
struct abi_opt_offsets {
	struct abi_option head;
	uint64_t max_offset, initial_offset;
	uint32_t bits, tx_align;
	uint64_t min_gap;
};
struct abi_atok { uint32_t head, cur, appl_need_kick, sync_flags, pad[12]; };
struct abi_ktoa { uint32_t hwcur, hwtail, kern_need_kick, pad[13]; };

/* Legacy requests */
struct abi_nmreq {
	char name[16];
	uint32_t version, offset, memsize, tx_slots, rx_slots;
	uint16_t tx_rings, rx_rings, ringid, cmd, arg1, arg2;
	uint32_t arg3, flags;
	uint32_t spare[1];
};
enum abi_legacy_ring { ABI_HW_RING = 0x4000, ABI_SW_RING = 0x2000, ABI_RING_NO_TX_POLL = 0x1000, ABI_RING_MASK = 0xfff };
enum abi_legacy_cmd {
	ABI_CMD_ATTACH = 1, ABI_CMD_DETACH = 2, ABI_CMD_REGOPS = 3, ABI_CMD_LIST = 4, ABI_CMD_VNET_HDR = 5,
	ABI_CMD_NEWIF = 6, ABI_CMD_DELIF = 7, ABI_CMD_POLLING_ON = 10, ABI_CMD_POLLING_OFF = 11, ABI_CMD_VNET_HDR_GET = 12
};
#define ABI_CMD_HOST 1 /* arg1 of ATTACH: the host rings too */

#define ABI_AT(type, field, at) _Static_assert(offsetof(struct type, field) == (at), #type "." #field)
#define ABI_SIZE(type, bytes) _Static_assert(sizeof(struct type) == (bytes), #type)

ABI_SIZE(abi_slot, 16);
ABI_AT(abi_slot, len, 4);
ABI_AT(abi_slot, flags, 6);
ABI_AT(abi_slot, ptr, 8);
ABI_SIZE(abi_ring, 256);
ABI_AT(abi_ring, num_slots, 8);
ABI_AT(abi_ring, nr_buf_size, 12);
ABI_AT(abi_ring, ringid, 16);
ABI_AT(abi_ring, dir, 18);
ABI_AT(abi_ring, head, 20);
ABI_AT(abi_ring, cur, 24);
ABI_AT(abi_ring, tail, 28);
ABI_AT(abi_ring, flags, 32);
ABI_AT(abi_ring, ts, 40);
ABI_AT(abi_ring, offset_mask, 56);
ABI_AT(abi_ring, buf_align, 64);
ABI_AT(abi_ring, sem, 128);
ABI_AT(abi_ring, slot, 256);
ABI_SIZE(abi_if, 56);
ABI_AT(abi_if, version, 16);
ABI_AT(abi_if, flags, 20);
ABI_AT(abi_if, tx_rings, 24);
ABI_AT(abi_if, bufs_head, 32);
ABI_AT(abi_if, host_tx_rings, 36);
ABI_AT(abi_if, host_rx_rings, 40);
ABI_AT(abi_if, ring_ofs, 56);
ABI_SIZE(abi_header, 88);
ABI_AT(abi_header, name, 8);
ABI_AT(abi_header, options, 72);
ABI_AT(abi_header, body, 80);
ABI_SIZE(abi_register, 56);
ABI_AT(abi_register, tx_slots, 16);
ABI_AT(abi_register, tx_rings, 24);
ABI_AT(abi_register, mem_id, 32);
ABI_AT(abi_register, mode, 36);
ABI_AT(abi_register, extra_bufs, 40);
ABI_AT(abi_register, flags, 48);
ABI_SIZE(abi_port_info, 32);
ABI_SIZE(abi_vale_attach, 64);
ABI_SIZE(abi_vale_detach, 8);
ABI_SIZE(abi_vale_list, 8);
ABI_SIZE(abi_port_hdr, 8);
ABI_SIZE(abi_newif, 16);
ABI_SIZE(abi_polling, 16);
ABI_SIZE(abi_pools_info, 64);
ABI_AT(abi_pools_info, interfaces, 16);
ABI_AT(abi_pools_info, rings, 32);
ABI_AT(abi_pools_info, buffers, 48);
ABI_SIZE(abi_loop_start, 8);
ABI_SIZE(abi_option, 24);
ABI_SIZE(abi_opt_extmem, 96);
ABI_SIZE(abi_opt_csb, 40);
ABI_SIZE(abi_opt_loop_mode, 32);
ABI_SIZE(abi_opt_offsets, 56);
ABI_AT(abi_opt_offsets, bits, 40);
ABI_AT(abi_opt_offsets, min_gap, 48);
ABI_SIZE(abi_atok, 64);
ABI_SIZE(abi_ktoa, 64);
ABI_SIZE(abi_nmreq, 60);
ABI_AT(abi_nmreq, ringid, 40);
ABI_AT(abi_nmreq, arg3, 48);
ABI_AT(abi_nmreq, flags, 52);

#endif
