"""`ringwayd` in a guest: cards behind kernel VFIO become em0, igb0 and vtnet0 and route between Linux kernels.

    hub 0:  peera (kernel virtio-net, namespace A) ── e1000e (vfio-pci, em0)
    hub 1:  virtio (vfio-pci, vtnet0) ── peerb (kernel virtio-net, namespace B)
"""

import re
import signal

from testbed import backport
from testbed.program import last_object
from testbed.scenario import Skip, expect, scenario
from testbed.topology import NIC, PEER_A, PEER_B, E1000E, VIRTIO, Topology
from testbed.traffic import ping, transfer

ROUTED = Topology((PEER_A, E1000E, VIRTIO, PEER_B))
IGB = Topology((
    NIC("peera", "virtio-net-pci", 0, "A", "52:54:00:18:00:0a", ("198.18.0.1/24", "2001:2::1/64")),
    NIC("igb", "igb", 0, "vfio", "52:54:00:18:03:01"),
    NIC("e1000e", "e1000e", 1, "vfio", "52:54:00:18:01:01"),
    NIC("peerb", "igb", 1, "B", "52:54:00:18:00:0b", ("198.18.0.2/24", "2001:2::2/64")),
), qemu=backport.command())

ONE_PING = "/usr/bin/ip netns exec {} sh -c 'ping -c 1 -W 1 {} >/dev/null 2>&1 && echo yes || echo no'"

CONFIGURATION = """
[control]
socket = "/run/ringwayd.sock"
[netisr]
workers = 2
[sysctl]
"net.inet.ip.forwarding" = 1
"net.inet6.ip6.forwarding" = 1
[[card]]
device = "{left}"
addresses = ["198.18.1.1/24", "2001:2:0:1::1/64"]
[[card]]
device = "{right}"
addresses = ["198.18.2.1/24", "2001:2:0:2::1/64"]
"""


def start(t, left="{e1000e}", right="{virtio}"):
    """The daemon between both peers, which get networks of their own for as long as it runs."""
    if t.guest.run("command -v ringwayd").status:
        raise Skip("there is no ringwayd binary")
    text = CONFIGURATION.replace("{left}", t.expand(left)).replace("{right}", t.expand(right))
    t.guest.put(text.encode(), "/tmp/ringwayd.toml")
    daemon = t.guest.spawn("ringwayd --config /tmp/ringwayd.toml", name="ringwayd")
    try:
        t.guest.wait_for("ringway ifconfig -l --socket /run/ringwayd.sock", lambda out: "error" not in out and len(set(out.split()) - {"lo0"}) >= 2,
                         timeout=60, what="the daemon's interfaces")
    except Exception as error:
        raise AssertionError(f"{error}\nringwayd said:\n{daemon.output()}")
    for name, number in (("A", 1), ("B", 2)):
        device = f"peer{name.lower()}"
        t.guest.check(f"""set -e
            ip -n {name} address del 198.18.0.{number}/24 dev {device}
            ip -n {name} address del 2001:2::{number}/64 dev {device}
            ip -n {name} address add 198.18.{number}.2/24 dev {device}
            ip -n {name} address add 2001:2:0:{number}::2/64 dev {device} nodad
            ip -n {name} route replace 198.18.{3 - number}.0/24 via 198.18.{number}.1
            ip -n {name} route replace 2001:2:0:{3 - number}::/64 via 2001:2:0:{number}::1""")
    for network in ("A", "B"):
        other = "2" if network == "A" else "1"
        try:
            t.guest.wait_for(ONE_PING.format(network, f"2001:2:0:{other}::2"),
                             lambda out: "yes" in out, timeout=25, what=f"an answer to {network} through the router")
        except Exception as error:
            state = t.guest.run("ringway ifconfig --socket /run/ringwayd.sock; ringway netstat -d --socket /run/ringwayd.sock; "
                                f"ip -n {network} address; ip -n {network} -6 route; ip -n {network} -6 neigh").output
            raise AssertionError(f"{error}\n{state}\nringwayd said:\n{daemon.output()}")
    return daemon


def end(t, daemon):
    status = daemon.stop(signal.SIGTERM)
    for name, number in (("A", 1), ("B", 2)):
        device = f"peer{name.lower()}"
        t.guest.run(f"ip -n {name} address del 198.18.{number}.2/24 dev {device}; "
                    f"ip -n {name} address del 2001:2:0:{number}::2/64 dev {device}; "
                    f"ip -n {name} address add 198.18.0.{number}/24 dev {device}; "
                    f"ip -n {name} address add 2001:2::{number}/64 dev {device} nodad")
    expect(status == 0, f"ringwayd ended with {status}:\n{daemon.output()}")


def ask(t, arguments):
    return t.guest.check(f"ringway {arguments} --socket /run/ringwayd.sock")


def route_traffic(t):
    for size in (56, 1472, 4000):
        ping(t, "A", "198.18.2.2", size=size)
        ping(t, "B", "2001:2:0:1::2", size=size)
    transfer(t, "A", "B", "198.18.2.2", 500_003, 7600)
    transfer(t, "B", "A", "2001:2:0:1::2", 500_003, 7601)


@scenario(topology=ROUTED)
def routes_between_em0_and_vtnet0(t):
    """Pings, fragments and files through a router of the 82574L and virtio-net; tables say what happened."""
    daemon = start(t)
    route_traffic(t)
    text = ask(t, "ifconfig em0")
    for word in ("flags=", "UP", "RUNNING", "inet 198.18.1.1 netmask 0xffffff00", "status: active", "groups: "):
        expect(word in text, f"`ifconfig em0` does not say {word!r}:\n{text}")
    expect(re.search(r"^vtnet0 +1500 +<Link#\d+>", ask(t, "netstat -i"), re.M), "netstat -i does not list vtnet0")
    for interface in last_object(ask(t, "netstat -i --json"))["interfaces"]:
        if interface["name"] in ("em0", "vtnet0"):
            expect(interface["counters"]["ipackets"] > 100, f"{interface}")
    end(t, daemon)


@scenario(topology=ROUTED)
def links_and_flags_follow_the_card(t):
    """A cable that is pulled shows, traffic passes when it is back; an interface goes down and up."""
    daemon = start(t)
    t.guest.set_link("e1000e", False)
    t.guest.wait_for("ringway ifconfig em0 --socket /run/ringwayd.sock", lambda out: "no carrier" in out, timeout=20,
                     what="the pulled cable")
    t.guest.set_link("e1000e", True)
    t.guest.wait_for("ringway ifconfig em0 --socket /run/ringwayd.sock", lambda out: "status: active" in out, timeout=20,
                     what="the cable's return")
    ask(t, "ifconfig vtnet0 down")
    ask(t, "ifconfig vtnet0 up")
    t.guest.wait_for(ONE_PING.format("A", "198.18.2.2"), lambda out: "yes" in out, timeout=30,
                     what="traffic after the changes")
    end(t, daemon)


@scenario(topology=ROUTED)
def a_card_that_is_pulled_out_is_detached(t):
    """Hot unplug under the daemon: em0 leaves, the daemon and vtnet0 stay."""
    daemon = start(t)
    t.guest.unplug("e1000e")
    t.guest.wait_for("ringway ifconfig -l --socket /run/ringwayd.sock", lambda out: "em0" not in out and "vtnet0" in out, timeout=30,
                     what="em0's departure")
    expect("198.18.1.0/24" not in ask(t, "netstat -r"), "routes through a card that left are still there")
    ping(t, "B", "198.18.2.1")
    end(t, daemon)


@scenario(topology=IGB)
def routes_between_igb0_and_em0(t):
    """The 82576 as igb0; the other peer is Linux's igb driver."""
    daemon = start(t, "{igb}", "{e1000e}")
    route_traffic(t)
    expect("igb0" in ask(t, "ifconfig -l"), "there is no igb0")
    end(t, daemon)
