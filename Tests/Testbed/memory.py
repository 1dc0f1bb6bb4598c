"""hugepages.conf and the cards' memory on a machine with two NUMA nodes."""

import json
import re
import signal
import time

from testbed.program import CONFIGURATION, complaint, stop
from testbed.scenario import expect, scenario
from testbed.topology import E1000E, PEER_A, Topology

# The kernel divides the guest's memory into two nodes by itself.
TWO_NODES = Topology((PEER_A, E1000E), hugepages=0, kernel_arguments="numa=fake=2")
FILE = "/tmp/hugepages.conf"
MOUNT = "/mnt/hugepages-2M"
NODE = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"


def configure(t, text):
    t.guest.put(text.encode(), FILE)
    return f"--config {FILE}"


def pools(t):
    """{node: (total, free)} of the pages of 2 MiB; None is the sum."""
    found = json.loads(t.ringway("hugepages --json"))
    return {pool.get("node"): (pool["total"], pool["free"]) for pool in found if pool["page_size"] == 2 << 20}


def clear(t):
    t.guest.check(f"umount {MOUNT} 2>/dev/null; for n in 0 1; do echo 0 > {NODE.format('$n')}; done")


def card_on_node(t, node):
    t.guest.check(t.expand(f"echo {node} > /sys/bus/pci/devices/{{e1000e}}/numa_node"))


@scenario(topology=TWO_NODES)
def pages_are_reserved_by_node(t):
    """apply does what the file says, node by node; a second time there is nothing to do; check agrees."""
    clear(t)
    option = configure(t, f"pages size=2M count=8 node=0\npages size=2M count=24 node=1 # more\nmount size=2M path={MOUNT} group=ring mode=0770\n")
    plan = t.ringway(f"hugepages apply {option} --dry-run")
    expect(plan.count("would ") == 4 and pools(t) == {None: (0, 0), 0: (0, 0), 1: (0, 0)}, f"the dry run did something:\n{plan}")
    output = t.ringway(f"hugepages check {option}", status=CONFIGURATION)
    expect("reserve 24 pages of 2 MiB on node 1" in output, f"check misses nothing:\n{output}")
    t.ringway(f"hugepages apply {option}")
    expect(pools(t) == {None: (32, 32), 0: (8, 8), 1: (24, 24)}, f"the pools are {pools(t)}")
    mounted = t.guest.check(f"grep ' {MOUNT} hugetlbfs ' /proc/mounts; stat -c '%a %G' {MOUNT}")
    expect("pagesize=2M" in mounted and "770 ring" in mounted, f"the mount is {mounted}")
    again = t.ringway(f"hugepages apply {option}")
    expect(again.count("nothing to do") == 3 == len(again.splitlines()), f"the second run did something:\n{again}")
    t.ringway(f"hugepages check {option}")
    each = configure(t, "pages size=2M count=10 node=each")
    t.ringway(f"hugepages apply {each}")
    expect(pools(t) == {None: (34, 34), 0: (10, 10), 1: (24, 24)}, f"a pool was made smaller, or not larger: {pools(t)}")
    clear(t)


@scenario(topology=TWO_NODES)
def mistakes_in_the_file_have_a_place(t):
    """Line, column and a sentence for each; nothing is applied."""
    option = configure(t, "pages size=2M count=4\npages size=2M cuont=4\nmount size=3M path=/mnt/x\n")
    output = t.ringway(f"hugepages apply {option}", status=CONFIGURATION)
    for words in (f"{FILE}:2:15: `cuont` is no key of `pages`", f"{FILE}:3:12: `3M` is no page size"):
        expect(words in output, f"it does not say {words!r}:\n{output}")
    expect(pools(t)[None] == (0, 0), "the good line was applied all the same")
    output = t.ringway(f"hugepages apply {configure(t, 'pages size=2M count=4 node=7')}", status=CONFIGURATION)
    complaint(output, "node 7")


@scenario(topology=TWO_NODES)
def memory_lies_on_the_cards_node(t):
    """By memfd and by libhugetlbfs: huge, bound, every page on the card's node; a killed program leaves none behind."""
    t.ringway("hugepages apply " + configure(t, f"pages size=2M count=40 node=each\nmount size=2M path={MOUNT}"))
    for node in (1, 0):
        card_on_node(t, node)
        for backing in ("memfd", "hugetlbfs"):
            program = t.start(f"pktgen rx --device {{e1000e}} --seconds 60 --memory-backing {backing}", ready="receiving")
            lines = [line for line in t.guest.check(f"cat /proc/{program.pid}/numa_maps").splitlines() if " huge " in line]
            expect(len(lines) == 2, f"there are {len(lines)} regions of hugepages:\n" + "\n".join(lines))
            for line in lines:
                where = re.findall(r" N(\d+)=(\d+)", line)
                expect(f" bind:{node} " in line and [n for n, _ in where] == [str(node)], f"a region lies elsewhere: {line}")
                name = {"memfd": "/memfd:ringway-", "hugetlbfs": "/libhugetlbfs.tmp."}[backing]
                expect(name in line and "(deleted)" in line, f"the file is another: {line}")
            held = 40 - pools(t)[node][1]
            expect(held == sum(int(re.search(rf" N{node}=(\d+)", line).group(1)) for line in lines), f"{held} pages are gone from node {node}")
            program.kill(signal.SIGKILL)
            program.wait(15)
            deadline = time.monotonic() + 10
            while pools(t)[None] != (80, 80) and time.monotonic() < deadline:
                time.sleep(0.1)
            expect(pools(t) == {None: (80, 80), 0: (40, 40), 1: (40, 40)}, f"the killed program left {pools(t)}")
            left = t.guest.check("ls $(awk '$3 == \"hugetlbfs\" {print $2}' /proc/mounts) | grep libhugetlbfs || true").strip()
            expect(left == "", f"files are left in a mount: {left}")
    clear(t)


@scenario(topology=TWO_NODES)
def too_few_on_one_node(t):
    """Pages on the other node do not count; the command in the hint, run once, mends it."""
    clear(t)
    t.ringway("hugepages apply " + configure(t, "pages size=2M count=40 node=0"))
    card_on_node(t, 1)
    output = t.ringway("pktgen rx --device {e1000e} --seconds 1", status=CONFIGURATION)
    complaint(output, "hugepages")
    expect("wanted on node 1, 0 available" in output, f"the line lacks the node:\n{output}")
    command = re.search(r"`(echo \d+ \| sudo tee /sys/devices/system/node/node1/\S+)`", output)
    expect(command is not None, f"there is no command:\n{output}")
    t.guest.check(command.group(1).replace("sudo ", ""))
    stop(t.start("pktgen rx --device {e1000e} --seconds 60", ready="receiving"))
    # A few pages less: fewer buffers, and that is said.
    total = pools(t)[1][0]
    t.guest.check(f"echo {total - 4} > {NODE.format(1)}")
    program = t.start("pktgen rx --device {e1000e} --seconds 60", ready="receiving")
    expect(re.search(r"\d+ buffers instead of \d+: \d+ hugepages of 2 MiB wanted on node 1", program.output()),
           f"it does not say that there are fewer buffers:\n{program.output()}")
    stop(program)
    clear(t)
