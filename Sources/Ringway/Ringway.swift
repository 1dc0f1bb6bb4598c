// Ringway: the facade. Ports for programs in the same process, and the loops that the command line
// is made of.
//
//     let ports = try Port.open(["0000:03:00.0", "0000:04:00.0"])       one memory for both
//     var batch = PacketBatch(capacity: 32)
//     ports[0].receive(into: &batch)       packets are move-only handles
//     ports[1].send(&batch)                the same buffers: nothing is copied
//     ports[0].close()
//
//     Port ── DriverTable ── e1000e, virtio-net …         PortLoop: poll, sleep, or both
//      │                                                     └─ PortWork: Forwarder, PacketGenerator,
//      └─ PortMemory (NetmapAllocator), a PacketPool a queue              PacketReceiver, or yours
//
// Invariants
// - A port and everything received by it belong to one thread, or each queue to a thread of its
//   own: pool i belongs to queue i.
// - Nothing is allocated, locked or retained a packet; the driver is called once a batch.
// - A card closes in order, whatever happened to it: the driver stops it (no DMA, buffers back),
//   its memory is unmapped, the function is given back. A card that the kernel wants back is
//   closed as soon as the loop sees the request.
// - A card is open once in a process.
