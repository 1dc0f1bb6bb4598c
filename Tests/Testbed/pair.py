"""pktgen with both cards in one process, in every mode and with frames over several buffers; refusals."""

from testbed.program import FAILURE, USAGE, complaint, last_object, pktgen_rx
from testbed.scenario import expect, scenario
from testbed.topology import CABLE

WAYS = (("e1000e", "virtio"), ("virtio", "e1000e"))


def pair(t, sender, receiver, count, size, rate, options=""):
    """Every packet arrives, once, whole and in order."""
    output = t.ringway(f"pktgen pair {{{sender}}} {{{receiver}}} --count {count} --size {size} --rate {rate} --json {options}")
    result = last_object(output)
    sent, got = result["sent"], result["received"]
    expect(sent["packets"] == got["packets"] == count, f"{sender} to {receiver} {options}: {result}")
    expect(got["bytes"] == count * size, f"{got}")
    for name in ("lost", "duplicates", "reordered", "corrupted", "late", "foreign"):
        expect(got[name] == 0, f"{sender} to {receiver} {options}: {name} is not 0: {got}")


@scenario(topology=CABLE)
def every_mode(t):
    """Polling, sleeping and both move the same packets, both ways, also without hugepages."""
    for sender, receiver in WAYS:
        for options in ("--mode poll", "--mode interrupt", "--mode adaptive --idle 10", "--no-huge --ring-size 128"):
            pair(t, sender, receiver, 1000, 60, 2000, options)


@scenario(topology=CABLE)
def jumbo_frames(t):
    """9014 bytes lie in five buffers, and come out as they went in."""
    for sender, receiver in WAYS:
        for size in (2048, 2049, 4096, 9014):
            pair(t, sender, receiver, 200, size, 400, "--mtu 9000")


@scenario(topology=CABLE)
def a_card_in_use_is_refused(t):
    """Twice in one command, and while another process holds it; that one goes on undisturbed."""
    address = t.guest.address("virtio")
    complaint(t.ringway("bridge {virtio} {virtio}", status=USAGE), address, "once")
    holder = pktgen_rx(t, "virtio", 100, seconds=60)
    complaint(t.ringway("stats {virtio}", status=FAILURE), address, "in use")
    t.ringway("pktgen tx {e1000e} --count 100 --rate 500")
    expect(holder.wait(30) == 0, holder.output())
    expect(last_object(holder.output())["packets"] == 100, holder.output())
    t.ringway("stats {virtio} --json")


@scenario(topology=CABLE)
def a_reader_that_leaves_ends_a_capture(t):
    """`ringway capture | head` ends with 0 and a card that works."""
    command = t.expand("ringway capture {virtio} 2>/root/errors; echo status $? >> /root/errors")
    reader = t.guest.spawn(f"sh -c '({command}) | head -n 3 > /root/lines'", name="capture to head")
    t.guest.wait_for("cat /root/errors", lambda out: "capturing" in out, what="the capture to begin")
    t.ringway("pktgen tx {e1000e} --count 200 --rate 200")
    t.guest.wait_for("cat /root/errors", lambda out: "status 0" in out, what="the capture to end")
    reader.wait(20)
    lines = t.guest.check("cat /root/lines").splitlines()
    expect(len(lines) == 3 and all("198.18.0.1.9000 > 198.19.0.1.9 UDP length 60" in line for line in lines), f"{lines}")


@scenario(topology=CABLE)
def a_card_without_a_link_is_said(t):
    """pktgen waits for a link as long as it is told to, and then says so."""
    t.guest.set_link("e1000e", False)
    complaint(t.ringway("pktgen tx {e1000e} --count 1 --link-wait 1", status=FAILURE), t.guest.address("e1000e"), "no link")
    t.guest.set_link("e1000e", True)
    expect(last_object(t.ringway("pktgen tx {e1000e} --count 10 --json"))["packets"] == 10, "the link does not come back")
