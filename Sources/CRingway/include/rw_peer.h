/* Who is at the other end of a local socket, and what a process may give up. glibc declares most of this for GNU sources only. */
#ifndef RINGWAY_RW_PEER_H
#define RINGWAY_RW_PEER_H

#include <errno.h>
#include <grp.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>

/* struct ucred (unix(7)). */
struct rw_peer {
  int32_t pid;
  uint32_t uid;
  uint32_t gid;
};

static const int RW_SO_PEERCRED = 17;   /* asm-generic/socket.h */
static const int RW_SO_PEERGROUPS = 59; /* asm-generic/socket.h, Linux 4.13 */

static inline int rw_peer_credentials(int fd, struct rw_peer *_Nonnull peer)
{
  socklen_t size = sizeof(*peer);
  return getsockopt(fd, SOL_SOCKET, RW_SO_PEERCRED, peer, &size);
}

/* Supplementary groups: how many, at most `room` of them written; -1 with ERANGE when there are more. */
static inline int rw_peer_groups(int fd, uint32_t *_Nonnull groups, int room)
{
  socklen_t size = (socklen_t)(room * (int)sizeof(*groups));
  if (getsockopt(fd, SOL_SOCKET, RW_SO_PEERGROUPS, groups, &size) != 0) return -1;
  return (int)(size / sizeof(*groups));
}

/* No program that this one starts gains privileges (prctl(2)); for every thread from now on. */
static inline int rw_no_new_privileges(void) { return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }

#endif
