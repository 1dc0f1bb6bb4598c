/* netmap-steady: a program that behaves, for as long as it is told, and tells how it fared.
 *
 *   netmap-steady --seconds N [--from NAME --to NAME]
 *
 * It sends numbered frames from one port to another, at most 64 on their way, waits with poll(2), and checks number and
 * contents of each. At the end: one line of JSON; 0 when nothing was lost, damaged or refused.
 * With --hold it only holds the port until its peer is gone: says "open", then the errno of the first thing that fails.
 */
#include "../abi.h"

int main(int count, char **words) {
	double seconds = 5;
	const char *from = "steady{1", *to = "steady}1", *hold = NULL;
	for (int i = 1; i + 1 < count; i += 2) {
		if (!strcmp(words[i], "--seconds")) seconds = atof(words[i + 1]);
		else if (!strcmp(words[i], "--from")) from = words[i + 1];
		else if (!strcmp(words[i], "--to")) to = words[i + 1];
		else if (!strcmp(words[i], "--hold")) hold = words[i + 1];
		else return 64;
	}
	struct port a, b;
	if (hold) {
		open_port(&a, hold, ABI_ALL_NIC, 0);
		printf("open\n");
		fflush(stdout);
		double limit = now() + seconds;
		/* Asleep in poll while the daemon goes: it is an error that wakes. */
		int got = 0;
		do {
			/* What comes from the wire meanwhile is given back. */
			struct abi_ring *rx = first_rx(&a);
			rx->head = rx->cur = rx->tail;
			got = poll_one(a.fd, POLLIN, (int)(seconds * 1000));
		} while (got && !(got & POLLERR) && now() < limit);
		const char *sync = txsync(&a) == 0 ? "0" : strerrorname_np(errno);
		printf("poll %s, sync %s\n", got & POLLERR ? "POLLERR" : got == 0 ? "nothing" : "something", sync);
		fflush(stdout);
		close_port(&a);
		/* And again, with whoever answers now. */
		while (now() < limit) {
			struct port again = {.fd = open("/dev/netmap", O_RDWR)};
			if (again.fd >= 0) {
				int error = try_register(&again, hold, ABI_ALL_NIC, 0);
				if (error == 0) {
					map_port(&again);
					CHECK_OK(txsync(&again));
					printf("open again\n");
					return 0;
				}
				close(again.fd);
			}
			nap(0.05);
		}
		printf("not open again\n");
		return 1;
	}
	open_port(&a, from, ABI_ALL_NIC, 0);
	open_port(&b, to, ABI_ALL_NIC, 0);
	struct abi_ring *tx = first_tx(&a), *rx = first_rx(&b);
	static double sent_at[64];
	double longest = 0, end = now() + seconds, sum = 0;
	uint32_t sent = 0, came = 0, damaged = 0, lost = 0, errors = 0;
	while (now() < end || came < sent) {
		while (now() < end && sent - came < 64 && tx->head != tx->tail) {
			sent_at[sent % 64] = now();
			put_frame(tx, 64 + sent % 1400, broadcast, host_mac(1), sent);
			sent++;
		}
		if (txsync(&a) != 0) errors++;
		int got = poll_one(b.fd, POLLIN, 5000);
		if (got != POLLIN) {
			if (got == 0) lost = sent - came;
			else errors++;
			break;
		}
		for (; rx->head != rx->tail; rx->head = rx->cur = next_slot(rx, rx->head)) {
			struct abi_slot *slot = &rx->slot[rx->head];
			const uint8_t *bytes = buffer(rx, slot->buf_idx);
			if (slot->len < 20 || frame_seed(bytes) != came || slot->len != 64 + came % 1400) {
				lost++;
				if (slot->len >= 20) came = frame_seed(bytes);
			}
			if (check_frame(bytes, slot->len, came)) damaged++;
			double took = now() - sent_at[came % 64];
			sum += took;
			if (took > longest) longest = took;
			came++;
		}
	}
	printf("{\"sent\": %u, \"came\": %u, \"lost\": %u, \"damaged\": %u, \"errors\": %u, \"longest_ms\": %.3f, \"mean_ms\": %.4f}\n", sent,
		came, lost, damaged, errors, longest * 1e3, came ? sum * 1e3 / came : 0.0);
	return lost || damaged || errors || !came;
}
