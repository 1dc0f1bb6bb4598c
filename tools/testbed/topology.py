"""What a guest is wired like: a list of NICs, each on a hub and owned by vfio or by a namespace."""

import json
from dataclasses import dataclass, field

# Root ports sit in slots 0x10 and up of bus 0, a NIC alone behind each, so that every NIC has
# an IOMMU group of its own and can be unplugged.
FIRST_SLOT = 0x10


@dataclass(frozen=True)
class NIC:
    """One network card of the guest.

    model  a QEMU device: "e1000e", "igb", "virtio-net-pci", ...
    hub    number of the hub it is wired to (every NIC of a hub hears all the others),
           or None: a card without a cable (its link is up, packets go nowhere)
    owner  "vfio": bound to vfio-pci when the guest is ready;
           "kernel": left to the kernel, unconfigured, in the first namespace;
           any other word: the kernel's, moved into the namespace of that name
    addresses  for a namespace: what `ip address add` gets, e.g. "198.18.0.1/24"
    options    further QEMU properties, e.g. {"iommu_platform": "on"}
    backend    replaces the hub by a netdev of your own, e.g. "tap,ifname=tap0,script=no,downscript=no"
    beside     the id of an earlier NIC: this one is function 1 of the same device, so both share an
               IOMMU group
    socket     the card is a device model at this vfio-user socket (`ringway-model`); `model` then only
               says what it is, and what its cable leads to is the model's business
    """

    id: str
    model: str
    hub: int | None
    owner: str
    mac: str
    addresses: tuple = ()
    options: dict = field(default_factory=dict)
    backend: str | None = None
    beside: str | None = None
    socket: str | None = None

    @property
    def is_vfio(self):
        return self.owner == "vfio"

    @property
    def namespace(self):
        return None if self.owner in ("vfio", "kernel") else self.owner


# QEMU offers 256 receive descriptors unless told otherwise: 64 ms at the rate of the lossless scenarios.
VIRTIO_BEHIND_IOMMU = {"iommu_platform": "on", "disable-legacy": "on", "rx_queue_size": "512"}
PEER_A = NIC("peera", "virtio-net-pci", 0, "A", "52:54:00:18:00:0a", ("198.18.0.1/24", "2001:2::1/64"))
PEER_B = NIC("peerb", "virtio-net-pci", 1, "B", "52:54:00:18:00:0b", ("198.18.0.2/24", "2001:2::2/64"))
E1000E = NIC("e1000e", "e1000e", 0, "vfio", "52:54:00:18:01:01")
VIRTIO = NIC("virtio", "virtio-net-pci", 1, "vfio", "52:54:00:18:01:02", options=VIRTIO_BEHIND_IOMMU)


@dataclass(frozen=True)
class Topology:
    """A guest's cards and its size. `hugepages` counts pages of 2 MiB."""

    nics: tuple = (PEER_A, E1000E, VIRTIO, PEER_B)
    memory_mib: int = 1024
    hugepages: int = 128
    processors: int = 2
    kernel_arguments: str = ""
    # Shell commands run before QEMU in a user and network namespace of their own: taps, bridges.
    host_script: str = ""
    # Another QEMU than the host's: the words that start it.
    qemu: tuple = ()

    @property
    def has_sockets(self):
        return any(nic.socket for nic in self.nics)

    def slot(self, nic):
        """The root port's slot on bus 0."""
        return FIRST_SLOT + self.nics.index(self.nic(nic.beside) if nic.beside else nic)

    def function(self, nic):
        return 1 if nic.beside else 0

    def nic(self, identity):
        for nic in self.nics:
            if nic.id == identity:
                return nic
        raise KeyError(f"no NIC {identity!r} here; there are {', '.join(n.id for n in self.nics)}")

    def device_arguments(self, capture_directory=None):
        """QEMU's arguments for the hubs, root ports and cards; a pcap a hub where asked for."""
        arguments, captured = [], set()
        for index, nic in enumerate(self.nics):
            netdev, port = f"net-{nic.id}", f"port-{nic.id}"
            if nic.socket:
                pass
            elif nic.backend:
                arguments += ["-netdev", nic.backend + f",id={netdev}"]
            elif nic.hub is None:
                arguments += ["-netdev", f"hubport,id={netdev},hubid={1000 + index}"]
            else:
                arguments += ["-netdev", f"hubport,id={netdev},hubid={nic.hub}"]
                if capture_directory and nic.hub not in captured:
                    captured.add(nic.hub)
                    arguments += ["-object", f"filter-dump,id=dump{nic.hub},netdev={netdev},"
                                             f"file={capture_directory}/hub{nic.hub}.pcap"]
            if nic.beside:
                port = f"port-{nic.beside}"
            else:
                arguments += ["-device", f"pcie-root-port,id={port},bus=pcie.0,chassis={index + 1},addr={self.slot(nic):#x}"]
            place = {"bus": port, "addr": f"0.{self.function(nic)}"}
            if any(other.beside == nic.id for other in self.nics):
                place["multifunction"] = "on"
            if nic.socket:
                device = {"driver": "vfio-user-pci", "id": nic.id, **place, "socket": {"type": "unix", "path": nic.socket}}
                arguments += ["-device", json.dumps(device)]
                continue
            properties = {"id": nic.id, "mac": nic.mac, "netdev": netdev, **place, **nic.options}
            arguments += [
                "-device", nic.model + "".join(f",{key}={value}" for key, value in properties.items()),
            ]
        return arguments


DEFAULT = Topology()

# One cable between our two cards, nothing else on it.
CABLE = Topology((
    NIC("e1000e", "e1000e", 0, "vfio", "52:54:00:18:01:01"),
    NIC("virtio", "virtio-net-pci", 0, "vfio", "52:54:00:18:01:02", options=VIRTIO_BEHIND_IOMMU),
))
