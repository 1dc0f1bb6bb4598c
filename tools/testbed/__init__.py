"""The QEMU testbed: boots Debian's kernel with our static binaries and two worlds of NICs.

    host                                   guest (q35, intel-iommu)
    ───────────────                        ─────────────────────────────────────────
    scenario ── Guest ── virtio-serial ──> agent: run, put, get
                  │
                  ├───── QMP ────────────> link down and up, hot unplug
                  └───── pcap of each hub  hub 0: [virtio-net: peer A] ── [e1000e: ours]
                                           hub 1: [virtio-net: peer B] ── [virtio-net: ours]

Ours are bound to vfio-pci; the peers belong to the guest's Linux kernel, each in a network
namespace of its own, so that a packet between them has to pass through our program.

Invariants: nothing needs root on the host; every wait has a bound; QEMU dies with us; all
sockets lie in a temporary folder; hugepages are reserved in the guest only.
"""

from .topology import NIC, Topology
from .guest import CommandFailed, Guest, GuestError, Result

__all__ = ["NIC", "Topology", "Guest", "GuestError", "CommandFailed", "Result"]
