/* netmap-churn: programs that are killed in the middle of everything.
 *
 *   netmap-churn --cycles N [--seed S] [--parallel P] [--cards em0,em1]
 *
 * Each cycle is a child that opens descriptors, registers ports (of switches, pipes, cards, monitors; with private memory
 * and extra buffers), moves packets, and is killed with SIGKILL after a random time of at most 100 ms. The parent holds
 * nothing of netmap's. At the end: one line of JSON. Which child does what, and when it is to die, follows from the seed.
 */
#include "../abi.h"

#include <sys/wait.h>

static uint64_t state;
static uint64_t draw(void) {
	uint64_t z = (state += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
static uint32_t below(uint32_t limit) { return (uint32_t)(draw() % limit); }

/* What children tell, in memory that they share with the parent. */
struct told {
	uint64_t registered, refused, packets, closed;
	uint32_t holding[64];
};
static struct told *told;
static const char *cards_given[2];
static int card_count;

/* A name from a small set: programs meet. */
static const char *any_name(uint32_t *mode, uint64_t *flags) {
	*mode = ABI_ALL_NIC;
	*flags = 0;
	switch (below(card_count ? 8 : 6)) {
	case 0: case 1: return named("valechurn%u:p%u", below(2), below(5));
	case 2: return named("churn%u{%u", below(2), below(3));
	case 3: return named("churn%u}%u", below(2), below(3));
	case 4:
		*flags = below(2) ? ABI_MONITOR_TX | ABI_MONITOR_RX : ABI_MONITOR_RX | ABI_ZCOPY_MON;
		return below(2) ? named("valechurn%u:p%u", below(2), below(5)) : named("churn%u{%u", below(2), below(3));
	case 5:
		*mode = ABI_NULL;
		return named("valechurn%u:n%u", below(2), below(3));
	default: {
		static const uint32_t modes[] = {ABI_ALL_NIC, ABI_ALL_NIC, ABI_SW, ABI_NIC_SW, ABI_ONE_NIC};
		*mode = modes[below(5)];
		return cards_given[below((uint32_t)card_count)];
	}
	}
}

static void move(struct port *port) {
	if (port->nif == NULL) return;
	for (unsigned i = 0; i < port->nif->tx_rings + port->nif->host_tx_rings; i++) {
		struct abi_ring *tx = tx_ring(port, i);
		for (uint32_t n = below(40); tx && n && tx->head != tx->tail; n--) {
			put_frame(tx, 60 + below(1400), below(2) ? broadcast : host_mac((int)below(6)), host_mac((int)below(6)), (uint32_t)draw());
			told->packets++;
		}
	}
	switch (below(4)) {
	case 0: txsync(port); break;
	case 1: rxsync(port); break;
	default: poll_one(port->fd, (int)below(2) ? POLLIN : POLLIN | POLLOUT, (int)below(3)); break;
	}
	for (unsigned i = 0; i < port->nif->rx_rings + port->nif->host_rx_rings; i++) {
		struct abi_ring *rx = rx_ring(port, i);
		if (rx && below(4)) rx->head = rx->cur = rx->tail;
	}
}

static bool take(struct port *port) {
	uint32_t mode;
	uint64_t flags;
	const char *name = any_name(&mode, &flags);
	memset(port, 0, sizeof *port);
	port->fd = device();
	port->reg = (struct abi_register){.mode = mode, .flags = flags | (below(6) ? 0 : ABI_EXCLUSIVE), .extra_bufs = below(4) ? 0 : below(100)};
	if (mode == ABI_NULL) port->reg.mem_id = 1;
	if (request(port->fd, ABI_REGISTER, name, &port->reg) != 0) {
		static const int expected[] = {EBUSY, EINVAL, ENOMEM, ENXIO};
		bool fine = false;
		for (int i = 0; i < 4; i++) fine = fine || errno == expected[i];
		if (!fine) FAIL("%s: %s", name, strerrorname_np(errno));
		__atomic_add_fetch(&told->refused, 1, __ATOMIC_RELAXED);
		close(port->fd);
		port->fd = -1;
		return false;
	}
	__atomic_add_fetch(&told->registered, 1, __ATOMIC_RELAXED);
	map_port(port);
	/* Extra buffers into slots, so that not everybody has what he had. */
	if (port->nif->bufs_head && below(2)) {
		for (unsigned i = 0; i < port->nif->tx_rings; i++) {
			struct abi_ring *tx = tx_ring(port, i);
			if (!tx) continue;
			struct abi_slot *slot = &tx->slot[tx->head];
			uint32_t taken = port->nif->bufs_head, index = slot->buf_idx;
			memcpy(&port->nif->bufs_head, buffer(tx, taken), 4);
			slot->buf_idx = taken;
			slot->flags = ABI_BUF_CHANGED;
			memcpy(buffer(tx, index), &port->nif->bufs_head, 4);
			port->nif->bufs_head = index;
			break;
		}
	}
	return true;
}

static void live(uint32_t place, uint64_t seed) {
	struct port ports[4];
	bool open[4] = {false};
	state = seed;
	alarm(20);
	for (;;) {
		uint32_t i = below(4);
		if (!open[i]) {
			open[i] = take(&ports[i]);
			if (open[i]) __atomic_add_fetch(&told->holding[place], 1, __ATOMIC_RELAXED);
		} else if (below(30) == 0) {
			close_port(&ports[i]);
			open[i] = false;
			__atomic_add_fetch(&told->closed, 1, __ATOMIC_RELAXED);
			__atomic_sub_fetch(&told->holding[place], 1, __ATOMIC_RELAXED);
		} else move(&ports[i]);
	}
}

int main(int count, char **words) {
	uint32_t cycles = 1000, parallel = 6;
	uint64_t seed = 1;
	for (int i = 1; i + 1 < count; i += 2) {
		if (!strcmp(words[i], "--cycles")) cycles = (uint32_t)atoi(words[i + 1]);
		else if (!strcmp(words[i], "--seed")) seed = strtoull(words[i + 1], NULL, 10);
		else if (!strcmp(words[i], "--parallel")) parallel = (uint32_t)atoi(words[i + 1]);
		else if (!strcmp(words[i], "--cards")) {
			for (char *name = strtok(words[i + 1], ","); name && card_count < 2; name = strtok(NULL, ",")) cards_given[card_count++] = name;
		} else return 64;
	}
	if (parallel < 1 || parallel > 64) return 64;
	told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct { pid_t pid; double end; } running[64] = {{0}};
	uint32_t started = 0, killed = 0, holding = 0, odd = 0;
	/* Lives last up to so many microseconds: more where few get as far as to hold a port, on a busy machine. */
	uint32_t longest = 100000, recent = 0;
	state = seed;
	double begin = now();
	while (killed + odd < cycles) {
		double time = now();
		for (uint32_t place = 0; place < parallel; place++) {
			if (!running[place].pid && started < cycles) {
				uint64_t mine = draw();
				double life = (double)below(longest) / 1e6;
				started++;
				told->holding[place] = 0;
				fflush(NULL);
				pid_t pid = fork();
				if (pid == 0) live(place, mine);
				running[place].pid = pid;
				running[place].end = time + life;
			} else if (running[place].pid && time >= running[place].end) {
				int status = 0;
				kill(running[place].pid, SIGKILL);
				while (waitpid(running[place].pid, &status, 0) < 0 && errno == EINTR) {}
				running[place].pid = 0;
				if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) killed++;
				else {
					odd++;
					fprintf(stderr, "a child ended by itself: %s %d\n", WIFSIGNALED(status) ? "signal" : "exit",
						WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
				}
				holding += told->holding[place] != 0;
				recent += told->holding[place] != 0;
				if ((killed + odd) % 16 == 0) {
					if (recent < 4 && longest < 2000000) longest += longest / 2;
					recent = 0;
				}
			}
		}
		usleep(200);
	}
	printf("{\"cycles\": %u, \"killed\": %u, \"holding\": %u, \"odd\": %u, \"registered\": %llu, \"refused\": %llu, \"closed\": %llu, "
	       "\"packets\": %llu, \"seconds\": %.1f}\n", started, killed, holding, odd, (unsigned long long)told->registered,
		(unsigned long long)told->refused, (unsigned long long)told->closed, (unsigned long long)told->packets, now() - begin);
	return odd != 0;
}
