"""(f) What `ringway capture` writes, tcpdump reads: the same frames that QEMU saw on the hub."""

from testbed import pcap
from testbed.program import CONFIGURATION, USAGE, capture, complaint, stop
from testbed.scenario import expect, scenario

FILE = "/root/capture.pcapng"
NOBODY = "52:54:00:18:ff:01"


def neighbours(t):
    """Peer A knows an address on its hub that nobody answers for: its packets are sent, and none comes back."""
    t.inside("A", f"ip neigh replace 198.18.0.77 lladdr {NOBODY} dev peera nud permanent")


def send_pings(t, count, size):
    t.inside("A", f"ping -c {count} -i 0.01 -W 1 -s {size} 198.18.0.77 >/dev/null; true")


def knock(t, ports):
    """TCP connections that nobody answers: frames of another kind."""
    t.inside("A", f"for port in {ports}; do nc -w 1 198.18.0.77 $port & done; wait; true")


def tcpdump_count(t, file, filter=""):
    """How many packets tcpdump finds in a file; it must read to the end without complaint."""
    output = t.guest.check(f"tcpdump -nr {file} {filter} 2>/root/tcpdump.errors | wc -l; cat /root/tcpdump.errors")
    expect("truncated" not in output and "bogus" not in output, f"tcpdump complains: {output}")
    return int(output.split()[0])


@scenario()
def every_frame_is_captured(t):
    """All frames on the hub, whole and in order: the file equals QEMU's own record."""
    for identity, namespace, hub in (("e1000e", "A", 0), ("virtio", "B", 1)):
        device = f"peer{namespace.lower()}"
        t.inside(namespace, f"ip neigh replace 198.18.0.77 lladdr {NOBODY} dev {device} nud permanent")
        program = capture(t, identity, FILE)
        before = len(pcap.frames(pcap.hub(t, hub)))
        for size in (0, 18, 100, 1472):
            t.inside(namespace, f"ping -c 25 -i 0.01 -W 1 -s {size} 198.18.0.77 >/dev/null; true")
        t.guest.check("usleep 500000")
        wire = pcap.frames(pcap.hub(t, hub), before)
        stop(program)
        packets = pcap.pcapng_packets(t.guest.get(FILE))
        mine = pcap.mac(t.guest.topology.nic(device).mac)
        sent = [frame for frame in wire if pcap.source(frame) == mine]
        seen = [data for _, data in packets if pcap.source(data) == mine]
        expect(len(sent) >= 100, f"only {len(sent)} frames were sent")
        expect(len(seen) == len(sent), f"{identity}: {len(sent)} frames on the hub, {len(seen)} in the file:\n{program.output()}")
        for index, (one, other) in enumerate(zip(sent, seen)):
            expect(pcap.unpadded(one) == pcap.unpadded(other), f"{identity}: frame {index} differs:\n{one.hex()}\n{other.hex()}")
        expect(all(length == len(data) for length, data in packets), "a frame is shorter than its recorded length")
        expect(tcpdump_count(t, FILE) == len(packets), "tcpdump counts other packets than the file holds")


@scenario()
def a_filter_selects(t):
    """A libpcap expression lets through what it names and nothing else."""
    neighbours(t)
    program = capture(t, "e1000e", FILE, filter="'icmp and greater 500'")
    send_pings(t, 10, 56)
    send_pings(t, 15, 800)
    knock(t, "21 22 23")
    t.guest.check("usleep 500000")
    stop(program)
    expect(tcpdump_count(t, FILE) == 15, f"15 frames match, the file holds {tcpdump_count(t, FILE)}:\n{program.output()}")
    expect(tcpdump_count(t, FILE, "icmp and greater 500") == 15, "frames that do not match are in the file")


@scenario()
def a_snap_length_cuts(t):
    """--snaplen keeps the first bytes and the frame's true length."""
    neighbours(t)
    program = capture(t, "e1000e", FILE, options="--snaplen 64", filter="icmp")
    send_pings(t, 10, 1000)
    t.guest.check("usleep 500000")
    stop(program)
    packets = pcap.pcapng_packets(t.guest.get(FILE))
    expect(len(packets) == 10, f"10 frames match, the file holds {len(packets)}")
    expect(all((length, len(data)) == (1042, 64) for length, data in packets), f"lengths are {[(l, len(d)) for l, d in packets]}")
    expect(tcpdump_count(t, FILE) == 10, "tcpdump reads other packets")


@scenario()
def a_count_ends_it(t):
    """--count N ends by itself with N packets and exit 0."""
    neighbours(t)
    program = capture(t, "e1000e", FILE, options="--count 7", filter="icmp")
    send_pings(t, 20, 100)
    expect(program.wait(20) == 0, f"it ended otherwise:\n{program.output()}")
    expect(tcpdump_count(t, FILE) == 7, f"7 packets were asked for, the file holds {tcpdump_count(t, FILE)}")


@scenario()
def a_pipe_takes_it(t):
    """-w - feeds a tcpdump that reads from the pipe."""
    neighbours(t)
    line = t.expand("ringway capture {e1000e} -w - --count 12 icmp 2>/root/errors | tcpdump -nr - 2>/dev/null > /root/lines")
    program = t.guest.spawn(f"sh -c \"{line}\"", name="capture to a pipe")
    t.guest.wait_for("cat /root/errors", lambda out: "capturing" in out, what="the capture to begin")
    send_pings(t, 12, 300)
    expect(program.wait(20) == 0, f"the pipe ended otherwise:\n{program.output()}")
    expect(t.guest.check("grep -c 'ICMP echo request' /root/lines").strip() == "12", t.guest.check("cat /root/lines"))


@scenario()
def bad_words_are_refused(t):
    """A wrong filter and an unwritable file: an error each, before anything is captured."""
    result = t.guest.run(t.expand("ringway capture {e1000e} -w /root/x.pcapng 'icmp and and'"))
    expect(result.status == USAGE, f"a wrong filter ends with {result.status}:\n{result.output}")
    complaint(result.output)
    result = t.guest.run(t.expand("ringway capture {e1000e} -w /nowhere/x.pcapng"))
    expect(result.status not in (0, CONFIGURATION) and result.status < 128, f"an unwritable file ends with {result.status}:\n{result.output}")
    complaint(result.output, "/nowhere/x.pcapng")
