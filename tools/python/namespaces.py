"""Network namespaces that belong to a process and end with it: what tools/lab and Tests/Peers stand on."""

import ctypes
import os
import signal
import struct
import subprocess

CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """What failed, and what to do: two lines for a person."""

    def __init__(self, problem, hint=None, code=1):
        super().__init__(problem)
        self.hint, self.code = hint, code


def end_with_parent():
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Namespace:
    """A network namespace, held open by a child that does nothing else."""

    def __init__(self, name, address4, address6):
        self.name, self.address4, self.address6 = name, address4, address6
        ready, tell = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            end_with_parent()
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            ok = libc.unshare(CLONE_NEWNET) == 0
            os.write(tell, b"y" if ok else struct.pack("i", ctypes.get_errno()))
            os.close(tell)
            while True:
                signal.pause()
        os.close(tell)
        answer = os.read(ready, 4)
        os.close(ready)
        if answer != b"y":
            self.close()
            number = struct.unpack("i", answer)[0] if len(answer) == 4 else 0
            raise LabError(f"no network namespace can be made: {os.strerror(number)}",
                           "run it as root, or allow user namespaces (kernel.unprivileged_userns_clone)", 77)
        self.path = f"/proc/{self.pid}/ns/net"

    def command(self, *words):
        return ["nsenter", f"--net={self.path}", *words]

    def run(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True)
        if done.returncode:
            raise LabError(f"{' '.join(words)} in namespace {self.name}: {done.stderr.strip()}")

    def close(self):
        if self.pid:
            try:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
            except (ProcessLookupError, ChildProcessError):
                pass
            self.pid = 0
