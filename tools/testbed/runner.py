"""Runs scenarios: finds them, boots guests, prints a line each, writes JUnit, keeps evidence."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sys
import time
import traceback
from xml.sax.saxutils import escape, quoteattr

from . import backport
from . import scenario as registry
from .channel import ChannelError
from .guest import Guest
from .machine import PATIENCE, ROOT, STATE, namespace_problem
from .scenario import Context, Skip, expect

SCENARIOS = os.path.join(ROOT, "Tests", "Testbed")
# What a healthy guest's kernel never prints at its console's log level. DMAR: a card was made to
# touch memory outside its mappings, which is a driver's mistake whatever the packets say.
COMPLAINT = re.compile(r".*(DMAR: .*fault|DMAR: \[|BUG:|Oops|Kernel panic|Call Trace|general protection|unregister_netdevice: waiting).*")


# Go into every guest when they have been built: module VFIO alone against the guest's kernel, and the daemon.
BESIDE = [os.path.join(ROOT, ".build", "static", "release", name) for name in ("vfio-probe", "ringwayd")]


class OutOfTime(Exception):
    pass


def load(folder=SCENARIOS):
    """Import each scenario file of the folder."""
    sys.path.insert(0, folder)
    # The wiring first: without it nothing else means anything.
    for name in sorted(os.listdir(folder), key=lambda name: (name != "wiring.py", name)):
        if name.endswith(".py"):
            module = name[:-3]
            spec = importlib.util.spec_from_file_location(f"scenarios.{module}", os.path.join(folder, name))
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return list(registry.REGISTERED)


@contextlib.contextmanager
def time_limit(seconds):
    def ring(*_):
        raise OutOfTime(f"gave up after {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


class Outcome:
    def __init__(self, scenario, verdict, seconds, text=""):
        self.scenario, self.verdict, self.seconds, self.text = scenario, verdict, seconds, text


class Runner:
    def __init__(self, binary, keep=False, out=sys.stdout):
        self.binary, self.keep, self.out = binary, keep, out
        self.guest = self.guest_topology = None
        self.booted = 0

    def say(self, text):
        print(text, file=self.out, flush=True)

    # -------------------------------------------------------------- guests

    def guest_for(self, scenario):
        """The running guest when it fits, or a fresh one."""
        if self.guest and (scenario.isolated or self.guest_topology != scenario.topology):
            self.drop()
        if not self.guest:
            problem = backport.problem(scenario.topology.qemu)
            if problem:
                raise Skip(problem)
            problem = namespace_problem(scenario.topology.host_script) if scenario.topology.host_script else None
            if problem:
                raise Skip(f"this host has no user and network namespaces for it: {problem}")
            programs = [self.binary + ":/bin/ringway"] if self.binary else []
            programs += [path for path in BESIDE if os.path.exists(path)]
            self.guest = self.boot(scenario, programs)
            self.guest_topology = scenario.topology
            self.booted += 1
            self.guest.set_up()
        self.complaints_seen = len(self.complaints())
        return self.guest

    def boot(self, scenario, programs):
        """A guest that is up; a guest that dies while booting gets a second chance, and its logs are kept."""
        logs = os.path.join(STATE, scenario.name, "boot")
        try:
            return Guest(scenario.topology, programs, boot_logs=logs)
        except ChannelError as error:
            self.say(f"     (booting once more: {error}; kept: {os.path.relpath(logs, ROOT)}/)")
            return Guest(scenario.topology, programs, boot_logs=logs + "-again")

    def drop(self):
        if self.guest:
            self.guest.close()
        self.guest = None

    def complaints(self):
        return [match.group(0).strip() for match in COMPLAINT.finditer(self.guest.serial_log())]

    # ------------------------------------------------------------ one run

    def run(self, scenario):
        started = time.monotonic()
        folder = os.path.join(STATE, scenario.name)
        shutil.rmtree(folder, ignore_errors=True)
        notes = []
        verdict, text = "passed", ""
        try:
            if scenario.binary and not self.binary:
                raise Skip("there is no ringway binary")
            with time_limit(scenario.limit * PATIENCE):
                guest = self.guest_for(scenario)
                context = Context(guest, notes.append)
                scenario.function(context)
                complaints = self.complaints()[self.complaints_seen:]
                if context.complaints_expected:
                    expect(complaints, "the guest's kernel should have complained, and did not")
                elif complaints:
                    raise AssertionError("the guest's kernel complains:\n" + "\n".join(complaints[:20]))
        except Skip as reason:
            verdict, text = "skipped", str(reason)
        except (KeyboardInterrupt, SystemExit):
            self.drop()
            raise
        except BaseException as error:
            verdict, text = "failed", self.describe(error)
        if verdict == "failed" or self.keep:
            self.keep_evidence(folder, text)
        self.after(scenario, verdict)
        outcome = Outcome(scenario, verdict, time.monotonic() - started, text)
        self.report(outcome, notes, folder)
        return outcome

    @staticmethod
    def describe(error):
        """The message, and the scenario's own line where it arose."""
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(SCENARIOS)]
        where = f"{os.path.relpath(frames[-1].filename, ROOT)}:{frames[-1].lineno}: {frames[-1].line}\n" if frames else \
                "".join(traceback.format_exception(error))
        return f"{where}{type(error).__name__}: {error}"

    def keep_evidence(self, folder, text):
        os.makedirs(folder, exist_ok=True)
        if text:
            with open(os.path.join(folder, "failure.txt"), "w") as stream:
                stream.write(text + "\n")
        if not self.guest:
            return
        try:
            with time_limit(30 * PATIENCE):
                report = self.guest.run("dmesg; for f in /run/agent/*.log; do echo; echo \"== $f\"; tail -c 20000 $f; done; echo; echo == processes; ps").output
                with open(os.path.join(folder, "guest.log"), "w") as stream:
                    stream.write(report)
        except Exception as error:  # the guest may be what has failed
            self.say(f"     (the guest no longer answers: {error})")
        self.guest.save_logs(folder)

    def after(self, scenario, verdict):
        """Leave a guest as a fresh one would be, or end it."""
        if not self.guest:
            return
        if verdict == "failed" or scenario.isolated:
            self.drop()
            return
        try:
            with time_limit(60 * PATIENCE):
                self.guest.tidy()
        except Exception as error:
            self.say(f"     (guest dropped: {error})")
            self.drop()

    def report(self, outcome, notes, folder):
        mark = {"passed": "ok  ", "failed": "FAIL", "skipped": "skip"}[outcome.verdict]
        detail = f": {outcome.text}" if outcome.verdict == "skipped" else "".join(f"; {note}" for note in notes)
        self.say(f"{mark} {outcome.scenario.name} ({outcome.seconds:.1f} s){detail}")
        if outcome.verdict == "failed":
            self.say("     " + outcome.text.replace("\n", "\n     "))
            self.say(f"     kept: {os.path.relpath(folder, ROOT)}/")


def junit(outcomes, path, seconds):
    count = {verdict: sum(o.verdict == verdict for o in outcomes) for verdict in ("passed", "failed", "skipped")}
    # XML 1.0 knows no control characters.
    clean = lambda text: re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)
    lines = ['<?xml version="1.0" encoding="UTF-8"?>',
             f'<testsuites><testsuite name="Testbed" tests="{len(outcomes)}" failures="{count["failed"]}" '
             f'skipped="{count["skipped"]}" errors="0" time="{seconds:.1f}">']
    for o in outcomes:
        group, _, name = o.scenario.name.partition(".")
        lines.append(f'<testcase classname={quoteattr("Testbed." + group)} name={quoteattr(name)} time="{o.seconds:.1f}">')
        if o.verdict == "failed":
            lines.append(f'<failure message={quoteattr(clean(o.text.splitlines()[0]))}>{escape(clean(o.text))}</failure>')
        elif o.verdict == "skipped":
            lines.append(f"<skipped message={quoteattr(clean(o.text))}/>")
        lines.append("</testcase>")
    lines.append("</testsuite></testsuites>")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "w") as stream:
        stream.write("\n".join(lines) + "\n")
    return count


def run_all(scenarios, binary, keep, junit_path):
    started = time.monotonic()
    runner, outcomes = Runner(binary, keep), []
    try:
        for scenario in scenarios:
            outcomes.append(runner.run(scenario))
    finally:
        runner.drop()
        seconds = time.monotonic() - started
        count = junit(outcomes, junit_path, seconds) if junit_path else \
            {v: sum(o.verdict == v for o in outcomes) for v in ("passed", "failed", "skipped")}
    skipped = f", {count['skipped']} skipped" if count["skipped"] else ""
    runner.say(f"{count['passed']} passed, {count['failed']} failed{skipped} ({seconds:.0f} s, {runner.booted} boots)")
    return 1 if count["failed"] or not count["passed"] else 0
