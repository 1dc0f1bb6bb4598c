// VFIO: a PCI function held by user space.
//
//     driver ──> PCIFunction + DMAMapper           (what it sees: nothing of this module)
//                     │
//               VFIOFunction      configuration space, power, BARs, MSI-X, events, closing
//                ┌────┴─────┐
//          VFIOChannel   DMAContext
//          the device    its IOMMU domain
//                │          │
//                │          │
//     kernel VFIO:  KernelChannel   CardMappings
//                │          │
//                │      SharedGroup           /dev/vfio/GROUP and its VFIOContainer (type 1)
//                └────┬─────┘
//                VFIOSystem                    the system calls; tests put a false kernel here
//
//     vfio-user:    UserChannel     UserMappings
//                └────┬─────┘
//               UserConnection                 requests, answers, deadlines
//                UserSocket                    bytes and descriptors
//
// The structures of linux/vfio.h are also the messages of vfio-user (QEMU, docs/interop/vfio-user),
// so what a device says of itself is parsed and checked once, wherever it comes from. An iommufd
// hands out the same kind of device descriptor: it comes in as a further context.
//
// Invariants
// - One container a group, and that is one a card wherever the hardware keeps cards apart: a region
//   is mapped only for the cards that use it.
// - Closing goes one way, whatever state the card is in: bus mastering off, interrupts off, memory
//   unmapped, reset, registers taken away, descriptors closed. Twice is as good as once, and a
//   function that is dropped is closed.
// - Registers that have been handed out stay readable for ever: once the card is gone or closed
//   they answer all ones (FaultGuard, in Platform).
// - What the kernel (or a vfio-user server) answers is bounded and checked before it is believed.
// - A server that dies, is silent for too long or breaks the protocol is a card that was pulled out:
//   all ones, ENODEV, and `takeEvents` says that it wants to go.
