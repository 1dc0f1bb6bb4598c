"""QEMU's 82576: a third party's judgement of advanced descriptors, receive-side scaling and many queues.

    hub 0:  peera (kernel virtio-net, namespace A) ── igb (vfio-pci)
    hub 1:  igb2 (vfio-pci) ── e1000e (vfio-pci) ── peerb (Linux's own igb driver, namespace B)

The card came with QEMU 8.0; Debian 12 has it in its backports (tools/testbed/backport.py).
"""

import signal

from testbed import backport, pcap
from testbed.program import MISSING, complaint, last_object, link_changes, objects, pktgen_rx, pktgen_tx, stop
from testbed.scenario import expect, scenario
from testbed.topology import NIC, Topology
from testbed.traffic import ping, transfer

CARDS = Topology((
    NIC("peera", "virtio-net-pci", 0, "A", "52:54:00:18:00:0a", ("198.18.0.1/24", "2001:2::1/64")),
    NIC("igb", "igb", 0, "vfio", "52:54:00:18:03:01"),
    NIC("igb2", "igb", 1, "vfio", "52:54:00:18:03:02"),
    NIC("e1000e", "e1000e", 1, "vfio", "52:54:00:18:01:01"),
    NIC("peerb", "igb", 1, "B", "52:54:00:18:00:0b", ("198.18.0.2/24", "2001:2::2/64")),
), qemu=backport.command())


def bridge(t, other="igb2", options=""):
    program = t.start(f"bridge {{igb}} {{{other}}} {options}", ready="forwarding")
    # Linux's own card may still negotiate its link.
    t.guest.wait_for("cat /sys/class/net/peerb/carrier 2>/dev/null || ip netns exec B cat /sys/class/net/peerb/carrier",
                     lambda out: out.strip() == "1", timeout=15, what="the link of peer B")
    return program


@scenario(topology=CARDS)
def pings_and_files_between_igb_and_e1000e(t):
    """Pings of many sizes and files, both ways, through a bridge of the 82576 and the 82574L."""
    program = bridge(t, "e1000e")
    for size in (18, 1472, 16000):
        ping(t, "A", "198.18.0.2", size=size)
        ping(t, "B", "2001:2::1", size=size)
    transfer(t, "A", "B", "198.18.0.2", 1_000_003, 7500)
    transfer(t, "B", "A", "2001:2::1", 1_000_003, 7501)
    for identity in ("igb", "e1000e"):
        expect(link_changes(program, t.guest.address(identity))[-1:] == ["up"], f"no link reported for {identity}:\n{program.output()}")
    stop(program)


@scenario(topology=CARDS)
def files_on_several_queues(t):
    """Two 82576 with four queues each: several flows at once, each byte right; the peer is Linux's igb driver."""
    program = bridge(t, options="--queues 4")
    ping(t, "A", "198.18.0.2", count=20)
    for number in range(2):
        transfer(t, "A", "B", "198.18.0.2", 400_000 + number, 7510 + number)
        transfer(t, "B", "A", "2001:2::1", 400_000 + number, 7520 + number)
    stop(program, signal.SIGTERM)


@scenario(topology=CARDS)
def flows_spread_over_queues(t):
    """Pings between 60 pairs of addresses reach several of eight queues; each queue's counters add up."""
    program = t.start("stats --device {igb} --queues 8 --watch --json", ready="statistics")
    t.inside("A", "for last in $(seq 100 159); do ip neigh replace 198.18.0.$last lladdr 52:54:00:18:03:01 dev peera nud permanent; "
             "ping -c 2 -W 1 198.18.0.$last >/dev/null & done; wait", timeout=60)
    t.guest.check("sleep 2")
    stop(program)
    counters = objects(program.output())[-1]["statistics"]
    used = {name: value for name, value in counters.items() if name.startswith("rx_queue") and name.endswith("_packets") and value}
    expect(sum(used.values()) >= 120, f"120 packets were sent: {used}")
    expect(len(used) >= 4, f"60 flows arrived on these queues only: {used}")
    t.note(f"{len(used)} of 8 queues")


def account(t, sender, receiver, count, size, rate, options=""):
    """Every packet arrives, once, whole and in order; the sum is right."""
    result = last_object(t.ringway(
        f"pktgen pair {{{sender}}} {{{receiver}}} --count {count} --size {size} --rate {rate} --json {options}", timeout=90))
    got = result["received"]
    expect(result["sent"]["packets"] == got["packets"] == count, f"{sender} to {receiver} {options}: {result}")
    expect(got["bytes"] == count * size, f"{got}")
    for name in ("lost", "duplicates", "reordered", "corrupted"):
        expect(got[name] == 0, f"{sender} to {receiver} {options}: {name} is not 0: {got}")


@scenario(topology=CARDS)
def pktgen_accounts_for_every_packet(t):
    """Between the 82576 and the 82574L, both ways, in every mode: each sequence number once and in order."""
    for sender, receiver in (("igb2", "e1000e"), ("e1000e", "igb2")):
        account(t, sender, receiver, 4000, 60, 4000)
        account(t, sender, receiver, 1000, 1514, 2000, "--mode interrupt --ring-size 128")
        account(t, sender, receiver, 100, 9014, 400, "--mtu 9000 --mode poll")


@scenario(topology=CARDS)
def vlan_tags_survive(t):
    """Tagged frames pass unchanged, as QEMU's record of both hubs says."""
    program = bridge(t, options="--queues 2")
    t.guest.check("modprobe 8021q")
    for name, last in (("A", 1), ("B", 2)):
        device = f"peer{name.lower()}"
        t.guest.check(f"""set -e
            ip -n {name} link add link {device} name {device}.42 type vlan id 42
            ip -n {name} address add 198.18.42.{last}/24 dev {device}.42
            ip -n {name} link set {device}.42 up""")
    before = len(pcap.frames(pcap.hub(t, 1)))
    try:
        ping(t, "A", "198.18.42.2", size=1000)
        ping(t, "B", "198.18.42.1", size=1472)
    finally:
        t.guest.run("ip -n A link delete peera.42; ip -n B link delete peerb.42")
    tagged = [f for f in pcap.frames(pcap.hub(t, 1), before) if f[12:16] == b"\x81\x00\x00\x2a"]
    expect(len(tagged) >= 20, f"only {len(tagged)} tagged frames were on the wire")
    stop(program)


@scenario(topology=CARDS)
def jumbo_frames_pass(t):
    """Frames of 9000 bytes between a virtio-net peer and Linux's igb driver, unfragmented."""
    for name in ("A", "B"):
        t.guest.check(f"ip -n {name} link set peer{name.lower()} mtu 9000")
    try:
        program = bridge(t, options="--mtu 9000")
        before = len(pcap.frames(pcap.hub(t, 1)))
        for size in (1500, 4000, 8972):
            ping(t, "A", "198.18.0.2", size=size)
            ping(t, "B", "198.18.0.1", size=size)
        longest = max(len(frame) for frame in pcap.frames(pcap.hub(t, 1), before))
        expect(longest == 9014, f"the longest frame on the wire had {longest} bytes: this scenario shows nothing")
        stop(program)
    finally:
        for name in ("A", "B"):
            t.guest.run(f"ip -n {name} link set peer{name.lower()} mtu 1500")


@scenario(topology=CARDS)
def links_go_down_and_up(t):
    """Six changes of a link are reported, and traffic passes afterwards."""
    program = bridge(t)
    address = t.guest.address("igb2")
    first = link_changes(program, address)
    for turn in range(3):
        for up in (False, True):
            t.guest.set_link("igb2", up)
            wanted = len(first) + 2 * turn + (2 if up else 1)
            t.guest.wait_for(f"grep -c '^{address}.* link ' {program.log}", lambda out: int(out) >= wanted, timeout=10,
                             interval=0.02, what=f"change {2 * turn + up + 1} to be reported")
    expect(link_changes(program, address) == first + ["down", "up"] * 3, f"{link_changes(program, address)}")
    ping(t, "A", "198.18.0.2", count=10)
    stop(program)


@scenario(topology=CARDS)
def a_killed_bridge_leaves_nothing(t):
    """kill -9 in mid-traffic, twice: hugepages return, the next start forwards; then Linux's driver takes the card and gives it back."""
    free = t.guest.hugepages_free()
    for _ in range(2):
        program = bridge(t, options="--queues 2")
        ping(t, "A", "198.18.0.2", count=3)
        load = t.background("A", "exec ping -A -q -w 60 -s 1400 198.18.0.2")
        t.guest.check("usleep 500000")
        program.kill(signal.SIGKILL)
        expect(program.wait(15) == 128 + signal.SIGKILL, f"it ended otherwise:\n{program.output()}")
        t.guest.wait_for("awk '/HugePages_Free/ {print $2}' /proc/meminfo", lambda out: out.strip() == str(free), timeout=10,
                         what=f"{free} hugepages to be free again")
        load.stop(signal.SIGKILL)
    t.guest.bind_kernel("igb")
    expect(t.guest.driver("igb") == "igb", f"Linux's driver does not take the card: {t.guest.driver('igb')}")
    t.guest.bind_vfio("igb")
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=5)
    stop(program)


@scenario(topology=CARDS)
def as_fast_as_it_goes(t):
    """Without a rate the receiver may lose packets, but it knows how many."""
    rx = pktgen_rx(t, "e1000e", 30_000, seconds=12)
    sent = pktgen_tx(t, "igb2", 30_000)
    expect(rx.wait(60) == 0, rx.output())
    got = last_object(rx.output())
    expect(sent["packets"] == 30_000 and got["packets"] + got["lost"] == 30_000, f"{sent} {got}")
    expect(got["duplicates"] == 0 and got["corrupted"] == 0, f"{got}")
    t.note(f"{got['packets']} of 30000")


@scenario(topology=CARDS, isolated=True)
def unplugged_under_a_bridge(t):
    """The 82576 goes while the bridge forwards: a typed error, exit 69, the other card is as good as before."""
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=3)
    load = t.background("A", "exec ping -A -q -w 60 -s 1000 198.18.0.2")
    t.guest.check("sleep 1")
    t.guest.unplug("igb")
    expect(program.wait(30) == MISSING, f"the bridge ended otherwise:\n{program.output()}")
    complaint(program.output(), t.guest.address("igb"))
    t.guest.wait_for(f"ls -d /sys/bus/pci/devices/{t.guest.address('igb')} 2>/dev/null", lambda out: not out.strip(), timeout=20,
                     what="the card to leave the guest")
    load.stop(signal.SIGKILL)
    expect(pktgen_tx(t, "igb2", 500, 100, 2000)["packets"] == 500, "igb2 does not send any more")
