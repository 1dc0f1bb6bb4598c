"""Traffic between the peers, with every loss and every changed byte noticed."""

import hashlib
import random
import re

from .scenario import expect


def ping(t, namespace, target, count=5, size=56, interval=0.05):
    """Every one of COUNT pings is answered, in order, with its payload unchanged (ping checks it)."""
    output = t.inside(namespace, f"ping -c {count} -i {interval} -W 5 -s {size} {target}", timeout=30 + count * interval)
    match = re.search(r"(\d+) packets transmitted, (\d+) packets received", output)
    expect(match, f"ping said: {output}")
    expect(match.group(1) == match.group(2) == str(count), f"answers are missing: {output[-600:]}")
    expect("DUP!" not in output, f"an answer came twice: {output[-600:]}")
    return output


def random_bytes(size, seed):
    return random.Random(seed).randbytes(size)


def transfer(t, sender, receiver, target, size, port=7000, timeout=120):
    """Send SIZE bytes by TCP from one peer to the other; what arrives is compared by SHA-256."""
    data = random_bytes(size, seed=size)
    digest = hashlib.sha256(data).hexdigest()
    t.guest.put(data, f"/root/sent-{port}")
    # With -e, nc itself never sees an end of input of its own, at which it would hang up early.
    t.guest.put(f"exec cat > /root/received-{port}\n".encode(), f"/root/receive-{port}")
    listener = t.background(receiver, f"exec nc -l -p {port} -e /bin/sh /root/receive-{port}")
    t.guest.wait_for(f"ip netns exec {receiver} netstat -ltn | grep -c ':{port} '", lambda out: out.strip() != "0",
                     what="nc to listen")
    t.inside(sender, f"nc {target} {port} < /root/sent-{port}", timeout=timeout)
    status = listener.wait(30)
    seen = t.guest.check(f"sha256sum < /root/received-{port}; stat -c %s /root/received-{port}; rm /root/*-{port}").split()
    expect(status == 0, f"the listener ended with {status}: {listener.output()}")
    expect(int(seen[2]) == size, f"{size} bytes were sent, {seen[2]} arrived")
    expect(seen[0] == digest, f"the {size} bytes that arrived are not those sent")
