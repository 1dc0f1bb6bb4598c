/* netmap-hostile: does all that a program must not.
 *
 *   netmap-hostile --seconds N [--seed S] [--cards em0]
 *
 * Children, one after the other, each in one manner: scribbling over everything that it can map (rings, slots, buffers,
 * the sync page, the interface), with syncs in between; filling descriptors and never reading; garbage on the daemon's
 * socket, with descriptors of all kinds; holes punched in the region's file. A child that dies of it is expected: what is
 * shown is that nobody else does. At the end: one line of JSON.
 */
#include "../abi.h"

#include <linux/falloc.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

static uint64_t state;
static uint64_t draw(void) {
	uint64_t z = (state += 0x9e3779b97f4a7c15ull);
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
static uint32_t below(uint32_t limit) { return (uint32_t)(draw() % limit); }

static const char *card_given;

static const char *any_port(void) {
	switch (below(card_given ? 4 : 3)) {
	case 0: return named("valehostile%u:p%u", below(2), below(3));
	case 1: return named("hostile{%u", below(3));
	case 2: return named("hostile}%u", below(3));
	default: return card_given;
	}
}

static bool take(struct port *port) {
	memset(port, 0, sizeof *port);
	port->fd = open("/dev/netmap", O_RDWR);
	if (port->fd < 0) _exit(2);
	if (try_register(port, any_port(), ABI_ALL_NIC, 0) != 0) {
		close(port->fd);
		return false;
	}
	port->size = port->reg.memsize;
	port->memory = mmap(NULL, port->size, PROT_READ | PROT_WRITE, MAP_SHARED, port->fd, 0);
	if (port->memory == MAP_FAILED) _exit(2);
	port->nif = (struct abi_if *)(port->memory + port->reg.offset);
	return true;
}

/* Everything that is mapped, shared and writable: the library's pages as well. */
struct area { uint8_t *start; size_t size; };
static int areas(struct area *found, int most) {
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int count = 0;
	while (maps && fgets(line, sizeof line, maps) && count < most) {
		unsigned long start, end;
		char rights[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, rights) == 3 && !strcmp(rights, "rw-s"))
			found[count++] = (struct area){(uint8_t *)start, end - start};
	}
	if (maps) fclose(maps);
	return count;
}

/* The daemon's own protocol, by hand: what `attach` hands out. */
static int attach_by_hand(int fd, int *descriptors, int most) {
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) return 0;
	uint8_t head[32] = {0x51, 0x4e, 0x57, 0x52, 2};
	union { struct cmsghdr head; char bytes[CMSG_SPACE(sizeof(int))]; } control;
	memset(&control, 0, sizeof control);
	struct iovec piece = {head, 32};
	struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &pair[1], sizeof(int));
	int count = 0;
	if (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) == 32) {
		struct pollfd one = {pair[0], POLLIN, 0};
		static char bytes[65536];
		static union { struct cmsghdr head; char bytes[CMSG_SPACE(64 * sizeof(int))]; } many;
		piece = (struct iovec){bytes, sizeof bytes};
		message = (struct msghdr){.msg_iov = &piece, .msg_iovlen = 1, .msg_control = &many, .msg_controllen = sizeof many};
		if (poll(&one, 1, 1000) == 1 && recvmsg(pair[0], &message, 0) > 0)
			for (struct cmsghdr *at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at))
				if (at->cmsg_type == SCM_RIGHTS)
					for (size_t i = 0; CMSG_LEN(i * sizeof(int)) < at->cmsg_len && count < most; i++)
						memcpy(&descriptors[count++], CMSG_DATA(at) + i * sizeof(int), sizeof(int));
	}
	close(pair[0]);
	close(pair[1]);
	return count;
}

static uint64_t nasty(void) {
	static const uint64_t values[] = {0, 1, 2, 0xff, 0x7fff, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, UINT64_MAX};
	return below(3) ? values[below(12)] : draw();
}

static void scribble(double end) {
	struct port ports[3];
	int count = 0;
	for (int i = 0; i < 3; i++)
		if (take(&ports[count])) count++;
	if (!count) return;
	int extra[64];
	int descriptors = attach_by_hand(ports[0].fd, extra, 64);
	if (descriptors > 1) mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, extra[1], 0); /* the sync page */
	struct area found[32];
	int mapped = areas(found, 32);
	while (now() < end) {
		for (int n = 0; n < 200; n++) {
			switch (below(4)) {
			case 0: { /* anywhere */
				struct area *area = &found[below((uint32_t)mapped)];
				size_t at = (size_t)(draw() % area->size) & ~7ull;
				if (below(2)) *(volatile uint64_t *)(area->start + at) = nasty();
				else *(volatile uint32_t *)(area->start + at) = (uint32_t)nasty();
				break;
			}
			case 1: { /* a page's beginning: where heads of things are */
				struct area *area = &found[below((uint32_t)mapped)];
				size_t at = (size_t)(draw() % area->size) & ~4095ull;
				if (at + 256 <= area->size) *(volatile uint32_t *)(area->start + at + 4 * below(64)) = (uint32_t)nasty();
				break;
			}
			default: { /* rings and slots, where it hurts */
				struct port *port = &ports[below((uint32_t)count)];
				uint64_t at = (uint64_t)port->nif->ring_ofs[below(4)] + port->reg.offset;
				if (at + 65536 > port->size) break;
				struct abi_ring *ring = (struct abi_ring *)(port->memory + at);
				struct abi_slot *slot = &ring->slot[below(256)];
				switch (below(7)) {
				case 0: ring->head = (uint32_t)(below(2) ? below(1100) : nasty()); break;
				case 1: ring->cur = (uint32_t)(below(2) ? below(1100) : nasty()); break;
				case 2: ring->tail = (uint32_t)nasty(); break;
				case 3: slot->buf_idx = below(2) ? below(4000) : (uint32_t)nasty(); slot->flags |= ABI_BUF_CHANGED; break;
				case 4: slot->len = (uint16_t)nasty(); break;
				case 5: slot->flags = (uint16_t)nasty(); break;
				default: slot->ptr = nasty(); break;
				}
			}
			}
		}
		struct port *port = &ports[below((uint32_t)count)];
		switch (below(3)) {
		case 0: ioctl(port->fd, ABI_TXSYNC, NULL); break;
		case 1: ioctl(port->fd, ABI_RXSYNC, NULL); break;
		default: poll_one(port->fd, POLLIN | POLLOUT, 0); break;
		}
	}
}

static void fill_descriptors(double end) {
	struct port port;
	int extra[64], count = 0;
	if (!take(&port)) return;
	count = attach_by_hand(port.fd, extra, 64);
	int flags = fcntl(port.fd, F_GETFL);
	fcntl(port.fd, F_SETFL, flags & ~O_NONBLOCK);
	for (int i = 2; i < count; i++) {
		uint64_t value = UINT64_MAX - 1;
		fcntl(extra[i], F_SETFL, 0); /* blocking */
		if (below(2)) (void)!write(extra[i], &value, 8);
	}
	/* Wakeups are asked for and never taken. */
	if (count > 1) {
		volatile uint32_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, extra[1], 0);
		if (page != MAP_FAILED)
			while (now() < end) {
				page[16] = page[32] = 1;
				for (int ring = 0; ring < 16; ring++) page[512 + 32 * ring] += 1; /* requests of every ring */
				for (int i = 2; i < count; i++) {
					uint64_t one = 1;
					fcntl(extra[i], F_SETFL, O_NONBLOCK);
					(void)!write(extra[i], &one, 8);
					fcntl(extra[i], F_SETFL, 0);
				}
				usleep(100);
			}
	}
	nap(end - now() > 0 ? end - now() : 0);
}

static int connect_by_hand(void) {
	const char *path = getenv("RINGWAY_NETMAP_SOCKET");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (!path) return -1;
	snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0);
	if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static void garbage(double end) {
	int sockets[32];
	for (int i = 0; i < 32; i++) sockets[i] = connect_by_hand();
	static uint8_t bytes[70000];
	while (now() < end) {
		int *fd = &sockets[below(32)];
		if (*fd < 0 || below(50) == 0) {
			if (*fd >= 0) close(*fd);
			*fd = connect_by_hand();
			if (*fd < 0) usleep(1000);
			continue;
		}
		size_t length = below(4) ? below(400) : below(sizeof bytes);
		for (size_t i = 0; i < length && i < 4096; i++) bytes[i] = (uint8_t)draw();
		if (below(4) && length >= 32) {
			/* A head that is nearly right. */
			uint32_t magic = 0x52574e51, size = below(2) ? (uint32_t)length - 32 : (uint32_t)nasty();
			uint16_t kind = (uint16_t)(1 + below(3)), zero = 0;
			uint64_t number = below(2) ? ABI_CTRL : below(2) ? ABI_REGIF : ABI_GINFO;
			memcpy(bytes, &magic, 4), memcpy(bytes + 4, &kind, 2), memcpy(bytes + 6, &zero, 2);
			memcpy(bytes + 8, &number, 8), memcpy(bytes + 16, &size, 4), memset(bytes + 20, 0, 12);
		}
		int give[20], most = (int)below(4) ? (int)below(3) : (int)below(20), opened = 0;
		for (int i = 0; i < most; i++) {
			int pair[2] = {-1, -1};
			switch (below(4)) {
			case 0:
				if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair)) break;
				close(pair[0]); /* nobody will read the answer */
				give[opened++] = pair[1];
				break;
			case 1:
				if (pipe(pair)) break;
				close(pair[0]);
				give[opened++] = pair[1];
				break;
			case 2: if ((give[opened] = open("/dev/null", O_RDWR)) >= 0) opened++; break;
			default: if ((give[opened] = memfd_create("hostile", 0)) >= 0) opened++; break;
			}
		}
		union { struct cmsghdr head; char bytes[CMSG_SPACE(20 * sizeof(int))]; } control;
		memset(&control, 0, sizeof control);
		struct iovec piece = {bytes, length};
		struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
		if (opened) {
			message.msg_control = &control;
			message.msg_controllen = CMSG_SPACE((size_t)opened * sizeof(int));
			struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
			rights->cmsg_level = SOL_SOCKET;
			rights->cmsg_type = SCM_RIGHTS;
			rights->cmsg_len = CMSG_LEN((size_t)opened * sizeof(int));
			memcpy(CMSG_DATA(rights), give, (size_t)opened * sizeof(int));
		}
		if (sendmsg(*fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN) {
			close(*fd);
			*fd = -1;
		}
		for (int i = 0; i < opened; i++) close(give[i]);
	}
}

static void punch(double end) {
	struct port port;
	int extra[64], count = 0;
	if (!take(&port)) return;
	count = attach_by_hand(port.fd, extra, 64);
	while (now() < end) {
		for (int i = 0; i < count && i < 2; i++) {
			off_t size = i ? 4096 : (off_t)port.size, at = (off_t)(draw() % (uint64_t)size) & ~4095;
			switch (below(4)) {
			case 0: (void)!ftruncate(extra[i], at); break;
			case 1: (void)!ftruncate(extra[i], size * 2); break;
			case 2: (void)!fallocate(extra[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, size); break;
			default: (void)!fallocate(extra[i], FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, 65536); break;
			}
		}
		ioctl(port.fd, ABI_TXSYNC, NULL);
		ioctl(port.fd, ABI_RXSYNC, NULL);
		poll_one(port.fd, POLLIN | POLLOUT, 0);
		usleep(500);
	}
}

/* Descriptors by the hundred, registered or not, and dropped at once. */
static void crowd(double end) {
	while (now() < end) {
		int fds[200], count = 0;
		for (; count < 200; count++)
			if ((fds[count] = open("/dev/netmap", O_RDWR)) < 0) break;
		for (int i = 0; i < count; i++) {
			struct port port = {.fd = fds[i]};
			if (below(4) == 0) try_register(&port, any_port(), ABI_ALL_NIC, 0);
		}
		for (int i = 0; i < count; i++) close(fds[i]);
		usleep(1000);
	}
}

int main(int count, char **words) {
	double seconds = 5;
	uint64_t seed = 1;
	const char *only = NULL;
	for (int i = 1; i + 1 < count; i += 2) {
		if (!strcmp(words[i], "--seconds")) seconds = atof(words[i + 1]);
		else if (!strcmp(words[i], "--seed")) seed = strtoull(words[i + 1], NULL, 10);
		else if (!strcmp(words[i], "--cards")) card_given = words[i + 1];
		else if (!strcmp(words[i], "--only")) only = words[i + 1];
		else return 64;
	}
	static const struct { const char *name; void (*run)(double); } manners[] = {
		{"scribble", scribble}, {"fill", fill_descriptors}, {"garbage", garbage}, {"punch", punch}, {"crowd", crowd},
	};
	uint32_t runs = 0, died = 0;
	state = seed;
	for (double end = now() + seconds; now() < end; runs++) {
		uint32_t which = runs % 5;
		uint64_t mine = draw();
		if (only && strcmp(only, manners[which].name)) continue;
		fflush(NULL);
		pid_t pid = fork();
		if (pid == 0) {
			state = mine;
			alarm(10);
			double until = now() + 0.3 + (double)below(700) / 1000;
			manners[which].run(until < end ? until : end);
			_exit(0);
		}
		/* What it did to its own library may keep it forever. */
		int status = 0;
		double limit = now() + 2;
		while (waitpid(pid, &status, WNOHANG) == 0) {
			if (now() > limit) kill(pid, SIGKILL);
			usleep(2000);
		}
		if (WIFSIGNALED(status) || WEXITSTATUS(status)) died++;
	}
	printf("{\"runs\": %u, \"died\": %u}\n", runs, died);
	return 0;
}
