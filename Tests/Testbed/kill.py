"""(d) kill -9 in mid-traffic, then start again: the cards work, no hugepage is lost."""

import signal

from testbed.program import bridge, pktgen_tx, stop
from testbed.scenario import expect, scenario
from testbed.traffic import ping

TIMES = 5


def hugepages_return(t, free):
    t.guest.wait_for("awk '/HugePages_(Free|Rsvd|Surp)/ {print $2}' /proc/meminfo", lambda out: out.split() == [str(free), "0", "0"],
                     timeout=10, what=f"{free} hugepages to be free again")


@scenario(limit=180)
def a_killed_bridge_leaves_nothing(t):
    """Five times, with both sources of hugepages: traffic runs, the bridge is killed, all pages are free, the next one forwards."""
    free = t.guest.hugepages_free()
    for turn in range(TIMES):
        program = bridge(t, "--memory-backing hugetlbfs" if turn % 2 else "")
        ping(t, "A", "198.18.0.2", count=3)
        expect(t.guest.hugepages_free() < free, "the bridge runs without hugepages: this scenario shows nothing")
        flood = t.background("A", "exec ping -A -q -w 60 -s 1400 198.18.0.2")
        load = t.background("B", "exec ping -A -q -w 60 -s 200 198.18.0.1")
        t.guest.check("sleep 1")
        program.kill(signal.SIGKILL)
        expect(program.wait(15) == 128 + signal.SIGKILL, f"it ended otherwise:\n{program.output()}")
        hugepages_return(t, free)
        for process in (flood, load):
            process.stop(signal.SIGKILL)
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=50, interval=0.02)
    ping(t, "B", "2001:2::1", size=1400, count=20)
    stop(program)
    hugepages_return(t, free)


@scenario(limit=180)
def a_killed_generator_leaves_nothing(t):
    """pktgen is killed while its rings are full, on each card; it works again at once."""
    free = t.guest.hugepages_free()
    for identity in ("e1000e", "virtio"):
        for _ in range(TIMES):
            program = t.start(f"pktgen tx --device {{{identity}}} --count 1000000000 --size 200")
            t.guest.check("usleep 700000")
            expect(program.is_running(), f"pktgen ended by itself:\n{program.output()}")
            program.kill(signal.SIGKILL)
            program.wait(15)
            hugepages_return(t, free)
        expect(pktgen_tx(t, identity, 500, 100, 2000)["packets"] == 500, "pktgen does not send after the kills")
