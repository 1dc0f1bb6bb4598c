/* One call for select, pselect, poll, ppoll, epoll_wait and epoll_pwait. */
#include "ways.h"

#include <sys/epoll.h>
#include <sys/select.h>

const char *const way_names[] = {"poll", "ppoll", "select", "pselect", "epoll_wait", "epoll_pwait"};

int wait_for(enum way way, int fd, int events, int other, int *other_events, int milliseconds) {
	struct timespec spec = {milliseconds / 1000, milliseconds % 1000 * 1000000l};
	struct timeval val = {milliseconds / 1000, milliseconds % 1000 * 1000l};
	int count, got = 0;
	if (other_events) *other_events = 0;
	if (way == BY_POLL || way == BY_PPOLL) {
		struct pollfd set[2] = {{fd, (short)events, 0}, {other, POLLIN, 0}};
		nfds_t size = other >= 0 ? 2 : 1;
		count = way == BY_POLL ? poll(set, size, milliseconds) : ppoll(set, size, milliseconds < 0 ? NULL : &spec, NULL);
		if (count < 0) return -1;
		int lit = (set[0].revents != 0) + (size == 2 && set[1].revents != 0);
		CHECK_EQ(count, lit);
		got = set[0].revents;
		if (other_events) *other_events = set[1].revents;
	} else if (way == BY_SELECT || way == BY_PSELECT) {
		fd_set in, out;
		FD_ZERO(&in);
		FD_ZERO(&out);
		if (events & POLLIN) FD_SET(fd, &in);
		if (events & POLLOUT) FD_SET(fd, &out);
		if (other >= 0) FD_SET(other, &in);
		int limit = (fd > other ? fd : other) + 1;
		count = way == BY_SELECT ? select(limit, &in, &out, NULL, milliseconds < 0 ? NULL : &val)
		                         : pselect(limit, &in, &out, NULL, milliseconds < 0 ? NULL : &spec, NULL);
		if (count < 0) return -1;
		if (FD_ISSET(fd, &in)) got |= POLLIN;
		if (FD_ISSET(fd, &out)) got |= POLLOUT;
		if (other >= 0 && other_events && FD_ISSET(other, &in)) *other_events = POLLIN;
		CHECK_EQ(count, !!(got & POLLIN) + !!(got & POLLOUT) + (other >= 0 && FD_ISSET(other, &in)));
	} else {
		int set = epoll_create1(EPOLL_CLOEXEC);
		CHECK_OK(set);
		struct epoll_event want = {.events = (uint32_t)events, .data.fd = fd}, found[4];
		CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &want));
		if (other >= 0) {
			want = (struct epoll_event){.events = EPOLLIN, .data.fd = other};
			CHECK_OK(epoll_ctl(set, EPOLL_CTL_ADD, other, &want));
		}
		count = way == BY_EPOLL ? epoll_wait(set, found, 4, milliseconds) : epoll_pwait(set, found, 4, milliseconds, NULL);
		int error = errno;
		close(set);
		errno = error;
		if (count < 0) return -1;
		for (int i = 0; i < count; i++) {
			if (found[i].data.fd == fd) got = (int)found[i].events;
			else if (found[i].data.fd == other && other_events) *other_events = (int)found[i].events;
			else FAIL("%s told of descriptor %d", way_names[way], found[i].data.fd);
		}
	}
	return got;
}

void *send_later(void *argument) {
	struct later *later = argument;
	nap(later->seconds);
	if (later->port) send_frame(later->port, 60, broadcast, host_mac(1), later->seed);
	else if (write(later->pipe, "x", 1) != 1) FAIL("write to a pipe");
	return NULL;
}
