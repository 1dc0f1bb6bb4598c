"""(c) The link goes down and up at the QEMU monitor, a hundred times; each change is reported."""

from testbed.program import bridge, link_changes, stop
from testbed.scenario import expect, scenario
from testbed.traffic import ping

TIMES = 100


@scenario(limit=240)
def down_and_up(t):
    """Both links change 200 times, the 82574L's and virtio-net's; each change is reported, traffic passes afterwards."""
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=2)
    addresses = {identity: t.guest.address(identity) for identity in ("e1000e", "virtio")}
    first = {identity: link_changes(program, address) for identity, address in addresses.items()}
    for identity, changes in first.items():  # a link that takes its time is reported down at first
        expect(changes in (["up"], ["down", "up"]), f"before any change the program said:\n{program.output()}")
    count = "; ".join(f"grep -c '^{address}.* link ' {program.log}" for address in addresses.values())
    for turn in range(TIMES):
        for up in (False, True):
            for identity in addresses:
                t.guest.set_link(identity, up)
            wanted = [len(changes) + 2 * turn + (2 if up else 1) for changes in first.values()]
            # The 82574L's link takes half a second to come up; virtio-net's is tried in its shadow.
            t.guest.wait_for(count, lambda out: all(int(seen) >= want for seen, want in zip(out.split(), wanted)), timeout=10,
                             interval=0.01, what=f"change {2 * turn + up + 1} of both links to be reported ({wanted} lines)")
    for identity, address in addresses.items():
        changes, made = link_changes(program, address), first[identity] + ["down", "up"] * TIMES
        wrong = next((n for n, pair in enumerate(zip(changes, made)) if pair[0] != pair[1]), min(len(changes), len(made)))
        expect(changes == made, f"{identity}: {len(changes)} changes reported, {len(made)} made; "
                                f"the first difference is at {wrong}: {changes[wrong:wrong + 6]}")
    ping(t, "A", "198.18.0.2", count=20)
    ping(t, "B", "2001:2::1", count=20)
    stop(program)


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
