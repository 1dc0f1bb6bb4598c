"""A QEMU with the 82576 (`-device igb`, since QEMU 8.0), beside the host's own: Debian 12's backport
in a folder of the testbed's cache. Its libraries are those that the host's own QEMU needs too.

apt fetches and checks it with lists and sources of this folder's own: neither the host's sources
nor its packages change, and no root is needed. Where the host's QEMU has the card, that one is taken.

    python3 tools/testbed/backport.py     unpacks it when it is not there; tools/setup does this
"""

import functools
import glob
import os
import shutil
import subprocess
import sys

if __package__:
    from .machine import CACHE, MachineError
else:
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from testbed.machine import CACHE, MachineError

FOLDER = os.path.join(CACHE, "qemu-backport")
MIRROR = os.environ.get("TESTBED_MIRROR", "http://deb.debian.org/debian")
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
SUITE = "bookworm-backports"
PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
BINARY = os.path.join(FOLDER, "root", "usr", "bin", "qemu-system-x86_64")


def knows_igb(words):
    # The status is 0 either way.
    answer = subprocess.run([*words, "-device", "igb,help"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return b"igb options" in answer.stdout


@functools.lru_cache(maxsize=None)
def host_has_it():
    path = shutil.which("qemu-system-x86_64")
    return bool(path) and knows_igb([path])


def command():
    """The words that start a QEMU with the card; () is the host's own."""
    if host_has_it():
        return ()
    root = os.path.join(FOLDER, "root")
    data = (f"{root}/usr/share/qemu", f"{root}/usr/share/seabios", "/usr/lib/ipxe/qemu")
    return ("env", f"QEMU_MODULE_DIR={root}/usr/lib/x86_64-linux-gnu/qemu", BINARY, *(word for path in data for word in ("-L", path)))


def problem(words):
    """Why a guest started with WORDS would have no QEMU; None when it has one."""
    if BINARY in words and not os.path.exists(BINARY):
        return f"this host's QEMU has no igb card, and {SUITE}'s has not been fetched; run `tools/setup testbed`"
    return None


def run(words, what):
    result = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            cwd=FOLDER, env={**os.environ, "LC_ALL": "C"})
    if result.returncode:
        raise MachineError(f"{what} failed: {'; '.join(result.stdout.splitlines()[-4:])}")


def install():
    """Fetches and unpacks it, unless it is there or not needed."""
    if host_has_it() or os.path.exists(BINARY):
        return
    for name in ("lists/partial", "archives/partial", "new"):
        os.makedirs(os.path.join(FOLDER, name), exist_ok=True)
    sources = os.path.join(FOLDER, "sources.list")
    with open(sources, "w") as stream:
        stream.write(f"deb [signed-by={KEYS}] {MIRROR} {SUITE} main\n")
    settings = {"Dir::Etc::sourcelist": sources, "Dir::Etc::sourceparts": "/dev/null", "Dir::State::lists": f"{FOLDER}/lists",
                "Dir::Cache": FOLDER, "Dir::Cache::archives": f"{FOLDER}/archives", "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": "",
                "APT::Sandbox::User": "", "Acquire::Languages": "none", "Acquire::Retries": "3"}
    options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
    run(["apt-get", *options, "update"], f"reading {SUITE}'s list of packages")
    run(["apt-get", *options, "download", *PACKAGES], f"fetching QEMU from {SUITE}")
    new = os.path.join(FOLDER, "new")
    for archive in sorted(glob.glob(os.path.join(FOLDER, "*.deb"))):
        run(["dpkg-deb", "-x", archive, new], "unpacking QEMU")
        os.unlink(archive)
    if not knows_igb([os.path.join(new, "usr", "bin", "qemu-system-x86_64")]):
        raise MachineError(f"the QEMU of {SUITE} does not start here, or has no igb card; see {new}")
    shutil.rmtree(os.path.join(FOLDER, "root"), ignore_errors=True)
    # The name appears with everything in it.
    os.rename(new, os.path.join(FOLDER, "root"))
    for name in ("lists", "archives"):
        shutil.rmtree(os.path.join(FOLDER, name), ignore_errors=True)


if __name__ == "__main__":
    try:
        install()
    except (MachineError, OSError) as error:
        sys.exit(f"backport: {error}")
