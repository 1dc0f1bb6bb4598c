"""How scenarios speak with `ringway`: what its lines look like is known here and nowhere else."""

import json
import re
import signal

from .scenario import expect

OK, FAILURE, USAGE, MISSING, PERMISSION, CONFIGURATION = 0, 1, 64, 69, 77, 78


def objects(text):
    """The JSON objects in a program's output: one spread over lines, or one a line, between other lines."""
    found, decoder, at = [], json.JSONDecoder(), 0
    for match in re.finditer(r"^[\[{]", text, re.MULTILINE):
        if match.start() < at:
            continue
        try:
            value, at = decoder.raw_decode(text, match.start())
            found.append(value)
        except json.JSONDecodeError:
            pass
    return found


def last_object(text):
    values = objects(text)
    expect(values, f"there is no JSON in:\n{text}")
    return values[-1]


def bridge(t, options=""):
    """Start a bridge between both cards and wait until it forwards."""
    return t.start("bridge {e1000e} {virtio} " + options, ready="forwarding")


def pktgen_rx(t, device, count, seconds=60, options=""):
    return t.start(f"pktgen rx --device {{{device}}} --count {count} --seconds {seconds} --json {options}", ready="receiving")


def pktgen_tx(t, device, count, size=60, rate=None, options="", timeout=90):
    """Send COUNT packets; returns the final JSON object."""
    rate = f"--rate {rate}" if rate else ""
    return last_object(t.ringway(f"pktgen tx --device {{{device}}} --count {count} --size {size} {rate} --json {options}", timeout=timeout))


def capture(t, device, file, options="", filter=""):
    return t.start(f"capture {{{device}}} -w {file} {options} {filter}", ready="capturing")


def stop(process, number=signal.SIGINT):
    """Ask a program to end; it has to end with 0."""
    status = process.stop(number)
    expect(status == OK, f"{process.name} ended with {status} after {signal.Signals(number).name}:\n{process.output()}")


def link_changes(process, address):
    """The links a program reported for a card, in order: ["up", "down", ...]."""
    return re.findall(rf"{re.escape(address)}\S* link (?:is )?(up|down)", process.output())


def complaint(output, *words):
    """The two lines on standard error that a failure has: what failed, and what to do."""
    expect(re.search(r"^ringway: error: .+", output, re.MULTILINE), f"no line `ringway: error: ...` in:\n{output}")
    expect(re.search(r"^hint: .+", output, re.MULTILINE), f"no line `hint: ...` in:\n{output}")
    for word in words:
        expect(word.lower() in output.lower(), f"{word!r} is not mentioned in:\n{output}")
