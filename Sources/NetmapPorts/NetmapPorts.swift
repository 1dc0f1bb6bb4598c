// NetmapPorts: netmap's ports, and the one way to register them.
//
//    descriptor ── register ──> NetmapSystem ── which adapter? ──> card (module Attach), switch port, pipe, monitor, null
//        │                           └── which region?  global, private, external (NetmapMemory)
//        v
//    NetmapPort ── krings ──> PortKrings of the adapter: made at the first use, shared, gone with the last holder
//        │  sync, wait                 │ activate, deactivate
//        v                            v
//    NetmapAdapter.synchronise: prologue (head and cur read once, checked) ─ sync ─ epilogue (tail shown)
//
// A program in this process calls `NetmapPort`; for a program behind the daemon's socket a session calls the same.
//
// Who runs where
// - Control (register, close, attach to a switch) runs on worker 0, one at a time; calls from other threads wait for it,
//   calls from other workers are refused.
// - A ring that an adapter ties to a worker (a card's queue) is synced on that worker. All others are synced on the thread
//   that asks: `Kring.begin` lets one in at a time, and what two rings share is the adapter's business.
//
// Invariants
// - Rings exist while somebody holds them. Their buffers belong, in the ledger, to the region's programs; an adapter that
//   trades buffers with its receive rings (a card) holds those of slots that are its own.
// - Whatever a program writes, a ring that is closed leaves the allocator consistent; with the last port of a region
//   everything is back.

internal import NetmapAPI
