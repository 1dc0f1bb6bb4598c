/*
 * CRingway: what Swift cannot say by itself. Volatile access, fences, acquire/release on memory
 * shared with devices and other processes, and the kernel's structures and request numbers that
 * are macros. No logic lives here.
 */
#ifndef RINGWAY_CRINGWAY_H
#define RINGWAY_CRINGWAY_H
#include "rw_client.h"
#include "rw_guard.h"
#include "rw_thread.h"
#include "rw_io.h"
#include "rw_kernel.h"
#include "rw_peer.h"
#include "rw_serve.h"
#endif
