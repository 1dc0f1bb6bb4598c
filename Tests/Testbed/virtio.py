"""virtio-net as QEMU offers it in many ways: each combination of features carries packets, or is refused with the remedy."""

from testbed.program import FAILURE, USAGE, last_object
from testbed.scenario import expect, scenario
from testbed.topology import VIRTIO_BEHIND_IOMMU, NIC, Topology

# Each variant is a card on a hub of its own with a plain card, its partner.
VARIANTS = {
    "single": {"mrg_rxbuf": "off"},
    "flags": {"event_idx": "off"},
    "bare": {"mrg_rxbuf": "off", "event_idx": "off", "ctrl_vq": "off", "mac": "52:54:00:18:02:02"},
    "long": {"rx_queue_size": "1024", "tx_queue_size": "256", "packed": "on"},
    "silent": {"vectors": "0"},
    "shared": {"vectors": "1", "indirect_desc": "off"},
    "jumbo": {"host_mtu": "9000"},
}


def card(name, hub, number, options):
    options = {**VIRTIO_BEHIND_IOMMU, **options}
    return NIC(name, "virtio-net-pci", hub, "vfio", f"52:54:00:18:02:{number:02x}", options=options)


NICS = []
for index, (name, options) in enumerate(VARIANTS.items()):
    options = {key: value for key, value in options.items() if key != "mac"}
    NICS.append(card(name, index, 2 * index + 1, options))
    NICS.append(card(f"{name}partner", index, 2 * index + 2, {"host_mtu": "9000"} if name == "jumbo" else {"rx_queue_size": "1024"}))
MANY = Topology(tuple(NICS))


def account(t, sender, receiver, count, size, options=""):
    """Every packet arrives, once and whole."""
    got = last_object(t.ringway(
        f"pktgen pair {{{sender}}} {{{receiver}}} --count {count} --size {size} --rate 2000 --json --buffers 8192 {options}", timeout=60))
    received = got.get("received", got.get("receiver", got))
    for name in ("lost", "duplicates", "corrupted"):
        expect(received[name] == 0, f"{sender} to {receiver}, {size} bytes: {name} is not 0: {got}")
    expect(received["packets"] == count, f"{sender} to {receiver}, {size} bytes: {got}")


def both_ways(t, name, *sizes, options=""):
    for size in sizes:
        account(t, name, f"{name}partner", 1000, size, options)
        account(t, f"{name}partner", name, 1000, size, options)


def says(output, *words):
    for word in words:
        expect(word in output, f"{word!r} is not in:\n{output}")


@scenario(topology=MANY)
def without_mergeable_buffers(t):
    """A buffer a frame."""
    both_ways(t, "single", 60, 1514)


@scenario(topology=MANY)
def without_event_index(t):
    """Interrupts and notifications by flags; also in interrupt mode, which sleeps and wakes."""
    both_ways(t, "flags", 60, 1514)
    both_ways(t, "flags", 60, options="--mode interrupt")


@scenario(topology=MANY)
def with_nothing_optional(t):
    """No mergeable buffers, no event index, no control queue."""
    both_ways(t, "bare", 60, 1514)


@scenario(topology=MANY)
def with_more_offered_than_is_used(t):
    """Packed rings are offered and left alone; the receive ring has 1024 descriptors."""
    both_ways(t, "long", 60, 1514, options="--ring-size 1024")


@scenario(topology=MANY)
def with_too_few_vectors(t):
    """No interrupt at all, and one for everything."""
    both_ways(t, "silent", 60, options="--mode poll")
    both_ways(t, "shared", 60, 1514, options="--mode interrupt")


@scenario(topology=MANY)
def frames_over_several_buffers(t):
    """9014 bytes: five buffers a frame, both ways."""
    both_ways(t, "jumbo", 60, 9014, options="--mtu 9000")
    says(t.ringway("pktgen tx --device {jumbo} --count 1 --mtu 9001", status=USAGE), "mtu cannot be 9001", "68 to 9000")


UNTRANSLATED = Topology((NIC("plain", "virtio-net-pci", 0, "vfio", "52:54:00:18:02:01", options={"disable-legacy": "on"}),), hugepages=64)


@scenario(topology=UNTRANSLATED)
def a_device_that_ignores_the_iommu(t):
    """Refused, with the words that mend it; it could reach memory that is not ours."""
    output = t.ringway("pktgen tx --device {plain} --count 1", status=FAILURE)
    says(output, "ringway: error: ", "VIRTIO_F_ACCESS_PLATFORM", "iommu_platform=on,disable-legacy=on")
