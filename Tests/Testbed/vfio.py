"""Module VFIO against the guest's kernel, by `vfio-probe` (Tests/VFIOProbe): no driver of ours is involved."""

from dataclasses import replace

from testbed.scenario import Skip, expect, scenario
from testbed.topology import E1000E, NIC, VIRTIO, Topology

TWINS = Topology((E1000E, NIC("twin", "e1000e", 1, "vfio", "52:54:00:18:01:03", beside="e1000e")), hugepages=16)
# QEMU's e1000e cannot report errors: its device control register is read-only.
REPORTING = Topology((replace(VIRTIO, options={**VIRTIO.options, "aer": "on"}),), hugepages=16)
UNREMAPPED = Topology((VIRTIO,), hugepages=16, kernel_arguments="intremap=off")
UNTRANSLATED = Topology((replace(VIRTIO, owner="kernel"),), hugepages=16, kernel_arguments="intel_iommu=off")


def need(t):
    if t.guest.run("command -v vfio-probe").status:
        raise Skip("there is no vfio-probe binary")


def probe(t, arguments, status=0, **options):
    need(t)
    return t.guest.check(f"vfio-probe {t.expand(arguments)}", status=status, **options)


def refused(t, arguments, *words, **options):
    """The probe cannot open the card, and says why in these words."""
    output = probe(t, arguments, status=2, **options)
    for word in words:
        expect(t.expand(word) in output, f"the refusal does not say {t.expand(word)!r}: {output}")


@scenario(binary=False)
def a_card_is_held_mapped_reset_and_given_back(t):
    """BARs, hugepages at both ends of the address space, vectors, a fault for real, reset, close, open again."""
    for card, identity, vectors in (("{e1000e}", "0x8086:0x10d3", 5), ("{virtio}", "0x1af4:0x1041", 4)):
        output = probe(t, card)
        for line in (f"identity {identity} ", f"vectors {vectors}\n", "0xffffffff, after reset", "closed and opened again", "all well"):
            expect(line in output, f"{card} does not print {line!r}:\n{output}")


@scenario(binary=False)
def refusals_say_what_to_do(t):
    """Unknown, held by the kernel, without driver, without permission, in use: each with its sentence."""
    refused(t, "0000:99:00.0", "no PCI function 0000:99:00.0")
    refused(t, "99", "is no PCI address")
    refused(t, "{virtio}", "no permission to open /dev/vfio/", "ringway bind", user="ring")
    t.guest.bind_kernel("virtio")
    refused(t, "{virtio}", "belongs to the kernel's driver virtio-pci", "`ringway bind {virtio}`")
    t.guest.check(t.expand("echo {virtio} > /sys/bus/pci/drivers/virtio-pci/unbind"))
    refused(t, "{virtio}", "is bound to no driver")
    t.guest.bind_vfio("virtio")
    holder = t.guest.spawn(t.expand("vfio-probe {virtio} hold 60"))
    holder.wait_output("holding")
    refused(t, "{virtio}", "{virtio} is in use: another process holds its IOMMU group")
    probe(t, "{e1000e}")
    holder.kill(9)
    holder.wait()
    expect("all well" in probe(t, "{virtio}"), "the card does not come back from a killed process")


@scenario(binary=False)
def locked_memory_has_a_limit(t):
    """A mapping beyond RLIMIT_MEMLOCK is refused by name."""
    need(t)
    group = t.guest.bind_vfio("e1000e")[0]
    t.guest.check(f"chmod 666 /dev/vfio/{group}")
    output = t.guest.run(t.expand("ulimit -l 64; vfio-probe {e1000e}"), user="ring").output
    t.guest.check(f"chmod 600 /dev/vfio/{group}")
    expect("exceeds the locked-memory limit of 65536 bytes" in output, output)


def wanted_back(t, identity):
    """The kernel asks for the card: the event comes, we let go, and the card leaves."""
    need(t)
    watcher = t.guest.spawn(f"vfio-probe {t.guest.address(identity)} watch 30")
    watcher.wait_output("watching")
    t.guest.unplug(identity)
    status = watcher.wait(40)
    expect(status == 0, f"the watcher ended with {status}:\n{watcher.output()}")
    for line in ("events removal", "closed", "away"):
        expect(line in watcher.output(), f"the watcher does not print {line!r}:\n{watcher.output()}")
    t.guest.qmp.wait_event("DEVICE_DELETED", device=identity)


@scenario(binary=False, isolated=True)
def unplugging_asks_first(t):
    """device_del of both cards while they are held."""
    wanted_back(t, "e1000e")
    wanted_back(t, "virtio")


@scenario(REPORTING, binary=False, isolated=True)
def errors_of_the_card_are_told(t):
    """An uncorrectable error that QEMU puts on the bus reaches the program as an event."""
    need(t)
    watcher = t.guest.spawn(t.expand("vfio-probe {virtio} watch 20"))
    watcher.wait_output("watching")
    t.guest.qmp.command("human-monitor-command", **{"command-line": "pcie_aer_inject_error virtio MALF_TLP"})
    watcher.wait_output("events error", timeout=30)


@scenario(TWINS, binary=False)
def two_cards_in_one_group(t):
    """Two functions that nothing keeps apart: handed over together, held together by one process."""
    groups = t.guest.bind_vfio("e1000e", "twin")
    expect(groups[0] == groups[1], f"the cards are in groups {groups}")
    expect("all well" in probe(t, "{e1000e} beside {twin}"), "the cards do not share their group")
    expect("all well" in probe(t, "{twin}"), "the second card alone does not work")
    t.guest.bind_kernel("twin")
    refused(t, "{e1000e}", "shares IOMMU group", "{twin} (e1000e)")


@scenario(UNREMAPPED, binary=False)
def without_interrupt_remapping(t):
    """An IOMMU that cannot confine interrupts: refused, and taken when the machine's owner accepts the risk."""
    refused(t, "{virtio}", "does not remap interrupts", "allow_unsafe_interrupts=1")
    t.guest.check("echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts")
    expect("all well" in probe(t, "{virtio}"), "refused although the risk was accepted")


@scenario(UNTRANSLATED, binary=False)
def without_an_iommu(t):
    """A card behind no IOMMU is refused for that, before anybody tries to bind it."""
    refused(t, "{virtio}", "behind no IOMMU", "`intel_iommu=on`")
