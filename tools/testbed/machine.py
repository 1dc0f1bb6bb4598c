"""The QEMU process: its command line, its acceleration, its end."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
STATE = os.path.join(ROOT, ".testbed")
CACHE = os.path.join(STATE, "cache")
GUEST_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
# Slow machines: multiplies every limit of time.
PATIENCE = float(os.environ.get("TESTBED_PATIENCE", "1"))


class MachineError(Exception):
    pass


def find_qemu():
    path = shutil.which("qemu-system-x86_64")
    if not path:
        raise MachineError("qemu-system-x86_64 is not installed; `sudo apt-get install qemu-system-x86`")
    return path


def die_with_parent():
    """Runs between fork and exec: Linux kills QEMU when our process ends, however it ends."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG


def build_image(output, binaries=()):
    """An initramfs with the agent and BINARIES ("PATH" or "PATH:DEST"); returns the kernel's path."""
    command = [os.path.join(ROOT, "tools", "image"), "--output", output, "--cache", CACHE, "--unpack-kernel",
               "--init", os.path.join(GUEST_FILES, "init"),
               "--add", os.path.join(GUEST_FILES, "agent") + ":/bin/testbed-agent",
               "--add", os.path.join(GUEST_FILES, "nic") + ":/bin/nic"]
    for binary in binaries:
        command += ["--add", binary]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise MachineError(result.stderr.strip() or f"tools/image ended with {result.returncode}")
    return result.stdout.strip()


def command_line(topology, kernel, initramfs, directory, accelerator):
    words = ["console=ttyS0", "rdinit=/init", "panic=-1", "loglevel=4", "mitigations=off",
             "nokaslr", "audit=0",
             # On a busy host the kernel's test of the timer interrupt can fail and panic, as no timer came in time.
             "no_timer_check", "random.trust_bootloader=on", f"hugepages={topology.hugepages}"]
    if "intel_iommu=" not in topology.kernel_arguments:
        words.append("intel_iommu=on")
    if topology.kernel_arguments:
        words.append(topology.kernel_arguments)
    acceleration = ["-accel", "kvm", "-cpu", "host"] if accelerator == "kvm" else \
                   ["-accel", "tcg,thread=multi", "-cpu", "max,vendor=GenuineIntel"]
    # A device in another process reaches the guest's memory through a file that both map.
    memory = ["-object", f"memory-backend-memfd,id=ram,size={topology.memory_mib}M,share=on",
              "-machine", "memory-backend=ram"] if topology.has_sockets else []
    return [
        *(topology.qemu or [find_qemu()]), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
        "-machine", "q35,kernel-irqchip=split", *acceleration,
        "-smp", str(topology.processors), "-m", f"{topology.memory_mib}M", *memory,
        "-device", "intel-iommu,intremap=on,caching-mode=on",
        "-kernel", kernel, "-initrd", initramfs, "-append", " ".join(words),
        "-chardev", f"file,id=console,path={directory}/serial.log", "-serial", "chardev:console",
        "-chardev", f"socket,id=agent,path={directory}/agent,server=on,wait=off",
        "-device", "virtio-serial-pci,id=channels,addr=0x3",
        "-device", "virtserialport,bus=channels.0,chardev=agent,name=agent",
        "-qmp", f"unix:{directory}/qmp,server=on,wait=off",
        *topology.device_arguments(directory),
    ]


def in_namespace(script, command):
    """COMMAND inside a user and network namespace of its own, where SCRIPT has made taps and bridges."""
    # Entering a user namespace clears the parent-death signal, so it is set once more inside.
    inside = f"set -e\nPATH=$PATH:/usr/sbin:/sbin\n{script}\nexec setpriv --pdeathsig KILL \"$@\""
    return ["unshare", "--user", "--map-root-user", "--net", "--", "sh", "-c", inside, "sh", *command]


def namespace_problem(script):
    """Why this host cannot run SCRIPT in a namespace of its own; None when it can."""
    result = subprocess.run(in_namespace(script, ["true"]), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return result.stderr.strip().replace("\n", "; ") or f"status {result.returncode}" if result.returncode else None


class Machine:
    """A running QEMU. `directory` holds its sockets, serial.log, qemu.log and the pcaps."""

    def __init__(self, command, directory, pass_fds=()):
        self.directory = directory
        self.started = time.monotonic()
        with open(os.path.join(directory, "qemu.log"), "wb") as log:
            log.write((" ".join(command) + "\n").encode())
            log.flush()
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            preexec_fn=die_with_parent, pass_fds=pass_fds)

    def connect(self, name, timeout=20):
        """A connection to one of QEMU's sockets. Its file is there a moment before QEMU listens, so
        a refusal is a matter of time, as a missing file is."""
        path = os.path.join(self.directory, name)
        deadline = time.monotonic() + timeout * PATIENCE
        while True:
            end = socket.socket(socket.AF_UNIX)
            try:
                end.connect(path)
                return end
            except (FileNotFoundError, ConnectionRefusedError):
                end.close()
            if not self.is_running() or time.monotonic() > deadline:
                raise MachineError("QEMU did not start: " + self.complaint())
            time.sleep(0.01)

    def complaint(self):
        with open(os.path.join(self.directory, "qemu.log"), errors="replace") as log:
            return "; ".join(log.read().splitlines()[1:][-5:]) or "it said nothing"

    def is_running(self):
        return self.process.poll() is None

    def wait(self, timeout):
        try:
            self.process.wait(timeout)
            return True
        except subprocess.TimeoutExpired:
            return False

    def kill(self):
        if self.is_running():
            self.process.kill()
        self.process.wait()
