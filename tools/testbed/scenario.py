"""What a scenario file imports: the decorator, the skip, and the context a scenario gets."""

import shlex
from dataclasses import dataclass

from .guest import PRELUDE
from .topology import DEFAULT, Topology


class Skip(Exception):
    """Raised by a scenario that cannot run here; the text is the reason."""


@dataclass
class Scenario:
    name: str
    function: object
    topology: Topology
    isolated: bool
    binary: bool
    limit: float
    summary: str


REGISTERED = []


def scenario(topology=DEFAULT, isolated=False, binary=True, limit=120):
    """Register a function as a scenario `FILE.FUNCTION`.

    topology   what the guest is wired like; neighbours with the same one share a boot
    isolated   boot a guest for this one alone (it unplugs a card, or changes what others rely on)
    binary     whether it needs the ringway binary
    limit      seconds before it is given up
    """

    def register(function):
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        summary = (function.__doc__ or "").strip().splitlines()[0]
        REGISTERED.append(Scenario(name, function, topology, isolated, binary, limit, summary))
        return function

    return register


class Context:
    """Handed to each scenario: the guest, and short ways to call the program under test."""

    def __init__(self, guest, note):
        self.guest, self.note = guest, note
        # Set by a scenario that provokes what the kernel complains of.
        self.complaints_expected = False

    def ringway(self, arguments, status=0, timeout=60, user=None):
        """Run `ringway ARGUMENTS` in the guest; it has to end with STATUS. Returns its output."""
        return self.guest.check(f"ringway {self.expand(arguments)}", timeout=timeout, status=status, user=user)

    def start(self, arguments, ready=None, timeout=60):
        """Start `ringway ARGUMENTS` in the background; wait for its line that matches `ready`."""
        process = self.guest.spawn(f"ringway {self.expand(arguments)}")
        if ready:
            process.wait_output(ready, timeout)
        return process

    def expand(self, text):
        """`{e1000e}` becomes the PCI address of the card of that name."""
        for identity, address in self.guest.addresses.items():
            text = text.replace("{" + identity + "}", address)
        return text

    def inside(self, namespace, command, timeout=60, status=0):
        """Run a shell command in a peer's network namespace."""
        line = f"/usr/bin/ip netns exec {namespace} sh -c {shlex.quote(PRELUDE + command)}"
        return self.guest.check(line, timeout=timeout, status=status)

    def background(self, namespace, command):
        return self.guest.spawn(f"/usr/bin/ip netns exec {namespace} sh -c {shlex.quote(command)}", name=command.split()[0])


def expect(condition, message):
    """An assertion whose message says what was seen."""
    if not condition:
        raise AssertionError(message)
