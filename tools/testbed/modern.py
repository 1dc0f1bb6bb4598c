"""A QEMU that speaks vfio-user (10.1 or newer), beside the host's own: Debian 13's backport in a
folder, started through its own dynamic linker, so that nothing of the host is replaced."""

import os
import re
import subprocess

from .machine import MachineError

ROOT = os.environ.get("RINGWAY_REFEREE", "/var/cache/ringway-referee")
MIRROR = "http://deb.debian.org/debian"
SUITE = "trixie"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


def run(command, what):
    try:
        result = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        raise MachineError(f"{command[0]} is not installed; `tools/setup referee` installs what the referee needs") from None
    if result.returncode:
        raise MachineError(f"{what} failed: {'; '.join(result.stdout.splitlines()[-4:])}")
    return result.stdout


def command(root=ROOT):
    """The words that start it."""
    return ("env", f"QEMU_MODULE_DIR={root}/{LIBRARIES}/qemu",
            f"{root}/lib64/ld-linux-x86-64.so.2", "--library-path", f"{root}/{LIBRARIES}",
            f"{root}/usr/bin/qemu-system-x86_64",
            *(word for folder in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu") for word in ("-L", f"{root}/{folder}")))


def version(root=ROOT):
    """(major, minor) of what is there; None when nothing is."""
    if not os.path.exists(f"{root}/usr/bin/qemu-system-x86_64"):
        return None
    found = re.search(r"version (\d+)\.(\d+)", run([*command(root), "--version"], "asking QEMU for its version"))
    return (int(found.group(1)), int(found.group(2))) if found else None


def install(say, root=ROOT):
    """Makes the folder when it is not there; returns the words that start QEMU."""
    have = version(root)
    if have and have >= (10, 1):
        return command(root)
    if os.geteuid() != 0:
        raise MachineError(f"a QEMU with vfio-user-pci has to be unpacked into {root} first; run this once as root")
    if not os.path.exists(f"{root}/etc/debian_version"):
        say(f"Unpacking Debian {SUITE} into {root} (half a gigabyte, a minute or two) ...")
        run(["debootstrap", "--variant=minbase", SUITE, root, MIRROR], "debootstrap")
    with open(f"{root}/etc/apt/sources.list.d/backports.list", "w") as stream:
        stream.write(f"deb {MIRROR} {SUITE}-backports main\n")
    run(["chroot", root, "apt-get", "update"], "apt-get update")
    run(["chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "--no-install-recommends",
         "-t", f"{SUITE}-backports", "qemu-system-x86"], "installing QEMU")
    have = version(root)
    if not have or have < (10, 1):
        raise MachineError(f"{root} has QEMU {have}, and vfio-user-pci came with 10.1; remove the folder and try again")
    return command(root)
