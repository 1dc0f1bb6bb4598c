/* Between the files of this folder. */
#ifndef RINGWAY_PRELOAD_H
#define RINGWAY_PRELOAD_H
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>

/* Not 0 once there was a netmap descriptor: until then every wrapper only forwards. */
extern unsigned rwp_active;
static inline int rwp_is_active(void) { return __atomic_load_n(&rwp_active, __ATOMIC_ACQUIRE) != 0; }

int rwp_is_own(int fd);
int rwp_is_set(int epoll);
void rwp_set_closed(int epoll);
int rwp_watch_change(int epoll, int operation, int fd, const struct epoll_event *event);
void rwp_copied(int from, int to);

/* The function of this name behind ours, found at the first call: constructors of other libraries may come before us. */
void *rwp_real(void **slot, const char *name);
#define RWP_EXPORT __attribute__((visibility("default")))
#endif
