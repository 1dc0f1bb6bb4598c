"""What Linux kernels see of a Ringway router. Each scenario makes its own world and claims what must hold."""

import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time

from world import CARDS, Failure, Sniffer, World, claim

SCENARIOS = []


def scenario(name):
    def enter(function):
        SCENARIOS.append((name, function))
        return function
    return enter


FORWARDING = {"net.inet.ip.forwarding": 1, "net.inet6.ip6.forwarding": 1}


def routed(world, left="tap", right="tap", mtu2=1500, **more):
    """Two peers and the router between them, on TAPs or models of cards."""
    a, b = world.peer("A", 1), world.peer("B", 2)
    for peer, kind, mtu in ((a, left, 1500), (b, right, mtu2)):
        addresses = [f"{peer.router4}/24", f"{peer.router6}/64"]
        if kind == "tap":
            world.tap(peer, f"tap{peer.number - 1}", addresses, mtu=mtu)
        else:
            world.card(peer, kind, addresses, mtu=mtu)
    world.start(sysctl=FORWARDING, **more)
    for peer, mtu in ((a, 1500), (b, mtu2)):
        world.until(lambda: device_exists(peer), 10, f"{peer.device} did not appear in {peer.name}")
        peer.configure(mtu=mtu)
    # Addresses of the router want their duplicate address detection first.
    world.until(lambda: a.ping(b.address6, count=1, wait="1")[0] == 1, 15, "no answer through the router by IPv6")
    world.until(lambda: a.ping(b.address4, count=1, wait="1")[0] == 1, 15, "no answer through the router by IPv4")
    return a, b


def device_exists(peer):
    return subprocess.run(peer.command("ip", "link", "show", peer.device), capture_output=True).returncode == 0


def conserved(world):
    """Once traffic rests: what every interface received was delivered or dropped for a reason."""
    # Fragments that never became whole are held for half a minute.
    deadline = time.monotonic() + 45
    while True:
        problems = []
        for interface in world.json("netstat", "-i")["interfaces"]:
            counters = interface["counters"]
            if counters["received"] != counters["delivered"] + counters["dropped"]:
                problems.append(f"{interface['name']}: {counters}")
        if not problems:
            return
        if time.monotonic() > deadline:
            raise Failure("packets are unaccounted for: " + "; ".join(problems))
        time.sleep(0.2)


def judge(sniffers):
    """No frame of ours that a peer saw has a wrong checksum."""
    for sniffer in sniffers:
        sniffer.stop()
        bad = sniffer.fields("ip.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || "
                             "igmp.checksum.status == 0", "frame.number", "_ws.col.Info")
        claim(not bad, f"{sniffer.peer.name} saw wrong checksums: {bad[:5]}")


@scenario("router.ping")
def router_ping(world):
    a, b = routed(world)
    sniffers = [Sniffer(a), Sniffer(b)]
    for here, there in ((a, b), (b, a)):
        here.pings(here.router4)
        here.pings(here.router6)
        here.pings(there.router4)
        here.pings(there.address4, count=20)
        here.pings(there.address6, count=20)
        for size in (0, 1, 56, 1000, 1472):
            here.pings(there.address4, "-s", str(size))
            here.pings(there.address6, "-s", str(min(size, 1452)))
    judge(sniffers)
    conserved(world)


@scenario("router.fragments")
def router_fragments(world):
    a, b = routed(world)
    for size in (1473, 3000, 9000, 65507):
        a.pings(b.address4, "-s", str(size), count=2)
        a.pings(a.router4, "-s", str(size), count=2)
    for size in (1453, 3000, 9000, 65000):
        a.pings(b.address6, "-s", str(size), count=2)
        a.pings(a.router6, "-s", str(size), count=2)
    conserved(world)


@scenario("router.traceroute")
def router_traceroute(world):
    a, b = routed(world)
    for family, target, router in (("-4", b.address4, a.router4), ("-6", b.address6, a.router6)):
        text = a.output("traceroute", family, "-n", "-q", "2", "-w", "2", target)
        hops = re.findall(r"^ *\d+ +(\S+)", text, re.M)
        claim(hops[:2] == [router, target], f"traceroute {family} went by {hops}, not by {router} and {target}\n{text}")
    text = a.output("traceroute", "-4", "-I", "-n", "-q", "1", "-w", "2", b.address4)
    claim(re.findall(r"^ *\d+ +(\S+)", text, re.M)[:2] == [a.router4, b.address4], f"traceroute by ICMP:\n{text}")


@scenario("router.path_mtu")
def router_path_mtu(world):
    a, b = routed(world, mtu2=1400)
    answered, _, text = a.ping(b.address4, "-M", "do", "-s", "1472", count=2)
    claim(answered == 0 and ("mtu=1400" in text or "mtu 1400" in text.lower() or "message too long" in text.lower()),
          f"no ICMP 'fragmentation needed' with MTU 1400:\n{text}")
    text = a.output("tracepath", "-n", "-4", b.address4)
    claim("pmtu 1400" in text, f"tracepath found no path MTU of 1400:\n{text}")
    text = a.output("tracepath", "-n", "-6", b.address6)
    claim("pmtu 1400" in text, f"tracepath -6 found no path MTU of 1400:\n{text}")
    # Without the bit the router cuts the datagram itself.
    a.write("net/ipv4/ip_no_pmtu_disc", "1")
    a.run("ip", "route", "flush", "cache")
    a.pings(b.address4, "-M", "dont", "-s", "1472", count=3)
    conserved(world)


@scenario("router.unreachable")
def router_unreachable(world):
    a, b = routed(world)
    _, _, text = a.ping("198.18.9.9", count=1)
    claim("Unreachable" in text, f"no unreachable for a network without a route:\n{text}")
    _, _, text = a.ping("2001:2:0:9::9", count=1)
    claim("unreachable" in text.lower() or "No route" in text, f"no ICMPv6 unreachable:\n{text}")
    _, _, text = a.ping("198.18.2.77", count=1, wait="8")
    claim("Unreachable" in text, f"no host unreachable for a station that does not answer ARP:\n{text}")
    _, _, text = a.ping("2001:2:0:2::77", count=1, wait="8")
    claim("unreachable" in text.lower(), f"no address unreachable for a silent neighbour:\n{text}")
    # Nobody listens on a UDP port of the router.
    probe = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(3)\n"
             f"s.connect(('{a.router4}', 9999))\ns.send(b'x')\n"
             "try:\n s.recv(10)\nexcept ConnectionRefusedError:\n print('refused')\n")
    text = a.output(sys.executable, "-c", probe)
    claim("refused" in text, "the router sent no port unreachable for a closed UDP port")
    conserved(world)


@scenario("router.arping")
def router_arping(world):
    a, b = routed(world)
    text = a.output("arping", "-c", "3", "-I", a.device, a.router4, check=False)
    claim("Received 3 response" in text, f"arping {a.router4}:\n{text}")
    mac = re.search(r"\[([0-9A-Fa-f:]+)\]", text)[1].lower()
    claim(mac in world.ringway("ifconfig", "tap0").lower(), f"arping heard {mac}, which is not tap0's address")
    # Duplicate address detection as RFC 5227 has it: the router defends its address.
    text = a.output("arping", "-D", "-c", "2", "-I", a.device, a.router4, check=False)
    claim("Received 0 response" not in text, f"the router did not answer a probe for its address:\n{text}")
    # A stranger's gratuitous ARP for the router's own address is a conflict that somebody hears of.
    monitored = monitor(world)
    a.run("ip", "address", "add", f"{a.router4}/32", "dev", a.device)
    a.output("arping", "-U", "-c", "1", "-s", a.router4, "-I", a.device, a.router4, check=False)
    a.run("ip", "address", "del", f"{a.router4}/32", "dev", a.device)
    a.run("ip", "neigh", "flush", "dev", a.device)
    world.until(lambda: "conflict" in monitored(), 5, "the monitor did not tell of the conflict")
    a.pings(a.router4)
    # Gratuitous ARP on a new address.
    sniffer = Sniffer(a, filter="arp")
    world.ringway("ifconfig", "tap0", "inet", "198.18.1.9/24", "alias")
    time.sleep(0.5)
    sniffer.stop()
    rows = sniffer.fields("arp.src.proto_ipv4 == 198.18.1.9 && arp.dst.proto_ipv4 == 198.18.1.9", "arp.opcode")
    claim(rows, "no gratuitous ARP for an address that was added")
    a.pings("198.18.1.9")
    text = world.ringway("arp", "-a")
    claim(a.address4 in text, f"`ringway arp -a` does not know {a.address4}:\n{text}")
    conserved(world)


@scenario("router.neighbours")
def router_neighbours(world):
    a, b = routed(world)
    text = a.output("ndisc6", "-1", "-n", a.router6, a.device, check=False)
    claim("Target link-layer address" in text, f"ndisc6 {a.router6}:\n{text}")
    # Linux forgets, and asks again.
    a.run("ip", "-6", "neigh", "flush", "dev", a.device)
    a.pings(b.address6)
    state = a.output("ip", "-6", "neigh", "show", a.router6)
    claim("REACHABLE" in state or "DELAY" in state, f"Linux has the router as: {state}")


def monitor(world):
    """Starts `ringway monitor --json`; what it returns gives everything that was printed so far."""
    path = world.directory + "/monitor.log"
    world.spawn([world.program("ringway"), "monitor", "--json", "--socket", world.socket], stdout=open(path, "w"), stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    return lambda: open(path).read()


@scenario("router.dad")
def router_dad(world):
    """The peer holds the address that the router wants: the router must not use it."""
    a = world.peer("A", 1)
    world.tap(a, "tap0", [f"{a.router4}/24"])
    world.start(sysctl=FORWARDING)
    world.until(lambda: device_exists(a), 10, "no TAP")
    a.configure(routes=False)
    a.run("ip", "-6", "address", "add", "2001:2:0:1::77/64", "dev", a.device, "nodad")
    time.sleep(0.5)
    monitored = monitor(world)
    world.ringway("ifconfig", "tap0", "inet6", "2001:2:0:1::77/64")
    world.until(lambda: "duplicated" in world.ringway("ifconfig", "tap0"), 5, "the duplicate was not noticed")
    world.until(lambda: "duplicated" in monitored(), 5, "the monitor did not tell of the duplicate")
    # And Linux's own detection finds ours.
    world.ringway("ifconfig", "tap0", "inet6", "2001:2:0:1::88/64")
    time.sleep(2.5)
    a.run("ip", "-6", "address", "add", "2001:2:0:1::88/64", "dev", a.device)
    world.until(lambda: "dadfailed" in a.output("ip", "-6", "address", "show", "dev", a.device), 5,
                "Linux's detection did not hear of the router's address")


@scenario("router.membership")
def router_membership(world):
    """A querier hears of every group that the router is in, by IGMP and MLD."""
    a, b = routed(world)
    sniffer = Sniffer(a)
    send_queries(a)
    time.sleep(4)
    sniffer.stop()
    reports = sniffer.fields("igmp.type == 0x22 || igmp.type == 0x16", "igmp.maddr", "ip.ttl", "ip.opt.type")
    mld = sniffer.fields("icmpv6.type == 143 || icmpv6.type == 131", "ipv6.hlim", "ipv6.src")
    # Linux reports its own groups as well, from "::" while its address is tentative (RFC 3810, 5.2.13).
    text = a.output("ip", "-6", "address", "show", "dev", a.device, "scope", "link")
    linux = set(re.findall(r"inet6 (\S+)/", text)) | {"::"}
    claim(all(row[0].startswith("1") for row in mld), f"MLD reports with a hop limit other than 1: {mld}")
    ours = [row for row in mld if row[1] not in linux]
    claim(ours and all(row[1].startswith("fe80") for row in ours), f"no MLD report of the router after a query: {mld}")
    claim(all(row[1] == "1" for row in reports), f"IGMP reports with a TTL other than 1: {reports}")


def send_queries(peer):
    """General queries: IGMPv2 and MLDv1, from a raw socket."""
    code = r'''
import socket, struct, sys
def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
device, address = sys.argv[1:3]
mac = b"\x02\0\0\0\0\x77"
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind((device, 0))
igmp = struct.pack("!BBH4s", 0x11, 20, 0, bytes(4)); igmp = igmp[:2] + struct.pack("!H", checksum(igmp)) + igmp[4:]
ip = struct.pack("!BBHHHBBH4s4s4s", 0x46, 0xc0, 32, 1, 0, 1, 2, 0, socket.inet_aton(address), socket.inet_aton("224.0.0.1"), b"\x94\x04\0\0")
ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
s.send(b"\x01\0\x5e\0\0\x01" + mac + b"\x08\0" + ip + igmp)
source, target = socket.inet_pton(socket.AF_INET6, "fe80::77"), socket.inet_pton(socket.AF_INET6, "ff02::1")
mld = struct.pack("!BBHHH16s", 130, 0, 0, 1000, 0, bytes(16))
pseudo = source + target + struct.pack("!II", len(mld), 58)
mld = mld[:2] + struct.pack("!H", checksum(pseudo + mld)) + mld[4:]
hop = b"\x3a\0\x05\x02\0\0\x01\0"
s.send(b"\x33\x33\0\0\0\x01" + mac + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(hop) + len(mld), 0, 1) + source + target + hop + mld)
'''
    peer.output(sys.executable, "-c", code, peer.device, peer.address4)


@scenario("router.udp_rate")
def router_udp_rate(world):
    """Datagrams at a rate through the router: what it lost it says."""
    a, b = routed(world)
    server = subprocess.Popen(b.command("iperf3", "-s", "-1", "-J"), stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    client = a.output("iperf3", "-c", b.address4, "-u", "-b", "20M", "-l", "1000", "-t", "4", "-J", timeout=60)
    server.communicate(timeout=30)
    total = json.loads(client)["end"]["sum"]
    claim(total["packets"] > 5000, f"iperf3 sent {total['packets']} datagrams only")
    claim(total["lost_percent"] < 5, f"{total['lost_percent']:.1f}% of the datagrams were lost at 20 Mb/s")
    conserved(world)


@scenario("router.tcp_files")
def router_tcp_files(world):
    a, b = routed(world)
    for target in (b.address4, b.address6):
        server = subprocess.Popen(b.command("iperf3", "-s", "-1", "-J"), stdout=subprocess.PIPE, text=True)
        time.sleep(0.5)
        client = json.loads(a.output("iperf3", "-c", target, "-n", "20M", "-J", timeout=90))
        server.communicate(timeout=30)
        claim(client["end"]["sum_received"]["bytes"] >= 15 << 20, f"TCP by {target}: {client['end']['sum_received']}")
    conserved(world)


for model, interface in CARDS.items():
    def cards(world, model=model, interface=interface):
        """A card's model on one side, a TAP on the other: drivers, interface layer and protocols together."""
        a, b = routed(world, left=model)
        text = world.ringway("ifconfig", interface)
        claim("status: active" in text and "media:" in text and a.router4 in text, f"ifconfig {interface}:\n{text}")
        a.pings(b.address4, count=10)
        b.pings(a.address6, count=10)
        a.pings(b.address4, "-s", "9000")
        text = world.ringway("netstat", "-i")
        claim(interface in text, f"netstat -i has no {interface}:\n{text}")
        conserved(world)
    scenario(f"card.{interface}")(cards)


@scenario("card.both")
def card_both(world):
    a, b = routed(world, left="82599", right="virtio-net")
    for here, there in ((a, b), (b, a)):
        here.pings(there.address4, count=10)
        here.pings(there.address6, count=10)
    conserved(world)


@scenario("vlan")
def vlan(world):
    """Tagged frames from a raw socket: not every kernel has VLAN devices. ARP and echo come back with the tag."""
    a = world.peer("A", 1)
    world.tap(a, "tap0", [])
    world.section("interface", name="vlan7", kind="vlan", parent="tap0", tag=7, addresses=["198.18.7.1/24", "2001:2:0:7::1/64"])
    world.start(sysctl=FORWARDING)
    world.until(lambda: device_exists(a), 10, "no TAP")
    a.run("ip", "link", "set", a.device, "up")
    code = r'''
import socket, struct, sys, time
device = sys.argv[1]
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)); s.bind((device, 3)); s.settimeout(0.3)
# The kernel takes tags out of received frames and tells them beside (PACKET_AUXDATA).
s.setsockopt(263, 8, 1)
mac, own, router = b"\x02\0\0\0\0\x77", socket.inet_aton("198.18.7.2"), socket.inet_aton("198.18.7.1")
def checksum(data):
    total = sum(struct.unpack("!%dH" % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return struct.pack("!H", ~total & 0xffff)
def answer(match, frame, what):
    for attempt in range(10):
        s.send(frame)
        end = time.time() + 0.5
        while time.time() < end:
            try: data, extra, _, _ = s.recvmsg(2000, 200)
            except socket.timeout: break
            tags = [struct.unpack("IIIHHHH", value[:20])[5] for level, kind, value in extra if kind == 8]
            tag = tags[0] & 0xfff if tags else 0
            if data[12:14] == b"\x81\0": tag, data = struct.unpack("!H", data[14:16])[0] & 0xfff, data[:12] + data[16:]
            if match(data): return tag, data
    sys.exit("no " + what)
tagged = lambda target, kind, payload: target + mac + b"\x81\0\0\x07" + kind + payload
arp = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + mac + own + bytes(6) + router
tag, reply = answer(lambda d: d[12:14] == b"\x08\x06" and d[20:22] == b"\0\x02", tagged(b"\xff" * 6, b"\x08\x06", arp), "ARP reply")
print("arp", tag)
gateway = reply[6:12]
icmp = b"\x08\0\0\0\0\x07\0\x01" + b"tagged!!"
icmp = icmp[:2] + checksum(icmp) + icmp[4:]
ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(icmp), 1, 0, 64, 1, 0) + own + router
ip = ip[:10] + checksum(ip) + ip[12:]
tag, reply = answer(lambda d: d[12:14] == b"\x08\0" and d[23] == 1 and d[34] == 0 and d[42:50] == b"tagged!!", tagged(gateway, b"\x08\0", ip + icmp), "echo reply")
print("echo", tag)
untagged = gateway + mac + b"\x08\0" + ip + icmp
s.send(untagged)
end = time.time() + 0.6
while time.time() < end:
    try: data, extra, _, _ = s.recvmsg(2000, 200)
    except socket.timeout: continue
    tagged = any(struct.unpack("IIIHHHH", value[:20])[5] for level, kind, value in extra if kind == 8)
    if data[12:14] == b"\x08\0" and data[34:35] == b"\0" and b"tagged!!" in data and not tagged: sys.exit("an untagged echo was answered")
'''
    text = a.output(sys.executable, "-c", code, a.device)
    claim("arp 7" in text and "echo 7" in text, f"answers without tag 7:\n{text}")
    conserved(world)


@scenario("bridge")
def bridge(world):
    """Two peers of one network on a bridge of ours, and the bridge's own address."""
    a, b = world.peer("A", 1), world.peer("B", 2)
    for index, peer in enumerate((a, b)):
        world.tap(peer, f"tap{index}", [])
    world.section("interface", name="bridge0", kind="bridge", members=["tap0", "tap1"], addresses=["198.18.1.1/24"])
    world.start()
    for index, peer in enumerate((a, b)):
        world.until(lambda: device_exists(peer), 10, "no TAP")
        peer.run("ip", "address", "add", f"198.18.1.{index + 2}/24", "dev", peer.device)
        peer.run("ip", "-6", "address", "add", f"2001:2:0:1::{index + 2}/64", "dev", peer.device, "nodad")
        peer.run("ip", "link", "set", peer.device, "up")
    a.pings("198.18.1.3", count=10)
    b.pings("2001:2:0:1::2", count=10)
    a.pings("198.18.1.1")
    b.pings("198.18.1.1")
    conserved(world)


@scenario("host.router_solicitation")
def host_router_solicitation(world):
    """Linux's radvd advertises; the router's interface, as a host, takes an address and a default router."""
    a = world.peer("A", 1)
    world.tap(a, "tap0", ["198.18.1.1/24"])
    world.start(sysctl={"net.inet6.ip6.accept_rtadv": 1})
    world.until(lambda: device_exists(a), 10, "no TAP")
    a.configure(routes=False)
    a.write("net/ipv6/conf/all/forwarding", "1")
    sniffer = Sniffer(a, filter="icmp6")
    path = world.directory + "/radvd.conf"
    with open(path, "w") as file:
        file.write(f"interface {a.device} {{ AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; "
                   "prefix 2001:2:0:1::/64 { AdvOnLink on; AdvAutonomous on; }; };\n")
    world.spawn(a.command("radvd", "-n", "-C", path, "-p", world.directory + "/radvd.pid", "-m", "stderr"),
                stderr=subprocess.DEVNULL)
    world.ringway("ifconfig", "tap0", "down")
    world.ringway("ifconfig", "tap0", "up")
    world.until(lambda: "2001:2:0:1:" in world.ringway("ifconfig", "tap0"), 15, "no address from the advertised prefix")
    sniffer.stop()
    claim(sniffer.fields("icmpv6.type == 133", "frame.number"), "no router solicitation was sent")
    world.until(lambda: "default" in world.ringway("netstat", "-r"), 5, "no default router from the advertisement")


@scenario("capture.live")
def capture_live(world):
    """A live interface, and what was dropped with the reason, read back by tshark."""
    a, b = routed(world)
    path = world.directory + "/live.pcapng"
    capture = world.spawn([world.program("ringway"), "capture", "tap0", "--drops", "-w", path, "--socket", world.socket],
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(1)
    a.pings(b.address4, count=5)
    a.ping("198.18.9.9", count=2)
    time.sleep(1)
    capture.terminate()
    capture.wait(10)
    def rows(display, *names):
        words = ["tshark", "-n", "-r", path, "-Y", display, "-T", "fields"]
        for name in names:
            words += ["-e", name]
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()
    claim(len(rows("icmp.type == 8 && ip.dst == 198.18.2.2", "frame.number")) >= 5, "the capture misses pings")
    dropped = rows("frame.comment contains \"dropped\"", "ip.dst", "frame.comment")
    claim(any("198.18.9.9" in row and "no-route" in row for row in dropped), f"no drop with its reason in the capture: {dropped[:5]}")


@scenario("capture.extcap")
def capture_extcap(world):
    """What Wireshark does: asks for interfaces, link types and options, then reads packets from a pipe."""
    a, b = routed(world)
    extcap = [world.program("ringway"), "extcap"]
    ask = lambda *words: subprocess.run([*extcap, *words], capture_output=True, text=True, timeout=10).stdout
    listed = ask("--extcap-interfaces", "--socket", world.socket)
    claim("value=ringway-tap0" in listed and "value=ringway-any" in listed, f"--extcap-interfaces: {listed}")
    claim("name=EN10MB" in ask("--extcap-dlts", "--extcap-interface", "ringway-tap0"), "--extcap-dlts")
    claim("call=--drops" in ask("--extcap-config", "--extcap-interface", "ringway-tap0"), "--extcap-config")
    pipe, path = world.directory + "/fifo", world.directory + "/extcap.pcapng"
    os.mkfifo(pipe)
    reader = world.spawn(["sh", "-c", f"cat {pipe} > {path}"])
    capture = world.spawn([*extcap, "--capture", "--extcap-interface", "ringway-tap0", "--fifo", pipe, "--socket", world.socket, "--drops"])
    time.sleep(1)
    a.pings(b.address4, count=5)
    time.sleep(0.5)
    capture.terminate()
    claim(capture.wait(10) == 0, "extcap did not end with 0")
    reader.wait(5)
    text = subprocess.run(["tshark", "-n", "-r", path, "-Y", "icmp.type == 8"], capture_output=True, text=True, check=True).stdout
    claim(len(text.splitlines()) >= 5, f"the pipe brought {len(text.splitlines())} echo requests")


@scenario("mode.up_down")
def mode_up_down(world):
    """Interfaces go down and up, MTUs and addresses change, with pings under way; nothing is unaccounted for."""
    a, b = routed(world)
    flood = subprocess.Popen(a.command("ping", "-n", "-i", "0.01", "-c", "400", b.address4), stdout=subprocess.PIPE, text=True)
    for flag, word in (("allmulti", "ALLMULTI"), ("promisc", "PROMISC")):
        world.ringway("ifconfig", "tap1", flag)
        claim(word in world.ringway("ifconfig", "tap1"), f"{flag} does not show")
        world.ringway("ifconfig", "tap1", "-" + flag)
        claim(word not in world.ringway("ifconfig", "tap1"), f"-{flag} does not show")
    for round in range(10):
        world.ringway("ifconfig", "tap1", "down")
        world.ringway("ifconfig", "tap1", "up")
        world.ringway("ifconfig", "tap1", "mtu", str(1400 + round))
        world.ringway("ifconfig", "tap1", "inet", f"198.18.2.{50 + round}/24", "alias")
        world.ringway("ifconfig", "tap1", "inet", f"198.18.2.{50 + round}", "delete")
    text = flood.communicate(timeout=30)[0]
    received = int(re.search(r"(\d+) received", text)[1])
    claim(received > 50, f"only {received} answers during changes")
    world.ringway("ifconfig", "tap1", "mtu", "1500")
    a.pings(b.address4, count=5)
    conserved(world)


@scenario("daemon.reload")
def daemon_reload(world):
    """SIGHUP applies differences; a broken file changes nothing."""
    a, b = routed(world)
    with open(world.file) as file:
        text = file.read()
    with open(world.file, "w") as file:
        file.write(text.replace('"198.18.1.1/24"', '"198.18.1.1/24", "198.18.1.3/24"'))
    world.daemon.send_signal(1)
    world.until(lambda: "198.18.1.3" in world.ringway("ifconfig", "tap0"), 5, "the new address did not come")
    a.pings("198.18.1.3")
    with open(world.file, "w") as file:
        file.write(text + "\nnonsense = 1\n[[card]\n")
    world.daemon.send_signal(1)
    time.sleep(0.5)
    a.pings(b.address4)
    claim(world.daemon.poll() is None, "a broken configuration ended the daemon")


@scenario("daemon.top_and_tables")
def daemon_tables(world):
    a, b = routed(world)
    a.pings(b.address4, count=5)
    queues = world.ringway("netstat", "-Q")
    for word in ("Configuration:", "Protocols:", "Workstreams:", "ether", "ip", "arp", "ip6", "epair"):
        claim(word in queues, f"netstat -Q has no {word}:\n{queues}")
    claim("198.18.2.0/24" in world.ringway("netstat", "-r"), "netstat -r misses a connected network")
    claim("packets forwarded" in world.ringway("netstat", "-s"), "netstat -s misses 'packets forwarded'")
    world.ringway("route", "add", "198.19.0.0/16", b.address4)
    claim("198.19.0.0/16" in world.ringway("netstat", "-r"), "a route that was added is not listed")
    world.ringway("route", "delete", "198.19.0.0/16")
    claim(world.ringway("sysctl", "net.isr.dispatch").strip().endswith(("direct", "hybrid", "deferred")), "sysctl net.isr.dispatch")
    claim(world.ringway("sysctl", "net.isr.dispatch=bogus", check=False) is None, "a bogus dispatch policy was taken")
    monitor = world.spawn([world.program("ringway"), "monitor", "--json", "--socket", world.socket], stdout=subprocess.PIPE, text=True)
    time.sleep(0.5)
    world.ringway("ifconfig", "tap0", "down")
    world.ringway("ifconfig", "tap0", "up")
    time.sleep(0.5)
    monitor.terminate()
    events = [json.loads(line) for line in monitor.communicate(timeout=5)[0].splitlines()]
    claim(any("tap0" in json.dumps(event) for event in events), f"the monitor saw nothing of tap0: {events}")
    claim(world.json("top", "--count", "1"), "top --json says nothing")
