/* What a thread knows of itself: which worker it is, if any. */
#ifndef RINGWAY_RW_THREAD_H
#define RINGWAY_RW_THREAD_H

#include <stdint.h>
#include "rw_io.h"

struct rw_thread {
  /* Of its worker: unique in the process, never 0; 0 on threads that are no worker. */
  uint32_t token;
  /* A worker's number among its siblings. */
  uint32_t worker_id;
  /* The worker object, borrowed for as long as the thread is the worker. */
  void *_Nullable worker;
  /* The worker's block: what dispatch needs of it. */
  void *_Nullable block;
};

/* Packets of one other worker's pool that this worker has freed and not given back yet. */
struct rw_returns {
  void *_Nullable pool;
  /* Records, linked: first and last. */
  void *_Nullable first;
  void *_Nullable last;
  uint64_t count;
};

extern __thread struct rw_thread rw_this_thread __attribute__((tls_model("initial-exec")));
extern __thread struct rw_returns rw_these_returns __attribute__((tls_model("initial-exec")));

static inline RW_HOT uint32_t rw_thread_token(void) { return rw_this_thread.token; }
static inline RW_HOT uint32_t rw_thread_worker_id(void) { return rw_this_thread.worker_id; }
static inline RW_HOT void *_Nullable rw_thread_worker(void) { return rw_this_thread.worker; }
static inline RW_HOT void *_Nullable rw_thread_block(void) { return rw_this_thread.block; }
static inline RW_HOT struct rw_thread rw_thread_get(void) { return rw_this_thread; }
static inline RW_HOT void rw_thread_set(struct rw_thread thread) { rw_this_thread = thread; }
static inline RW_HOT struct rw_returns *_Nonnull rw_thread_returns(void) { return &rw_these_returns; }

#endif
