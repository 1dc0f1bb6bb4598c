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
};

extern __thread struct rw_thread rw_this_thread __attribute__((tls_model("initial-exec")));

static inline RW_HOT uint32_t rw_thread_token(void) { return rw_this_thread.token; }
static inline RW_HOT uint32_t rw_thread_worker_id(void) { return rw_this_thread.worker_id; }
static inline RW_HOT void *_Nullable rw_thread_worker(void) { return rw_this_thread.worker; }
static inline RW_HOT void rw_thread_set(uint32_t token, uint32_t worker_id, void *_Nullable worker)
{
  rw_this_thread.token = token;
  rw_this_thread.worker_id = worker_id;
  rw_this_thread.worker = worker;
}

#endif
