"""What a bind leaves for later: the network of a card that goes back, and cards taken at every boot."""

from testbed.program import CONFIGURATION, PERMISSION, complaint
from testbed.scenario import expect, scenario


def start_from_kernel(t):
    """The card with the kernel's driver; returns its interface."""
    t.guest.bind_kernel("e1000e")
    return t.guest.check(t.expand("nic netdev {e1000e}")).strip()


def network(t, interface):
    """Addresses and routes, without the numbers that differ from one driver start to the next."""
    commands = (f"ip -o address show dev {interface} scope global", f"ip route show dev {interface}",
                f"ip -6 route show dev {interface}", f"cat /sys/class/net/{interface}/mtu")
    text = t.guest.check("; ".join(commands)).replace(" tentative", "").replace(" linkdown", "")
    return sorted(line.split(":", 1)[-1].strip() for line in text.splitlines() if "fe80::" not in line)


@scenario()
def a_forced_card_comes_back_with_its_network(t):
    """--force --confirm on a card with addresses and routes: when the time is over they are back, with the MTU."""
    interface = start_from_kernel(t)
    t.guest.check(f"""set -e
        ip link set {interface} mtu 1400 up
        ip address add 198.18.9.1/24 dev {interface}
        ip address add 2001:2:0:9::1/64 dev {interface} nodad
        ip route add 198.19.0.0/16 via 198.18.9.7
        ip -6 route add 2001:2:0:a::/64 via 2001:2:0:9::7""")
    before = network(t, interface)
    expect(len(before) >= 7, f"the network is {before}")
    t.ringway("bind --force --confirm 2s {e1000e}")
    t.guest.wait_for("ls /run/ringway/bind", lambda out: "journal" not in out, timeout=20, what="the journal to go")
    after = network(t, interface)
    expect(after == before, f"before {before}\nafter  {after}")
    t.guest.check(f"ip link set {interface} down; ip address flush dev {interface}; ip -6 route flush dev {interface}")


@scenario()
def persisted_cards_are_taken_again(t):
    """--persist: the next boot takes the card, gives it back to the right driver, and leaves another card alone."""
    start_from_kernel(t)
    card = t.expand("/etc/ringway/bind.d/{e1000e}")
    t.ringway("bind --persist --user ring {e1000e}")
    t.guest.check(f"grep -q 'card 8086:10d3' {card} && test -e /etc/systemd/system/ringway-bind.service")
    # A boot: no journals, and the card without a driver because its module has not come yet.
    t.guest.check(t.expand("rm -r /run/ringway; echo {e1000e} > /sys/bus/pci/drivers/vfio-pci/unbind"))
    t.ringway("bind --persisted")
    expect(t.guest.driver("e1000e") == "vfio-pci", f"the driver is {t.guest.driver('e1000e')}")
    t.guest.check(f"rm -r /run/ringway; sed -i s/10d3/10d4/ {card}; nic kernel {t.guest.address('e1000e')}")
    complaint(t.ringway("bind --persisted", status=CONFIGURATION), "8086:10d4", "--forget")
    expect(t.guest.driver("e1000e") == "e1000e", "another card was taken")
    t.ringway("unbind --forget {e1000e}")
    left = t.guest.check("find /etc/ringway/bind.d /etc/systemd/system /etc/udev/rules.d -name '*000*' -o -name '*ringway*'; true")
    expect(not left.strip(), f"files stay: {left}")


@scenario()
def the_device_node_goes_to_its_user(t):
    """--user and --group: the node is theirs, the udev rule names the card, and both end with unbind."""
    start_from_kernel(t)
    t.ringway("bind --user ring --group ring {e1000e}")
    group = t.guest.check(t.expand("basename $(readlink /sys/bus/pci/devices/{e1000e}/iommu_group)")).strip()
    owner = t.guest.check(f"stat -c '%U:%G %a' /dev/vfio/{group}").strip()
    expect(owner == "ring:ring 660", f"the node belongs to {owner}")
    rule = t.guest.check(t.expand("cat /etc/udev/rules.d/70-ringway-{e1000e}.rules"))
    expect(t.guest.address("e1000e") in rule and 'OWNER="ring"' in rule, f"the rule says {rule}")
    complaint(t.ringway("unbind {e1000e}", status=PERMISSION, user="ring"))
    t.ringway("unbind {e1000e}")
    expect(not t.guest.check("ls /etc/udev/rules.d").strip(), "the rule stays")
