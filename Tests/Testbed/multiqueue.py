"""virtio-net with several queues, on a multi-queue tap: the hubs of the other scenarios have one queue.

QEMU runs in a user and network namespace; two taps and a Linux bridge there are the cable. The
taps also offer checksum and segmentation offloads, so that frames reach our driver as they never
do over a hub.
"""

import json

from testbed.program import bridge, objects, stop
from testbed.scenario import expect, scenario
from testbed.topology import E1000E, PEER_A, PEER_B, VIRTIO, Topology
from testbed.traffic import ping, transfer
from dataclasses import replace

QUEUES = 4
CABLE = """
ip tuntap add tap0 mode tap multi_queue vnet_hdr
ip tuntap add tap1 mode tap vnet_hdr
ip link add br0 type bridge forward_delay 0
for tap in tap0 tap1; do
    ip link set $tap addrgenmode none master br0 up
done
ip link set br0 addrgenmode none up
"""
TAP = "tap,script=no,downscript=no,vhost=off,ifname="
MULTIQUEUE = Topology((
    replace(PEER_A, hub=None, backend=TAP + "tap1"),
    replace(VIRTIO, hub=None, backend=TAP + f"tap0,queues={QUEUES}", options={**VIRTIO.options, "mq": "on", "vectors": str(2 * QUEUES + 2)}),
    replace(E1000E, hub=1),
    PEER_B,
), host_script=CABLE)


@scenario(topology=MULTIQUEUE)
def the_kernel_uses_every_queue(t):
    """The cable itself: Linux's own driver finds four queue pairs and reaches the peer."""
    t.guest.bind_kernel("virtio")
    device = t.guest.check(t.expand("nic netdev {virtio}")).strip()
    channels = t.guest.check(f"ethtool -l {device} | grep Combined").split()
    expect(channels == ["Combined:", str(QUEUES), "Combined:", "2"], f"of {QUEUES} queues two are used by two processors: {channels}")
    t.guest.check(f"ip address add 198.18.0.9/24 dev {device}; ip link set {device} up")
    t.guest.wait_for("ip netns exec A ping -c 1 -W 1 198.18.0.9 >/dev/null && echo reached", lambda out: "reached" in out)
    t.guest.check(f"ip address flush dev {device}")


@scenario(topology=MULTIQUEUE)
def a_bridge_with_two_queues(t):
    """Bridge with two queue pairs on each card: pings and files pass whole, both ways, several flows at once."""
    program = bridge(t, "--queues 2")
    ping(t, "A", "198.18.0.2", count=20)
    ping(t, "B", "2001:2::1", size=1400, count=20)
    for number in range(4):
        transfer(t, "A", "B", "198.18.0.2", 400_000 + number, 7200 + number)
        transfer(t, "B", "A", "2001:2::1", 400_000 + number, 7300 + number)
    stop(program)


@scenario(topology=MULTIQUEUE)
def many_flows_reach_several_queues(t):
    """Packets of many flows arrive on more than one receive queue, and the sum is right."""
    program = t.start("stats --device {virtio} --queues 4 --watch --json", ready="statistics")
    # A tap spreads by a hash of the addresses; 60 of them hit one queue of four only by a miracle.
    t.inside("A", f"for last in $(seq 100 159); do ip neigh replace 198.18.0.$last lladdr {VIRTIO.mac} dev peera nud permanent; "
             "ping -c 2 -W 1 198.18.0.$last >/dev/null & done; wait", timeout=60)
    t.guest.check("sleep 2")
    stop(program)
    counters = objects(program.output())[-1]["statistics"]
    used = {name: value for name, value in counters.items() if "queue" in name and "rx" in name and "packets" in name and value}
    expect(sum(used.values()) >= 120, f"120 packets were sent: {used}")
    expect(len(used) >= 2, f"packets arrived on these queues only: {used}\nof: {json.dumps(counters)}")
