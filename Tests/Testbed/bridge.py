"""(a) Linux peers ping each other and move files through `ringway bridge`, byte for byte right."""

import signal
import time

from testbed import pcap
from testbed.program import bridge, link_changes, stop
from testbed.scenario import expect, scenario
from testbed.traffic import ping, transfer

TARGETS = {"A": ("198.18.0.1", "2001:2::1"), "B": ("198.18.0.2", "2001:2::2")}


@scenario()
def peers_ping(t):
    """IPv4 and IPv6 pings of many sizes, both ways, fragments included; none is lost."""
    program = bridge(t)
    for size in (0, 1, 18, 56, 1000, 1452, 1472, 4000, 16000):
        ping(t, "A", "198.18.0.2", size=size)
        ping(t, "B", "2001:2::1", size=size)
    quick_pings_cross(t, 200)
    stop(program)


def quick_pings_cross(t, count):
    """COUNT requests and COUNT answers, 10 ms apart, on both hubs by QEMU's own record.

    ping ends a second after its last request, which a busy host can outlast: its own count is only noted."""
    before = [len(pcap.frames(pcap.hub(t, number))) for number in (0, 1)]
    output = t.inside("A", f"ping -c {count} -i 0.01 -W 5 -s 100 198.18.0.2", timeout=60)
    for number in (0, 1):
        def kinds(hub=number):
            echoes = [frame[34] for frame in pcap.frames(pcap.hub(t, hub), skip=before[hub])
                      if len(frame) == 142 and frame[12:14] == b"\x08\x00" and frame[23] == 1]
            return echoes.count(8), echoes.count(0)

        deadline = time.monotonic() + 10
        while kinds() != (count, count) and time.monotonic() < deadline:
            time.sleep(0.2)
        expect(kinds() == (count, count), f"hub {number} saw {kinds()} requests and answers, not {count} of each:\n{output[-300:]}")
    if f"{count} packets received" not in output:
        t.note("ping itself did not wait for every answer")


@scenario(limit=180)
def files_arrive_whole(t):
    """TCP transfers of several sizes, both ways, over IPv4 and IPv6: the SHA-256 of each agrees."""
    program = bridge(t)
    port = 7000
    for size in (1, 1460, 65_537, 3_000_001):
        for sender, receiver in (("A", "B"), ("B", "A")):
            for target in TARGETS[receiver]:
                port += 1
                transfer(t, sender, receiver, target, size, port)
    stop(program, signal.SIGTERM)


@scenario()
def both_directions_at_once(t):
    """Two files cross at the same time while pings run."""
    program = bridge(t)
    pings = t.background("B", "ping -i 0.02 -c 150 -W 5 198.18.0.1 | tail -3")
    reverse = t.background("B", "dd if=/dev/zero bs=64k count=40 | nc 198.18.0.1 7100") if listen(t, "A", 7100) else None
    transfer(t, "A", "B", "198.18.0.2", 2_000_003, 7101)
    expect(reverse.wait(60) == 0, f"the other direction failed: {reverse.output()}")
    t.guest.wait_for("stat -c %s /root/received-7100", lambda out: out.strip() == str(40 * 65536), what="the other direction's bytes")
    pings.wait(60)
    expect("150 packets received" in pings.output(), f"pings were lost: {pings.output()}")
    stop(program)


def listen(t, namespace, port):
    t.guest.put(f"exec cat > /root/received-{port}\n".encode(), f"/root/receive-{port}")
    t.background(namespace, f"exec nc -l -p {port} -e /bin/sh /root/receive-{port}")
    t.guest.wait_for(f"ip netns exec {namespace} netstat -ltn | grep -c ':{port} '", lambda out: out.strip() != "0")
    return True


@scenario()
def frames_pass_unchanged_and_once(t):
    """QEMU's own record of both hubs agrees: each frame a peer sends comes out once, in order, unchanged."""
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=1)  # neighbours known, duplicate detection over
    before = [len(pcap.frames(pcap.hub(t, number))) for number in (0, 1)]
    for size in (0, 17, 18, 19, 63, 500, 1471, 1472):
        ping(t, "A", "198.18.0.2", size=size, count=20, interval=0.01)
        ping(t, "B", "2001:2::1", size=min(size, 1452), count=20, interval=0.01)
    for name in ("peera", "peerb"):
        sender = pcap.mac(t.guest.topology.nic(name).mac)
        seen = [[f for f in pcap.frames(pcap.hub(t, number), before[number]) if pcap.source(f) == sender] for number in (0, 1)]
        same_frames(seen[0], seen[1], name)
        expect(len(seen[0]) >= 320, f"only {len(seen[0])} frames of {name} were on the wire")
    stop(program)


def same_frames(left, right, name):
    for index, (one, other) in enumerate(zip(left, right)):
        expect(pcap.unpadded(one) == pcap.unpadded(other), f"frame {index} of {name} differs:\n{one.hex()}\n{other.hex()}")
    expect(len(left) == len(right), f"of {name} there were {len(left)} frames on hub 0 and {len(right)} on hub 1")


@scenario()
def vlan_tags_survive(t):
    """Tagged frames keep their tag: peers talk in VLAN 42 and only there."""
    program = bridge(t)
    t.guest.check("modprobe 8021q")
    for name, last in (("A", 1), ("B", 2)):
        device = f"peer{name.lower()}"
        t.guest.check(f"""set -e
            ip -n {name} link add link {device} name {device}.42 type vlan id 42
            ip -n {name} address add 198.18.42.{last}/24 dev {device}.42
            ip -n {name} link set {device}.42 up""")
    try:
        ping(t, "A", "198.18.42.2", size=1000)
        ping(t, "B", "198.18.42.1", size=1472)
    finally:
        t.guest.run("ip -n A link delete peera.42; ip -n B link delete peerb.42")
    stop(program)


@scenario()
def jumbo_frames_pass(t):
    """Frames of 9000 bytes, which fill several buffers each, pass between peers with such an MTU, unfragmented."""
    for name in ("A", "B"):
        t.guest.check(f"ip -n {name} link set peer{name.lower()} mtu 9000")
    try:
        program = bridge(t, "--mtu 9000")
        before = len(pcap.frames(pcap.hub(t, 1)))
        for size in (1500, 2020, 4000, 8972):
            ping(t, "A", "198.18.0.2", size=size)
            ping(t, "B", "198.18.0.1", size=size)
        longest = max(len(frame) for frame in pcap.frames(pcap.hub(t, 1), before))
        expect(longest == 9014, f"the longest frame on the wire had {longest} bytes: this scenario shows nothing")
        transfer(t, "A", "B", "198.18.0.2", 1_000_000, 7400)
        transfer(t, "B", "A", "2001:2::1", 1_000_000, 7401)
        stop(program)
    finally:
        for name in ("A", "B"):
            t.guest.run(f"ip -n {name} link set peer{name.lower()} mtu 1500")


@scenario()
def it_starts_again_and_again(t):
    """Six starts and clean ends: each says its links, forwards, and gives back every hugepage."""
    free = t.guest.hugepages_free()
    for turn in range(6):
        program = bridge(t)
        ping(t, "A", "198.18.0.2", count=2)
        for identity in ("e1000e", "virtio"):
            expect(link_changes(program, t.guest.address(identity))[-1:] == ["up"], f"no link reported for {identity}:\n{program.output()}")
        stop(program, signal.SIGTERM if turn % 2 else signal.SIGINT)
        expect(t.guest.hugepages_free() == free, f"{free} hugepages were free, now {t.guest.hugepages_free()}")
