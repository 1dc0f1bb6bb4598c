"""A Ringway router and Linux kernels around it, each in a network namespace of its own.

    peer A ── tap or a model of a card ── ringwayd ── tap or a model of a card ── peer B
    198.18.1.2/24                   198.18.1.1  198.18.2.1                   198.18.2.2/24
    2001:2:0:1::2/64           2001:2:0:1::1      2001:2:0:2::1          2001:2:0:2::2/64

Everything belongs to this process: namespaces have no names, daemons and models end with it.
"""

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))

from namespaces import LabError, Namespace, end_with_parent  # noqa: E402

# What `ringway-model` calls a card, and what its interface is called.
CARDS = {"82599": "ix0", "82574": "em0", "virtio-net": "vtnet0"}


class Failure(Exception):
    """A claim that does not hold."""


def claim(condition, text):
    if not condition:
        raise Failure(text)


class Peer(Namespace):
    """A Linux kernel beside the router: number 1 or 2 decides on its addresses."""

    def __init__(self, name, number):
        super().__init__(name, f"198.18.{number}.2", f"2001:2:0:{number}::2")
        self.number = number
        self.router4, self.router6 = f"198.18.{number}.1", f"2001:2:0:{number}::1"
        self.device = f"peer{number}"
        self.run("ip", "link", "set", "lo", "up")
        # Addresses are ours; whatever else the kernel would do by itself is switched on by a scenario.
        self.write("net/ipv6/conf/default/accept_ra", "0")

    def write(self, path, value):
        self.output("sh", "-c", f"echo {value} > /proc/sys/{path}")

    def output(self, *words, timeout=60, check=True, input=None):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=timeout, input=input)
        if check and done.returncode:
            raise LabError(f"{' '.join(words)} in {self.name}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def configure(self, mtu=1500, routes=True):
        """Addresses, and the rest of the world by way of the router."""
        self.run("ip", "link", "set", self.device, "mtu", str(mtu))
        self.run("ip", "address", "add", f"{self.address4}/24", "dev", self.device)
        self.run("ip", "-6", "address", "add", f"{self.address6}/64", "dev", self.device, "nodad")
        self.run("ip", "link", "set", self.device, "up")
        if routes:
            self.run("ip", "route", "add", "198.18.0.0/15", "via", self.router4)
            self.run("ip", "-6", "route", "add", "2001:2::/48", "via", self.router6)

    def ping(self, target, *more, count=3, interval="0.05", wait="2"):
        """(answered, sent, all that ping said)"""
        done = subprocess.run(
            self.command("ping", "-n", "-c", str(count), "-i", interval, "-W", wait, *more, target),
            capture_output=True, text=True, timeout=120)
        found = re.search(r"(\d+) packets transmitted, (\d+) received", done.stdout)
        return (int(found[2]), int(found[1]), done.stdout + done.stderr) if found else (0, 0, done.stdout + done.stderr)

    def pings(self, target, *more, count=3):
        answered, sent, text = self.ping(target, *more, count=count)
        claim(answered == count, f"{self.name}: ping {' '.join(more)} {target}: {answered} of {count} answered\n{text}")


class Sniffer:
    """tshark's view of a peer's interface, from start to stop."""

    def __init__(self, peer, device=None, filter=""):
        self.peer = peer
        self.file = tempfile.mktemp(suffix=".pcap", dir=peer.world.directory)
        self.process = subprocess.Popen(
            peer.command("tcpdump", "-i", device or peer.device, "-U", "--immediate-mode", "-w", self.file, filter),
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
            preexec_fn=end_with_parent, start_new_session=True)
        line = self.process.stderr.readline()
        claim("listening on" in line, f"tcpdump did not start: {line}")

    def stop(self):
        time.sleep(0.3)
        self.process.terminate()
        self.process.wait(10)
        self.process.stderr.close()

    def fields(self, display, *names):
        """Rows of these fields for every packet that matches tshark's display filter."""
        words = ["tshark", "-n", "-r", self.file, "-Y", display, "-T", "fields", "-o", "ip.check_checksum:TRUE",
                 "-o", "udp.check_checksum:TRUE", "-o", "tcp.check_checksum:FALSE"]
        for name in names:
            words += ["-e", name]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise LabError(f"tshark: {done.stderr.strip()}")
        return [line.split("\t") for line in done.stdout.splitlines()]


class World:
    """Peers, models of cards, and the daemon between them."""

    def __init__(self, binaries, huge=False):
        self.binaries, self.huge = binaries, huge
        self.directory = tempfile.mkdtemp(prefix="ringway-peers-")
        self.socket = os.path.join(self.directory, "control.sock")
        self.children, self.peers, self.sections = [], [], []
        self.daemon = None

    def program(self, name):
        return os.path.join(self.binaries, name)

    def spawn(self, words, **more):
        process = subprocess.Popen(words, preexec_fn=end_with_parent, start_new_session=True,
                                   stdin=subprocess.DEVNULL, **more)
        self.children.append(process)
        return process

    # MARK: what is around the router

    def peer(self, name, number):
        peer = Peer(name, number)
        peer.world = self
        self.peers.append(peer)
        return peer

    def tap(self, peer, name, addresses=(), **more):
        """A TAP: `name` in the daemon, the peer's device in its namespace."""
        self.section("interface", name=name, kind="tap", netns=peer.path, peer=peer.device, addresses=list(addresses), **more)

    def card(self, peer, model, addresses=(), **more):
        """A model of a card, its wire a TAP in the peer's namespace."""
        socket = os.path.join(self.directory, f"{model}-{peer.number}.sock")
        log = open(os.path.join(self.directory, f"{model}-{peer.number}.log"), "w")
        self.spawn([self.program("ringway-model"), model, "--socket", socket, "--wire",
                    f"tap:{peer.device},netns={peer.path}"], stdout=log, stderr=log)
        self.until(lambda: os.path.exists(socket), 10, f"the model of the {model} did not start: see {log.name}")
        self.section("card", device=f"vfio-user:{socket}", addresses=list(addresses), **more)

    def section(self, table, **values):
        self.sections.append((table, values))

    # MARK: the daemon

    def configuration(self, **top):
        lines = []

        def value(item):
            if isinstance(item, bool):
                return "true" if item else "false"
            if isinstance(item, dict):
                return "{ " + ", ".join(f"{json.dumps(k)} = {value(v)}" for k, v in item.items()) + " }"
            return json.dumps(item)

        for table, values in top.items():
            lines.append(f"[{table}]")
            lines += [f"{json.dumps(key) if '.' in key else key} = {value(item)}" for key, item in values.items()]
        for kind, values in self.sections:
            lines.append(f"[[{kind}]]")
            lines += [f"{key.replace('_', '-')} = {value(item)}" for key, item in values.items()]
        return "\n".join(lines) + "\n"

    def start(self, workers=2, sysctl=None, **more):
        tables = {"control": {"socket": self.socket}, "netisr": {"workers": workers}, "memory": {"huge": self.huge}}
        tables.update(more)
        if sysctl:
            tables["sysctl"] = sysctl
        self.file = os.path.join(self.directory, "ringwayd.toml")
        with open(self.file, "w") as file:
            file.write(self.configuration(**tables))
        self.log = os.path.join(self.directory, "ringwayd.log")
        self.daemon = self.spawn([self.program("ringwayd"), "--config", self.file], stdout=open(self.log, "a"),
                                 stderr=subprocess.STDOUT)
        self.until(lambda: self.daemon.poll() is not None or os.path.exists(self.socket), 20, "ringwayd made no socket")
        claim(self.daemon.poll() is None, f"ringwayd ended with {self.daemon.returncode}:\n{self.tail()}")
        self.until(lambda: self.ringway("sysctl", "net.isr.numthreads", check=False) is not None, 10, "ringwayd does not answer")

    def tail(self):
        try:
            with open(self.log) as file:
                return file.read()[-3000:]
        except (OSError, AttributeError):
            return ""

    def ringway(self, *words, check=True, timeout=30):
        """What `ringway` says; None when it fails and nobody checks."""
        done = subprocess.run([self.program("ringway"), *words, "--socket", self.socket], capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL)
        if done.returncode:
            if check:
                raise Failure(f"ringway {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}\n{self.tail()}")
            return None
        return done.stdout

    def json(self, *words):
        return json.loads(self.ringway(*words, "--json"))

    def until(self, condition, seconds, problem):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failure(f"{problem}\n{self.tail()}")
            time.sleep(0.05)

    def stop(self):
        """Ends the daemon as a service manager does; it must end by itself, with 0."""
        if self.daemon and self.daemon.poll() is None:
            self.daemon.terminate()
            try:
                code = self.daemon.wait(15)
            except subprocess.TimeoutExpired:
                self.daemon.kill()
                raise Failure(f"ringwayd did not end within 15 s of SIGTERM\n{self.tail()}")
            claim(code == 0, f"ringwayd ended with {code} after SIGTERM\n{self.tail()}")
        self.daemon = None

    def close(self):
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait()
        for peer in self.peers:
            peer.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            if kind is None:
                self.stop()
        finally:
            self.close()
