/* The six ways to wait, as one. */
#ifndef WAYS_H
#define WAYS_H

#include "../abi.h"

enum way { BY_POLL, BY_PPOLL, BY_SELECT, BY_PSELECT, BY_EPOLL, BY_EPOLL_PWAIT, WAYS };
extern const char *const way_names[];

/* Waits for `events` on `fd` and, when `other` is not -1, for POLLIN on that. Returns what poll would say of `fd`, -1 on errors. */
int wait_for(enum way way, int fd, int events, int other, int *other_events, int milliseconds);

/* A thread that sends a frame, or a byte into a pipe, after a while. */
struct later { struct port *port; double seconds; uint32_t seed; int pipe; };

void *send_later(void *later);

#endif
