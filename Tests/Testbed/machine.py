"""devices and doctor, and what happens on a machine that is not ready."""

from dataclasses import replace

from testbed.program import CONFIGURATION, FAILURE, MISSING, PERMISSION, USAGE, bridge, complaint, objects, pktgen_tx, stop
from testbed.scenario import expect, scenario
from testbed.topology import DEFAULT
from testbed.traffic import ping

NO_HUGEPAGES = replace(DEFAULT, hugepages=0)
NO_IOMMU = replace(DEFAULT, nics=tuple(replace(nic, owner="kernel") for nic in DEFAULT.nics), kernel_arguments="intel_iommu=off")
PERSON = "ring"


@scenario()
def devices_are_listed(t):
    """devices --json tells address, driver, group and which driver of ours serves each card."""
    t.guest.bind_kernel("virtio")
    cards = {card["address"]: card for card in objects(t.ringway("devices --json"))[0]}
    expect(set(cards) == set(t.guest.addresses.values()), f"listed are {sorted(cards)}")
    first, second = cards[t.guest.address("e1000e")], cards[t.guest.address("virtio")]
    expect((first["vendor"], first["device"], first["driver"], first["ringway_driver"]) == ("8086", "10d3", "vfio-pci", "e1000e"), f"{first}")
    expect((second["driver"], second["ringway_driver"]) == ("virtio-pci", "virtio-net"), f"{second}")
    interface = t.guest.check(t.expand("nic netdev {virtio}")).strip()
    expect(second["interfaces"] == [interface], f"the interface is {interface}: {second}")
    group = t.guest.check(t.expand("basename $(readlink /sys/bus/pci/devices/{e1000e}/iommu_group)")).strip()
    expect(str(first["iommu_group"]) == group and first["group_members"] == [], f"the group is {group}, alone: {first}")
    table = t.ringway("devices")
    expect(all(address in table for address in cards), f"the table misses cards:\n{table}")


@scenario()
def a_ready_machine_satisfies_the_doctor(t):
    """Nothing that doctor calls required is missing where everything works."""
    findings = objects(t.ringway("doctor --json"))[0]
    expect(not [f for f in findings if f["status"] == "fail"], f"failures: {[f for f in findings if f['status'] == 'fail']}")
    expect(len(findings) >= 6, f"only {len(findings)} findings")


@scenario(topology=NO_HUGEPAGES)
def without_hugepages(t):
    """One line says how many are wanted and the command that reserves them; --no-huge does without."""
    result = t.guest.run(t.expand("ringway bridge {e1000e} {virtio}"))
    expect(result.status == CONFIGURATION, f"it ended with {result.status}:\n{result.output}")
    complaint(result.output, "hugepages")
    output = t.ringway("doctor", status=CONFIGURATION)
    expect("hugepages" in output, f"doctor says nothing of hugepages:\n{output}")
    program = bridge(t, "--no-huge")
    ping(t, "A", "198.18.0.2")
    stop(program)
    t.guest.check("echo 64 > /proc/sys/vm/nr_hugepages")
    stop(bridge(t))
    t.guest.check("echo 0 > /proc/sys/vm/nr_hugepages")


@scenario(topology=NO_IOMMU)
def without_an_iommu(t):
    """bind refuses, and doctor names the kernel argument that switches the IOMMU on."""
    complaint(t.ringway("bind {e1000e}", status=CONFIGURATION), "IOMMU")
    expect(t.guest.driver("e1000e") == "e1000e", "the card was taken all the same")
    output = t.ringway("doctor", status=CONFIGURATION)
    expect("intel_iommu=on" in output, f"doctor does not say intel_iommu=on:\n{output}")


@scenario()
def wrong_drivers_and_missing_cards(t):
    """A card that the kernel drives is a matter of configuration (78), one that is not there is missing (69)."""
    t.guest.bind_kernel("e1000e")
    for command in ("pktgen tx --device {e1000e} --count 1", "capture {e1000e} -w /root/x", "bridge {e1000e} {virtio}"):
        complaint(t.ringway(command, status=CONFIGURATION), t.guest.address("e1000e"), "bind")
    for command in ("pktgen tx --device 0000:77:00.0 --count 1", "capture 0000:77:00.0 -w /root/x", "bridge {virtio} 0000:77:00.0"):
        complaint(t.ringway(command, status=MISSING), "0000:77:00.0")
    for command in ("bridge {virtio}", "pktgen tx --device {virtio} --size 99999", "bridge {virtio} {virtio}", "capture"):
        complaint(t.ringway(command, status=USAGE))


@scenario()
def a_busy_card_is_refused(t):
    """A second program on the same card gets an error that says so, and the first is not disturbed."""
    program = bridge(t)
    result = t.guest.run(t.expand("ringway pktgen tx --device {virtio} --count 1"))
    expect(result.status == FAILURE, f"the second ended with {result.status}:\n{result.output}")
    complaint(result.output, t.guest.address("virtio"))
    ping(t, "A", "198.18.0.2")
    stop(program)


@scenario()
def an_ordinary_user(t):
    """With the group's device file and a sufficient memlock limit no root is needed; without, the error says which."""
    groups = [t.guest.check(t.expand(f"basename $(readlink /sys/bus/pci/devices/{{{name}}}/iommu_group)")).strip() for name in ("e1000e", "virtio")]
    complaint(t.ringway("pktgen tx --device {e1000e} --count 1", status=PERMISSION, user=PERSON), "/dev/vfio/" + groups[0])
    # What the udev rule does on a whole system.
    t.guest.check("".join(f"chown {PERSON} /dev/vfio/{group}; " for group in groups) + "chmod 666 /dev/vfio/vfio")
    command = t.expand("ringway pktgen tx --device {e1000e} --count 100 --rate 1000 --json")
    result = t.guest.run(f"ulimit -l 64; su -s /bin/sh {PERSON} -c '{command}'")
    expect(result.status in (PERMISSION, CONFIGURATION), f"with 64 KiB of memlock it ended with {result.status}:\n{result.output}")
    complaint(result.output, "memlock")
    output = t.guest.check(f"ulimit -l unlimited; su -s /bin/sh {PERSON} -c '{command}'", timeout=60)
    expect(objects(output)[-1]["packets"] == 100, output)
    t.guest.check("".join(f"chown root /dev/vfio/{group}; " for group in groups))


@scenario()
def generators_after_each_other(t):
    """Cards opened and closed in turn by different commands: each leaves them usable for the next."""
    for _ in range(3):
        for identity in ("e1000e", "virtio"):
            expect(pktgen_tx(t, identity, 50, 60, 1000)["packets"] == 50, f"{identity} did not send")
