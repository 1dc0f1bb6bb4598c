"""Which accelerator boots a guest here: KVM where a probe shows that it works, TCG elsewhere.

An openable /dev/kvm is no proof: nested and restricted hosts offer one that hangs or dies in
the guest's first instructions. The probe boots the real kernel without devices and waits for
its first words; the answer is kept for this boot of the host.
TESTBED_ACCEL=tcg or =kvm skips the probe.
"""

import os
import subprocess
import tempfile
import time

from .machine import CACHE, PATIENCE, die_with_parent, find_qemu

PROBE_SECONDS = 10


def boot_id():
    with open("/proc/sys/kernel/random/boot_id") as stream:
        return stream.read().strip()


def probe(kernel):
    """True when a guest under KVM prints its kernel's banner and reaches the missing root file system."""
    with tempfile.TemporaryDirectory(prefix="testbed-kvm-") as folder:
        log = os.path.join(folder, "log")
        process = subprocess.Popen(
            [find_qemu(), "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35,kernel-irqchip=split",
             "-accel", "kvm", "-cpu", "host", "-smp", "2", "-m", "256M", "-kernel", kernel,
             "-device", "intel-iommu,intremap=on,caching-mode=on",
             "-append", "console=ttyS0 panic=-1 intel_iommu=on", "-serial", f"file:{log}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=die_with_parent)
        deadline = time.monotonic() + PROBE_SECONDS * PATIENCE
        try:
            while time.monotonic() < deadline and process.poll() is None:
                time.sleep(0.1)
            with open(log, errors="replace") as stream:
                return "Unable to mount root fs" in stream.read()
        except OSError:
            return False
        finally:
            process.kill()
            process.wait()


def choose(kernel):
    wanted = os.environ.get("TESTBED_ACCEL")
    if wanted in ("kvm", "tcg"):
        return wanted
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    record = os.path.join(CACHE, "accelerator")
    key = f"{boot_id()} {kernel}"
    try:
        with open(record) as stream:
            kept, answer = stream.read().rsplit(" ", 1)
        if kept == key and answer in ("kvm", "tcg"):
            return answer
    except (OSError, ValueError):
        pass
    answer = "kvm" if probe(kernel) else "tcg"
    with open(record, "w") as stream:
        stream.write(f"{key} {answer}")
    return answer
