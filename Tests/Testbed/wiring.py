"""The testbed itself, without our program: if one of these fails, no other result means anything."""

from testbed.scenario import expect, scenario
from testbed.traffic import ping, transfer


@scenario(binary=False)
def cards_are_bound_to_vfio(t):
    """Both cards of ours sit behind vfio-pci, each in an IOMMU group of its own."""
    groups = set()
    for identity in ("e1000e", "virtio"):
        expect(t.guest.driver(identity) == "vfio-pci", f"{identity} has driver {t.guest.driver(identity)}")
        path = f"/sys/bus/pci/devices/{t.guest.address(identity)}/iommu_group"
        group = t.guest.check(f"basename $(readlink {path})").strip()
        members = t.guest.check(f"ls {path}/devices").split()
        expect(members == [t.guest.address(identity)], f"group {group} of {identity} holds {members}")
        t.guest.check(f"test -c /dev/vfio/{group}")
        groups.add(group)
    expect(len(groups) == 2, f"both cards are in one group: {groups}")


@scenario(binary=False)
def nothing_passes_without_a_program(t):
    """Peer A cannot reach peer B by itself: what passes later has passed through us."""
    status = t.guest.run("ip netns exec A ping -c 2 -i 0.2 -W 1 198.18.0.2").status
    expect(status != 0, "the peers reach each other although nothing joins the hubs")


@scenario(binary=False)
def peers_meet_over_a_kernel_bridge(t):
    """The wiring carries packets: the kernel's own drivers and bridge stand in for ours."""
    for identity in ("e1000e", "virtio"):
        t.guest.bind_kernel(identity)
    t.guest.check(t.expand("""set -e
        modprobe bridge
        ip link add br0 type bridge
        for address in {e1000e} {virtio}; do
            dev=$(nic netdev $address)
            ip link set $dev master br0
            ip link set $dev up
        done
        ip link set br0 up"""))
    t.guest.wait_for("ip netns exec A ping -c 1 -W 1 198.18.0.2 >/dev/null && echo reached", lambda out: "reached" in out,
                     what="peer B to answer through the kernel's bridge")
    ping(t, "A", "198.18.0.2")
    ping(t, "B", "2001:2::1")
    transfer(t, "A", "B", "198.18.0.2", 100_001)
    t.guest.check("ip link delete br0")


@scenario(binary=False)
def links_follow_the_monitor(t):
    """set_link at the QEMU monitor reaches the guest's cards."""
    for identity, carrier in (("virtio", "cat /sys/class/net/$dev/carrier"),
                              # The kernel's e1000e driver misses QEMU's second link interrupt (see the README): ask the card.
                              ("e1000e", "ethtool -d $dev | awk '/Link up:/ { print $3 == \"link\" }'")):
        t.guest.bind_kernel(identity)
        device = t.guest.check(f"nic netdev {t.guest.address(identity)}").strip()
        t.guest.check(f"ip link set {device} up")
        for state in ("1", "0", "1"):
            t.guest.set_link(identity, state == "1")
            t.guest.wait_for(f"dev={device}; {carrier}", lambda out: out.strip() == state, what=f"the link of {identity} to be {state}")


@scenario(binary=False)
def files_go_both_ways_unchanged(t):
    """put and get are binary safe, the agent's framing holds."""
    for data in (b"", b"\n", bytes(range(256)) * 1000, b"= 0 5\nREADY\n" * 100):
        t.guest.put(data, "/root/data")
        expect(t.guest.get("/root/data") == data, f"{len(data)} bytes came back different")
    result = t.guest.run("printf 'a\\n\\nb'; exit 5")
    expect((result.status, result.output) == (5, "a\n\nb"), f"run gave {result}")
    expect(t.guest.run("sleep 20", timeout=1).status == 137, "a command outlived its time")


@scenario(binary=False, isolated=True)
def a_wrong_dma_address_is_noticed(t):
    """A card told to read memory that nobody mapped for it: the IOMMU's complaint reaches the runner, which fails scenarios by it."""
    t.complaints_expected = True
    # Registers TDBAL, TDBAH, TDLEN, TDH, TCTL, TDT of the 82574 (datasheet, 10.2.6): one descriptor at an address never mapped.
    t.guest.check(t.expand("""set -e
        cd /sys/bus/pci/devices/{e1000e}
        echo on > power/control
        usleep 200000
        # The command register, at byte 4: memory and bus mastering on.
        printf '\\006\\000' | dd of=config bs=1 seek=4 conv=notrunc 2>/dev/null
        base=$(head -n 1 resource | cut -d ' ' -f 1)
        while read -r offset value; do devmem $((base + offset)) 32 $value; done <<END
        0x3800 0xdead0000
        0x3804 0
        0x3808 4096
        0x3810 0
        0x0400 0x2
        0x3818 1
END"""))
    t.guest.wait_for("dmesg | grep 'DMAR: .*fault addr'", lambda out: "dead0000" in out, timeout=10, what="the IOMMU to report the fault")


@scenario(binary=False, isolated=True)
def a_card_can_be_unplugged(t):
    """device_del takes a card out of the running guest, and the guest survives."""
    t.guest.unplug("e1000e")
    t.guest.wait_for(t.expand("ls -d /sys/bus/pci/devices/{e1000e} 2>/dev/null"), lambda out: not out.strip())
    t.guest.qmp.wait_event("DEVICE_DELETED", device="e1000e")
    expect(t.guest.driver("virtio") == "vfio-pci", "the other card was touched")
