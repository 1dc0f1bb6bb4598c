"""(c) The link goes down and up at the QEMU monitor, a hundred times; each change is reported."""

from testbed.program import bridge, link_changes, stop
from testbed.scenario import expect, scenario
from testbed.traffic import ping

TIMES = 100


def flap(t, identity):
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=2)
    address = t.guest.address(identity)
    first = link_changes(program, address)  # a link that takes its time is reported down at first
    expect(first in (["up"], ["down", "up"]), f"before any change the program said:\n{program.output()}")
    pattern = f"grep -c '^{address}.* link ' {program.log}"
    for turn in range(TIMES):
        for up in (False, True):
            t.guest.set_link(identity, up)
            wanted = len(first) + 2 * turn + (2 if up else 1)
            t.guest.wait_for(pattern, lambda out: int(out) >= wanted, timeout=10, interval=0.01,
                             what=f"change {wanted - len(first)} of {identity}'s link to be reported")
    changes = link_changes(program, address)
    wanted = first + ["down", "up"] * TIMES
    wrong = next((n for n, pair in enumerate(zip(changes, wanted)) if pair[0] != pair[1]), min(len(changes), len(wanted)))
    expect(changes == wanted, f"{len(changes)} changes reported, {len(wanted)} made; the first difference is at {wrong}: {changes[wrong:wrong + 6]}")
    ping(t, "A", "198.18.0.2", count=20)
    ping(t, "B", "2001:2::1", count=20)
    stop(program)


@scenario(limit=180)
def e1000e_down_and_up(t):
    """The 82574L's link changes 200 times; traffic passes afterwards."""
    flap(t, "e1000e")


@scenario(limit=180)
def virtio_down_and_up(t):
    """virtio-net's link changes 200 times by its configuration interrupt; traffic passes afterwards."""
    flap(t, "virtio")


@scenario()
def down_at_the_start(t):
    """A bridge that starts without a link waits for it, says so, and forwards when it comes."""
    t.guest.set_link("e1000e", False)
    program = t.start("bridge {e1000e} {virtio}", ready=t.expand("{e1000e}.* link down"))
    t.guest.set_link("e1000e", True)
    program.wait_output(t.expand("{e1000e}.* link up"))
    program.wait_output("forwarding")
    ping(t, "A", "198.18.0.2")
    stop(program)
