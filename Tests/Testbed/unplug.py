"""(e) A card is unplugged in mid-traffic: a typed error, exit 69, and the guest lives on."""

from testbed.program import MISSING, bridge, complaint, pktgen_tx
from testbed.scenario import expect, scenario
from testbed.traffic import ping


def gone(t, identity):
    """The kernel has let the card go, and so has QEMU."""
    address = t.guest.address(identity)
    t.guest.wait_for(f"ls -d /sys/bus/pci/devices/{address} 2>/dev/null", lambda out: not out.strip(), timeout=20,
                     what=f"{identity} to leave the guest")
    t.guest.qmp.wait_event("DEVICE_DELETED", device=identity)
    expect(t.guest.run("dmesg | grep -E 'blocked for more than|Call Trace'").status != 0, "the guest's kernel hangs")


def unplug_under_bridge(t, identity, other):
    program = bridge(t)
    ping(t, "A", "198.18.0.2", count=3)
    load = t.background("A", "exec ping -A -q -w 60 -s 1000 198.18.0.2")
    t.guest.check("sleep 1")
    t.guest.unplug(identity)
    status = program.wait(30)
    expect(status == MISSING, f"the bridge ended with {status}:\n{program.output()}")
    complaint(program.output(), t.guest.address(identity))
    gone(t, identity)
    load.stop(9)
    # The card that stayed is as good as before, and nothing of the bridge lingers.
    expect(pktgen_tx(t, other, 500, 100, 2000)["packets"] == 500, f"{other} does not send any more")
    complaint(t.ringway(f"pktgen tx --device {t.guest.address(identity)} --count 1", status=MISSING), t.guest.address(identity))


@scenario(isolated=True)
def e1000e_under_a_bridge(t):
    """The 82574L goes while the bridge forwards."""
    unplug_under_bridge(t, "e1000e", "virtio")


@scenario(isolated=True)
def virtio_under_a_bridge(t):
    """The virtio-net card goes while the bridge forwards."""
    unplug_under_bridge(t, "virtio", "e1000e")


@scenario(isolated=True)
def under_generators_and_capture(t):
    """One card goes under a busy transmitter, the other under a waiting capture."""
    sender = t.start("pktgen tx --device {e1000e} --count 1000000000 --size 200")
    waiting = t.start("capture {virtio} -w /root/x.pcapng", ready="capturing")
    t.guest.check("sleep 1")
    for identity, program in (("e1000e", sender), ("virtio", waiting)):
        t.guest.unplug(identity)
        status = program.wait(30)
        expect(status == MISSING, f"{program.name} ended with {status}:\n{program.output()}")
        complaint(program.output(), t.guest.address(identity))
        gone(t, identity)
