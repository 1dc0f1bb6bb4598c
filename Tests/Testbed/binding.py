"""bind and unbind: nothing is taken that is in use, and everything goes back as it was."""

from testbed.program import CONFIGURATION, MISSING, PERMISSION, USAGE, complaint, objects
from testbed.scenario import expect, scenario
from testbed.topology import NIC, Topology

TWO_IN_ONE = Topology((
    NIC("first", "e1000e", None, "kernel", "52:54:00:18:01:01"),
    NIC("second", "e1000e", None, "kernel", "52:54:00:18:01:02", beside="first"),
))


def state(t, identity):
    """(driver, driver_override) as sysfs has them; "(null)" is no override."""
    path = f"/sys/bus/pci/devices/{t.guest.address(identity)}"
    return tuple(t.guest.check(f"nic driver {t.guest.address(identity)}; cat {path}/driver_override").split())


def start_from_kernel(t, identity="e1000e"):
    """Leave the card as a fresh machine has it; returns its interface."""
    t.guest.bind_kernel(identity)
    return t.guest.check(t.expand(f"nic netdev {{{identity}}}")).strip()


def journals(t):
    return t.guest.check("find /run/ringway -name '*.journal' 2>/dev/null; true").split()


@scenario()
def a_card_goes_and_comes_back(t):
    """bind gives vfio-pci, unbind the former driver with its interface; no override and no journal stay behind."""
    for identity, driver in (("e1000e", "e1000e"), ("virtio", "virtio-pci")):
        interface = start_from_kernel(t, identity)
        expect(state(t, identity) == (driver, "(null)"), f"before: {state(t, identity)}")
        t.ringway(f"bind {{{identity}}}")
        expect(state(t, identity) == ("vfio-pci", "(null)"), f"after bind: {state(t, identity)}")
        expect(len(journals(t)) == 1, f"journals: {journals(t)}")
        t.ringway(f"bind {{{identity}}}")  # again: nothing to do
        t.ringway(f"unbind {{{identity}}}")
        expect(state(t, identity) == (driver, "(null)"), f"after unbind: {state(t, identity)}")
        expect(t.guest.check(t.expand(f"nic netdev {{{identity}}}")).strip() == interface, "the interface has another name")
        expect(not journals(t), f"journals stay: {journals(t)}")


@scenario()
def a_dry_run_changes_nothing(t):
    """--dry-run prints steps and leaves driver, override and journal alone."""
    start_from_kernel(t)
    output = t.ringway("bind --dry-run {e1000e}")
    expect("vfio-pci" in output and t.guest.address("e1000e") in output, f"the plan says:\n{output}")
    expect(state(t, "e1000e") == ("e1000e", "(null)") and not journals(t), "something was changed")


@scenario()
def a_card_in_use_is_refused(t):
    """An address or a route keeps a card; --force takes it all the same."""
    interface = start_from_kernel(t)
    t.guest.check(f"ip address add 198.18.9.1/24 dev {interface}; ip link set {interface} up")
    complaint(t.ringway("bind {e1000e}", status=CONFIGURATION), "198.18.9.1", "--force")
    t.guest.check(f"ip address flush dev {interface}; ip -6 address flush dev {interface}; ip route add 198.18.8.0/24 dev {interface}")
    complaint(t.ringway("bind {e1000e}", status=CONFIGURATION), "198.18.8.0", "--force")
    expect(state(t, "e1000e") == ("e1000e", "(null)"), f"the refusal left {state(t, 'e1000e')}")
    t.ringway("bind --force {e1000e}")
    expect(state(t, "e1000e")[0] == "vfio-pci", "--force did not take it")
    t.ringway("unbind {e1000e}")


@scenario()
def unconfirmed_goes_back(t):
    """--confirm 3s without an answer: the former driver is back; with --confirmed the card stays."""
    start_from_kernel(t)
    t.ringway("bind --confirm 3s {e1000e}")
    expect(state(t, "e1000e")[0] == "vfio-pci", "it was not bound")
    t.guest.wait_for(t.expand("nic driver {e1000e}"), lambda out: out.strip() == "e1000e", timeout=20, what="the card to go back")
    t.guest.wait_for("find /run/ringway -name '*.journal'", lambda out: not out.strip(), timeout=10, what="the journal to go")
    expect(state(t, "e1000e") == ("e1000e", "(null)"), f"it went back to {state(t, 'e1000e')}")
    t.ringway("bind --confirm 4s {e1000e}")
    t.ringway("bind --confirmed {e1000e}")
    t.guest.check("sleep 6")
    expect(state(t, "e1000e")[0] == "vfio-pci", "it was confirmed and went back all the same")
    t.ringway("unbind {e1000e}")


@scenario(limit=180)
def killed_at_any_moment(t):
    """bind is killed after ever longer times; --recover or the next bind leaves nothing half done."""
    start_from_kernel(t)
    reached = set()
    for milliseconds in range(0, 360, 30):
        t.guest.run(t.expand(f"ringway bind {{e1000e}} & usleep {milliseconds * 1000}; kill -9 $! 2>/dev/null; wait"))
        reached.add(state(t, "e1000e"))
        if milliseconds % 60:
            t.ringway("unbind --recover")
            left = state(t, "e1000e")
            expect(left in (("e1000e", "(null)"), ("vfio-pci", "(null)")), f"after {milliseconds} ms and --recover: {left}")
        t.ringway("bind {e1000e}")
        expect(state(t, "e1000e") == ("vfio-pci", "(null)"), f"killed after {milliseconds} ms, the next bind left {state(t, 'e1000e')}")
        t.ringway("unbind {e1000e}")
        expect(state(t, "e1000e") == ("e1000e", "(null)"), f"killed after {milliseconds} ms, unbind left {state(t, 'e1000e')}")
        expect(not journals(t), f"a journal stays: {journals(t)}")
    t.note("states when killed: " + ", ".join("/".join(s) for s in sorted(reached)))


@scenario(topology=TWO_IN_ONE)
def a_group_goes_together(t):
    """Two cards in one IOMMU group: one alone is refused or warned of, both together go and come back."""
    groups = {t.guest.check(t.expand(f"basename $(readlink /sys/bus/pci/devices/{{{name}}}/iommu_group)")) for name in ("first", "second")}
    expect(len(groups) == 1, f"the cards are in groups {groups}: this scenario shows nothing")
    result = t.guest.run(t.expand("ringway bind {first}"))
    expect(result.status == CONFIGURATION, f"one alone ends with {result.status}:\n{result.output}")
    complaint(result.output, t.guest.address("second"))
    expect(state(t, "first") == ("e1000e", "(null)"), f"the refusal left {state(t, 'first')}")
    t.ringway("bind {first} {second}")
    expect(state(t, "first")[0] == state(t, "second")[0] == "vfio-pci", "not both were bound")
    listed = {card["address"]: card for card in objects(t.ringway("devices --json"))[0]}
    members = [member["address"] for member in listed[t.guest.address("first")]["group_members"]]
    expect(t.guest.address("second") in members, f"devices lists the members {members}")
    t.ringway("unbind {first} {second}")
    expect(state(t, "first") == state(t, "second") == ("e1000e", "(null)"), "not both came back")


@scenario()
def wrong_words_are_refused(t):
    """A missing card, a device that is no card, a bad address, an ordinary user."""
    complaint(t.ringway("bind 0000:77:00.0", status=MISSING), "0000:77:00.0")
    complaint(t.ringway("unbind 0000:77:00.0", status=MISSING), "0000:77:00.0")
    complaint(t.ringway("bind nonsense", status=USAGE), "nonsense")
    complaint(t.ringway("bind 0000:00:1f.0", status=USAGE), "0000:00:1f.0")
    start_from_kernel(t)
    complaint(t.ringway("bind {e1000e}", status=PERMISSION, user="ring"))
    expect(state(t, "e1000e") == ("e1000e", "(null)"), "an ordinary user changed something")
