"""A guest that is up: commands, files, background programs, cards, the QEMU monitor.

    with Guest(Topology(), binaries=["ringway"]) as guest:
        guest.check("ringway devices")
        guest.qmp.command("set_link", name="e1000e", up=False)

Made by the host's script, one request at a time; leave the `with` block and QEMU is dead.
"""

import os
import shlex
import shutil
import signal
import tempfile
import time
from dataclasses import dataclass

from . import accel
from .channel import Channel, ChannelError
from .machine import PATIENCE, Machine, MachineError, build_image, command_line, in_namespace
from .qmp import QMP, QMPError
from .topology import DEFAULT

GuestError = (ChannelError, MachineError, QMPError)
# Debian's busybox shell prefers its own applets to what PATH offers; its `ip` knows no namespaces.
PRELUDE = 'ip() { /usr/bin/ip "$@"; }\n'


@dataclass
class Result:
    status: int
    output: str

    def __iter__(self):
        return iter((self.status, self.output))


class CommandFailed(AssertionError):
    pass


class Process:
    """A program running in the guest's background; its output grows in `log`, a file of the guest."""

    def __init__(self, guest, name, pid, log):
        self.guest, self.name, self.pid, self.log = guest, name, pid, log

    def output(self):
        return self.guest.run(f"cat {self.log}").output

    def is_running(self):
        # A zombie has ended: the wrapper shell that waits for it writes the status a moment later.
        return self.guest.run(f"[ -d /proc/{self.pid} ] && ! [ -e {self.log}.status ]").status == 0

    def kill(self, number):
        return self.guest.run(f"kill -{int(number)} {self.pid}").status == 0

    def wait(self, timeout=30):
        """Wait for its end; returns the exit status (128 + the signal's number when it was killed)."""
        text = self.guest.wait_for(f"cat {self.log}.status 2>/dev/null", lambda out: out.strip() != "", timeout,
                                   what=f"{self.name} to end")
        return int(text)

    def wait_output(self, pattern, timeout=30):
        """Wait until its output holds a match of the extended regular expression."""
        command = f"if grep -E -q {shlex.quote(pattern)} {self.log}; then echo found; elif [ -e {self.log}.status ]; then echo ended; fi"
        answer = self.guest.wait_for(command, lambda out: out.strip() != "", timeout,
                                     what=f"{self.name} to print /{pattern}/ (so far: {self.output()[-2000:]!r})")
        if answer.strip() == "ended" and self.guest.run(f"grep -E -q {shlex.quote(pattern)} {self.log}").status:
            raise CommandFailed(f"{self.name} ended without printing /{pattern}/:\n{self.output()}")
        return self.output()

    def stop(self, number=signal.SIGINT, timeout=30):
        """Ask it to end and wait; kills it when it does not. Returns its exit status."""
        self.kill(number)
        try:
            return self.wait(timeout)
        except CommandFailed:
            self.kill(signal.SIGKILL)
            self.wait(timeout)
            raise


class Guest:
    def __init__(self, topology=DEFAULT, binaries=(), keep_logs=None, boot_logs=None, boot_timeout=120):
        """Boot a guest and wait for its agent.

        binaries   static programs to put into /bin ("PATH" or "PATH:DEST")
        keep_logs  a folder for serial.log, qemu.log and hubN.pcap when the guest is closed
        boot_logs  the same, when the guest does not come up
        """
        self.topology, self.keep_logs = topology, keep_logs
        self.directory = tempfile.mkdtemp(prefix="testbed-")
        self.machine = self.qmp = self.channel = None
        self.spawned = 0
        self.addresses = {}
        try:
            initramfs = os.path.join(self.directory, "initramfs")
            kernel = build_image(initramfs, binaries)
            accelerator = accel.choose(kernel)
            command = command_line(topology, kernel, initramfs, self.directory, accelerator)
            if topology.host_script:
                command = in_namespace(topology.host_script, command)
            self.machine = Machine(command, self.directory)
            self.channel = Channel(self.machine.connect("agent"))
            self.qmp = QMP(self.machine.connect("qmp"))
            self.channel.wait_ready(boot_timeout * PATIENCE)
            os.unlink(initramfs)  # QEMU has read it; a killed runner leaves only logs behind
            self.boot_seconds = time.monotonic() - self.machine.started
            self._resolve()
        except BaseException as error:
            # A QEMU that ends at once is best explained by its own words.
            early = isinstance(error, (OSError, QMPError)) and self.machine and self.machine.wait(2)
            complaint = self.machine.complaint() if early else ""
            self.keep_logs = keep_logs or boot_logs
            self.close()
            if early:
                raise MachineError(f"QEMU did not start: {complaint}") from None
            raise

    def _resolve(self):
        nics = self.topology.nics
        if nics:
            out = self.check("; ".join(f"nic slot {self.topology.slot(nic):x} {self.topology.function(nic)}" for nic in nics)).split()
            self.addresses = {nic.id: address for nic, address in zip(nics, out)}

    # ------------------------------------------------------------ commands

    def run(self, command, timeout=30, user=None):
        """Run a shell command; returns Result(status, output). Status 137: the time was up."""
        if user:
            command = f"su -s /bin/sh {user} -c {shlex.quote(command)}"
        seconds = max(1, int(timeout * PATIENCE))
        data = (PRELUDE + command).encode() + b"\n"
        status, output = self.channel.request(f"RUN {seconds} {len(data)}", data, seconds + 20 * PATIENCE)
        return Result(status, output.decode(errors="replace"))

    def check(self, command, timeout=30, status=0, user=None):
        """Run a command that has to end with STATUS; returns its output."""
        result = self.run(command, timeout, user)
        if result.status != status:
            raise CommandFailed(f"`{command}` ended with {result.status}, not {status}:\n{result.output}")
        return result.output

    def spawn(self, command, name=None):
        """Start a shell command in the background. `exec`s it, so that the pid is the program's."""
        self.spawned += 1
        name = name or command.split()[0]
        if command.startswith("ip "):
            command = "/usr/bin/" + command
        log = f"/run/agent/{self.spawned}.log"
        script = (f"setsid sh -c 'sh -c \"$1\" </dev/null >{log} 2>&1 & echo $! >{log}.pid; wait $!; "
                  f"echo $? >{log}.part; mv {log}.part {log}.status' - {shlex.quote('exec ' + command)} >/dev/null 2>&1 &\n"
                  f"while ! [ -s {log}.pid ]; do usleep 10000; done; cat {log}.pid")
        return Process(self, name, int(self.check(script)), log)

    def wait_for(self, command, accept, timeout=30, interval=0.1, what=None):
        """Repeat a command until `accept(output)`; returns the output."""
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            output = self.run(command).output
            if accept(output):
                return output
            if time.monotonic() > deadline:
                raise CommandFailed(f"waited {timeout * PATIENCE:.0f} s for {what or command}; last output: {output[-2000:]!r}")
            time.sleep(interval)

    # --------------------------------------------------------------- files

    def put(self, data, path, mode="644", timeout=60):
        """Write bytes (or the host file named by a str) to a file of the guest."""
        if isinstance(data, str):
            with open(data, "rb") as stream:
                data = stream.read()
        status, _ = self.channel.request(f"PUT {mode} {len(data)} {path}", data, timeout * PATIENCE)
        if status:
            raise CommandFailed(f"the guest could not write {path}")

    def get(self, path, timeout=60):
        """A file of the guest, as bytes."""
        status, data = self.channel.request(f"GET {path}", b"", timeout * PATIENCE)
        if status:
            raise CommandFailed(f"the guest has no readable file {path}")
        return data

    # --------------------------------------------------------------- cards

    def address(self, identity):
        """The PCI address of a NIC of the topology, e.g. "0000:02:00.0"."""
        return self.addresses[identity]

    def bind_vfio(self, *identities):
        """Bind NICs to vfio-pci by sysfs alone; returns their group numbers."""
        return [int(self.check(f"nic vfio {self.address(identity)}")) for identity in identities]

    def bind_kernel(self, identity):
        self.check(f"nic kernel {self.address(identity)}")

    def driver(self, identity):
        return self.check(f"nic driver {self.address(identity)}").strip()

    def set_up(self):
        """Bring the topology to its owners: vfio cards bound, peers in their namespaces."""
        script = ["set -e"]
        for name in dict.fromkeys(n.namespace for n in self.topology.nics if n.namespace):
            script += [f"ip netns add {name}", f"ip -n {name} link set lo up"]
        for nic in self.topology.nics:
            if nic.is_vfio:
                script.append(f"nic vfio {self.address(nic.id)} >/dev/null")
            elif nic.namespace:
                if nic.model == "igb":
                    # Not loaded at boot: cards that are vfio's come first in a topology, and stay so.
                    script.append("modprobe igb")
                script += [f"dev=$(nic netdev {self.address(nic.id)})", f"ip link set $dev netns {nic.namespace} name {nic.id}"]
                # No duplicate address detection: it would make each scenario wait two seconds.
                script.append(f"ip netns exec {nic.namespace} sh -c 'echo 0 > /proc/sys/net/ipv6/conf/{nic.id}/accept_dad'")
                script += [f"ip -n {nic.namespace} address add {a} dev {nic.id}" + (" nodad" if ":" in a else "")
                           for a in nic.addresses]
                script.append(f"ip -n {nic.namespace} link set {nic.id} up")
        self.check("\n".join(script), timeout=60)

    def tidy(self):
        """Back to the state after set_up: nothing of ours runs, links up, cards with their owners."""
        self.run("for f in /run/agent/*.pid; do [ -e ${f%.pid}.status ] || kill -9 -$(cat $f) $(cat $f); done 2>/dev/null; true")
        self.wait_for("for f in /run/agent/*.pid; do [ -e $f ] && ! [ -e ${f%.pid}.status ] && echo $f; done; true",
                      lambda out: not out.strip(), what="the scenario's programs to end")
        self.check("rm -rf /run/agent/*.pid /run/agent/*.log /run/agent/*.status /root/* /tmp/*")
        script = ["rm -rf /run/ringway /etc/ringway"]
        for nic in self.topology.nics:
            self.set_link(nic.id, True)
            if nic.is_vfio:
                at = self.address(nic.id)
                script.append(f"[ $(nic driver {at}) = vfio-pci ] || nic vfio {at}")
        self.check("\n".join(script) + "\ntrue")

    def hugepages_free(self):
        return int(self.check("awk '/HugePages_Free/ {print $2}' /proc/meminfo"))

    def set_link(self, identity, up):
        self.qmp.command("set_link", name=identity, up=up)

    def unplug(self, identity):
        """Ask the guest to let a card go (as a person who presses the slot's button)."""
        self.qmp.command("device_del", id=identity)

    # ----------------------------------------------------------------- end

    def serial_log(self):
        with open(os.path.join(self.directory, "serial.log"), errors="replace") as log:
            return log.read()

    def save_logs(self, folder):
        os.makedirs(folder, exist_ok=True)
        for name in os.listdir(self.directory):
            if name.endswith((".log", ".pcap")):
                shutil.copyfile(os.path.join(self.directory, name), os.path.join(folder, name))

    def close(self):
        """Kill QEMU, keep the logs when asked for, remove the temporary folder."""
        if self.machine:
            self.machine.kill()
        for end in (self.channel, self.qmp):
            if end:
                end.close()
        if os.path.isdir(self.directory):
            if self.keep_logs:
                self.save_logs(self.keep_logs)
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
