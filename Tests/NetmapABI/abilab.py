"""A ringwayd with a netmap socket, two models of cards cabled to each other, and C programs with the preload library.

      netmap-abi ── LD_PRELOAD=libringway-netmap.so ── netmap socket ── ringwayd ══ model ── pair ── model ══ ringwayd
                                                                              ix0               ix1

Everything lies in one private directory and belongs to this process: daemon and models end with it.
"""

import glob
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(ROOT, "tools", "python"))

from namespaces import LabError, end_with_parent  # noqa: E402

# What `ringway-model` calls a card, and what its interfaces are called.
CARDS = {"82599": "ix", "82574": "em", "virtio-net": "vtnet"}
LIBRARY = "libringway-netmap.so"


class Failure(Exception):
    """A claim that does not hold."""


def claim(condition, text):
    if not condition:
        raise Failure(text)


class Programs:
    """The C programs, compiled here and now with what `cc` is."""

    def __init__(self, directory):
        self.directory = directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def compile(self):
        # _FORTIFY_SOURCE brings in the C library's checking variants, which programs in the field call.
        flags = ["-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-D_FORTIFY_SOURCE=2"]
        common = os.path.join(HERE, "abi.c")
        for name, sources in [("netmap-abi", sorted(glob.glob(os.path.join(HERE, "cases", "*.c"))))] + [
                (f"netmap-{word}", [os.path.join(HERE, "programs", f"{word}.c")]) for word in ("churn", "steady", "hostile")]:
            done = subprocess.run(["cc", *flags, "-o", self.path(name), *sources, common, "-lpthread"], capture_output=True, text=True)
            if done.returncode:
                raise LabError(f"{name} does not compile:\n{done.stderr[:4000]}")
        return self

    def cases(self):
        done = subprocess.run([self.path("netmap-abi"), "--list"], capture_output=True, text=True, check=True)
        return [tuple(line.split()) for line in done.stdout.splitlines()]

    def close(self):
        shutil.rmtree(self.directory, ignore_errors=True)


def compile_programs():
    programs = Programs(tempfile.mkdtemp(prefix="netmap-abi-programs-"))
    try:
        return programs.compile()
    except BaseException:
        programs.close()
        raise


class Lab:
    def __init__(self, options, programs):
        self.options, self.programs = options, programs
        self.directory = tempfile.mkdtemp(prefix="netmap-abi-")
        self.control = os.path.join(self.directory, "control.sock")
        self.netmap = os.path.join(self.directory, "netmap.sock")
        self.children, self.daemon, self.before = [], None, None
        self.library = os.path.join(options.binaries, LIBRARY)
        if not os.path.exists(self.library):
            self.close()
            raise LabError(f"there is no {self.library}: swift build --product ringway-netmap")

    def binary(self, name):
        return os.path.join(self.options.binaries, name)

    def spawn(self, words, log, **more):
        file = open(os.path.join(self.directory, log), "a")
        process = subprocess.Popen(words, preexec_fn=end_with_parent, start_new_session=True, stdin=subprocess.DEVNULL,
                                   **({"stdout": file, "stderr": file} | more))
        file.close()
        self.children.append(process)
        return process

    # MARK: the daemon and its cards

    @property
    def cards(self):
        """Names of the two interfaces; none without cards."""
        return [] if self.options.card == "none" else [f"{CARDS[self.options.card]}{number}" for number in (0, 1)]

    def start(self):
        try:
            if self.cards:
                self.start_models()
            self.start_daemon()
            # The global region and a card's netmap side are made at their first use: that is no leak.
            self.program("netmap-abi", "--only", "layout/null-port")
            if self.cards:
                self.program("netmap-abi", "--only", "card/fields")
                self.program("netmap-abi", "--only", "card/fields", NETMAP_ABI_NIC=self.cards[1])
            self.before = self.quiet_account()
        except BaseException:
            self.close()
            raise
        return self

    def start_models(self):
        sockets = [os.path.join(self.directory, f"card{number}.sock") for number in (0, 1)]
        words = [self.binary("ringway-model"), self.options.card]
        for path in sockets:
            words += ["--socket", path, "--wire", "pair:cable"]
        self.model = self.spawn(words, "model.log")
        self.until(lambda: all(map(os.path.exists, sockets)), 20, "the models of the cards did not start")
        self.sockets = sockets

    def configuration(self):
        # Private regions have room for another port's rings, or a pipe's.
        lines = ["[control]", f'socket = "{self.control}"', "[netmap]", f'socket = "{self.netmap}"', "private-rings = 64",
                 "private-buffers = 12290", 'region-bytes = "64G"', "[netisr]", "workers = 2",
                 "[memory]", f"huge = {'true' if self.options.huge else 'false'}"]
        for number, _ in enumerate(self.cards):
            lines += ["[[card]]", f'device = "vfio-user:{self.sockets[number]}"', f'addresses = ["198.18.{number + 1}.1/24"]',
                      "promiscuous = true"]
        return "\n".join(lines) + "\n"

    def start_daemon(self):
        file = os.path.join(self.directory, "ringwayd.toml")
        with open(file, "w") as out:
            out.write(self.configuration())
        self.daemon = self.spawn([self.binary("ringwayd"), "--config", file], "ringwayd.log")
        self.until(lambda: self.daemon.poll() is not None or os.path.exists(self.netmap), 30, "ringwayd made no netmap socket")
        claim(self.daemon.poll() is None, f"ringwayd ended with {self.daemon.returncode}\n{self.tail()}")
        self.until(lambda: self.sysctl("netmap.total_buffers") is not None, 20, "ringwayd does not tell of netmap.total_buffers")
        for name in self.cards:
            self.until(lambda: self.ringway("ifconfig", name) is not None, 20, f"{name} did not come up")

    def kill_daemon(self):
        """As an accident does it."""
        self.daemon.kill()
        self.daemon.wait()
        for path in (self.netmap, self.control):
            if os.path.exists(path):
                os.unlink(path)

    def alive(self):
        return self.daemon is not None and self.daemon.poll() is None

    def tail(self, lines=30):
        try:
            with open(os.path.join(self.directory, "ringwayd.log"), errors="replace") as file:
                return "".join(file.readlines()[-lines:])[-4000:]
        except OSError:
            return ""

    def ringway(self, *words):
        done = subprocess.run([self.binary("ringway"), *words, "--socket", self.control], capture_output=True, text=True,
                              timeout=30, stdin=subprocess.DEVNULL)
        return done.stdout if done.returncode == 0 else None

    def sysctl(self, name):
        text = self.ringway("sysctl", name)
        if text is None:
            return None
        digits = text.replace("=", " ").replace(":", " ").split()
        return int(digits[-1]) if digits and digits[-1].isdigit() else None

    def account(self):
        """What must be the same before and after: buffers, and the daemon's descriptors and shared mappings."""
        process = f"/proc/{self.daemon.pid}"
        with open(f"{process}/maps") as maps:
            shared = sum("s " in line.split(" ", 2)[1] + " " for line in maps)
        return {"free buffers": self.sysctl("netmap.free_buffers"), "buffers": self.sysctl("netmap.total_buffers"),
                "descriptors": len(os.listdir(f"{process}/fd")), "shared mappings": shared}

    def quiet_account(self):
        """The account, when nothing of it has changed for a while: closing takes the daemon a moment."""
        last, since = None, time.monotonic()
        while time.monotonic() - since < 1:
            now = self.account()
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.1)
        return last

    def nudge(self):
        """Has the cards give back what they keep of ports that have closed."""
        for name in self.cards:
            self.ringway("ifconfig", name, "down")
            self.ringway("ifconfig", name, "up")

    def settled(self, seconds=10):
        """Waits until the account is as it was at the start; says what is not."""
        claim(self.alive(), f"ringwayd ended with {self.daemon.returncode}\n{self.tail()}")
        end = time.monotonic() + seconds
        nudged = False
        while True:
            now = self.account()
            if now == self.before:
                return
            # A card keeps what a closed port had given it to receive into, until frames come or it starts anew.
            if not nudged and time.monotonic() > end - seconds + 0.5:
                nudged = True
                self.nudge()
            if time.monotonic() > end:
                wrong = [f"{key}: {self.before[key]} before, {now[key]} now" for key in now if now[key] != self.before[key]]
                self.before = now
                raise Failure("the daemon's account is not what it was: " + "; ".join(wrong))
            time.sleep(0.1)

    # MARK: programs

    def environment(self, **more):
        found = dict(os.environ, LD_PRELOAD=self.library, RINGWAY_NETMAP_SOCKET=self.netmap, NETMAP_ABI_NIC_ADDRESS="198.18.1.1")
        if self.cards:
            found |= {"NETMAP_ABI_NIC": self.cards[0], "NETMAP_ABI_NIC2": self.cards[1]}
        return found | more

    def program(self, name, *words, timeout=90, **more):
        """Runs a C program to its end: (exit code, output, errors)."""
        process = subprocess.Popen([self.programs.path(name), *map(str, words)], env=self.environment(**more), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=end_with_parent, start_new_session=True)
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # Its children as well: they are in its session.
            os.killpg(process.pid, 9)
            output, errors = process.communicate()
            errors += f"{name} did not end within {timeout} s\n"
        return process.returncode, output, errors

    def background(self, name, *words):
        process = subprocess.Popen([self.programs.path(name), *map(str, words)], env=self.environment(), text=True,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=end_with_parent, start_new_session=True)
        self.children.append(process)
        return process

    def figures(self, name, *words, **more):
        code, output, errors = self.program(name, *words, **more)
        claim(output.strip(), f"{name} ended with {code} and said nothing: {errors}")
        return code, json.loads(output.splitlines()[-1]), errors

    def case(self, name):
        """One case of netmap-abi; a sentence when it was skipped."""
        code, output, errors = self.program("netmap-abi", "--only", name)
        claim(self.alive(), f"ringwayd ended with {self.daemon.returncode}\n{errors}{self.tail()}")
        problem = (errors + output).strip() or "it said nothing"
        if code not in (0, 77):
            try:
                self.settled(5)
            except Failure as error:
                problem += f"\n(and {error})"
            raise Failure(f"{problem} ({'signal ' + str(-code) if code < 0 else 'exit ' + str(code)})")
        self.settled()
        return problem if code == 77 else None

    # MARK: the end

    def until(self, condition, seconds, problem):
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise Failure(f"{problem}\n{self.tail()}")
            time.sleep(0.05)

    def stop(self):
        """As a service manager does it: the daemon must end by itself, with 0."""
        claim(self.alive(), f"ringwayd has ended\n{self.tail()}")
        self.daemon.terminate()
        try:
            code = self.daemon.wait(20)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            self.daemon.wait()
            raise Failure(f"ringwayd did not end within 20 s of SIGTERM\n{self.tail()}")
        claim(code == 0, f"ringwayd ended with {code} after SIGTERM\n{self.tail()}")

    def close(self):
        for child in reversed(self.children):
            if child.poll() is None:
                child.kill()
                child.wait()
            for stream in (child.stdout, child.stderr):
                if stream:
                    stream.close()
        if getattr(self.options, "keep", False):
            print(f"logs: {self.directory}", flush=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        try:
            if kind is None and self.alive():
                self.stop()
        finally:
            self.close()
