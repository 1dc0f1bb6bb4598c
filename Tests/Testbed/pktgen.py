"""(b) pktgen to pktgen between e1000e and virtio-net: every sequence number is accounted for."""

from testbed import pcap
from testbed.program import last_object, pktgen_rx, pktgen_tx
from testbed.scenario import expect, scenario
from testbed.topology import CABLE


def send_and_account(t, sender, receiver, count, size, rate, lossless):
    before = len(pcap.frames(pcap.hub(t, 0)))
    rx = pktgen_rx(t, receiver, count, seconds=40 if lossless else 25)
    sent = pktgen_tx(t, sender, count, size, rate)
    status = rx.wait(60)
    expect(status == 0, f"the receiver ended with {status}:\n{rx.output()}")
    got = last_object(rx.output())
    wire = len(pcap.frames(pcap.hub(t, 0))) - before
    t.note(f"{sender} to {receiver}, {size} bytes: {got['packets']} of {sent['packets']}")
    expect(sent["packets"] == count, f"the sender says {sent}")
    expect(sent["bytes"] == count * size, f"{count} packets of {size} bytes are not {sent['bytes']} bytes")
    expect(wire >= count, f"{count} packets were sent, QEMU saw {wire}")
    # A frame that QEMU delivers at once passes those that it holds for want of receive buffers, so
    # the order is the sender's only while none are held.
    for name in ("duplicates", "corrupted") + (("reordered",) if lossless else ()):
        expect(got[name] == 0, f"{name} is not 0: {got}")
    expect(got["packets"] + got["lost"] == count, f"{got['packets']} received and {got['lost']} lost do not make {count}")
    if lossless:
        expect(got["lost"] == 0, f"at {rate} a second {got['lost']} packets were lost: {got}")


@scenario(topology=CABLE)
def e1000e_to_virtio(t):
    """20000 packets from the 82574L to virtio-net; none is lost, changed, doubled or out of order."""
    send_and_account(t, "e1000e", "virtio", 20_000, 60, 4000, lossless=True)
    send_and_account(t, "e1000e", "virtio", 3_000, 1514, 1000, lossless=True)


@scenario(topology=CABLE)
def virtio_to_e1000e(t):
    """20000 packets from virtio-net to the 82574L; none is lost, changed, doubled or out of order."""
    send_and_account(t, "virtio", "e1000e", 20_000, 60, 4000, lossless=True)
    send_and_account(t, "virtio", "e1000e", 3_000, 1514, 1000, lossless=True)


@scenario(topology=CABLE)
def as_fast_as_it_goes(t):
    """Without a rate the receiver may lose packets, but it knows how many."""
    send_and_account(t, "e1000e", "virtio", 100_000, 60, None, lossless=False)
    send_and_account(t, "virtio", "e1000e", 100_000, 60, None, lossless=False)


@scenario(topology=CABLE)
def a_gap_is_noticed(t):
    """Packets that the sender leaves out are counted as lost: the account itself can fail."""
    rx = pktgen_rx(t, "virtio", 1000, seconds=8)
    pktgen_tx(t, "e1000e", 400, 60, 2000)
    expect(rx.wait(60) == 0, rx.output())
    got = last_object(rx.output())
    expect(got["packets"] == 400, f"400 packets were sent: {got}")
    expect(got["packets"] + got["lost"] in (400, 1000), f"{got}")


@scenario()
def a_kernel_peer_counts_the_same(t):
    """What pktgen sends, the Linux peer on the hub receives: its own counters say so."""
    def counter(name):
        return int(t.inside("A", f"cat /sys/class/net/peera/statistics/{name}"))

    t.inside("A", "ip link set peera promisc on")
    before = counter("rx_packets")
    pktgen_tx(t, "e1000e", 2000, 200, 2000)
    t.guest.wait_for("ip netns exec A cat /sys/class/net/peera/statistics/rx_packets", lambda out: int(out) - before >= 2000,
                     timeout=10, what="the peer to count 2000 packets")
    expect(counter("rx_packets") - before < 2020, "the peer counts more packets than were sent")
    t.inside("A", "ip link set peera promisc off")
