"""What takes more than one program: killed programs, a killed daemon, a hostile neighbour."""

import time

from abilab import Lab, claim

SCENARIOS = []


def scenario(name):
    def keep(run):
        SCENARIOS.append((name, run))
        return run
    return keep


def free_pages():
    """Free hugepages of 2 MiB."""
    try:
        with open("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages") as file:
            return int(file.read())
    except OSError:
        return 0


@scenario("kill/programs")
def killed_programs(options, programs):
    """Programs that die at any moment leave nothing behind."""
    with Lab(options, programs) as lab:
        words = ["--cycles", options.cycles, "--seed", options.seed]
        if lab.cards:
            words += ["--cards", ",".join(lab.cards)]
        code, told, errors = lab.figures("netmap-churn", *words, timeout=60 + options.cycles)
        print(f"        {told}", flush=True)
        claim(lab.alive(), f"ringwayd ended\n{lab.tail()}")
        claim(code == 0 and told["odd"] == 0, f"{told['odd']} programs ended by themselves: {errors[-2000:]}")
        claim(told["killed"] == options.cycles, f"{told['killed']} programs were killed, not {options.cycles}")
        claim(told["holding"] > options.cycles // 20, f"only {told['holding']} held a port when they were killed")
        lab.settled(30)
        # And everything works.
        code, told, errors = lab.figures("netmap-steady", "--seconds", 1)
        claim(code == 0, f"afterwards: {told} {errors}")


@scenario("kill/daemon")
def killed_daemon(options, programs):
    """Programs that hold a port see an error, and can open it again; hugepages come back."""
    before = free_pages()
    with Lab(options, programs) as lab:
        names = ["restart{1", "valerestart:a", *lab.cards[:1]]
        for number in range(3):
            holders = [lab.background("netmap-steady", "--seconds", 60, "--hold", name) for name in names]
            for holder in holders:
                if holder.stdout.readline().strip() != "open":
                    claim(False, f"a port could not be opened: {holder.stderr.read()}")
            time.sleep(0.3)
            lab.kill_daemon()
            time.sleep(0.3)
            if lab.cards:
                lab.model.terminate()
                lab.model.wait(10)
                lab.start_models()
            lab.start_daemon()
            for name, holder in zip(names, holders):
                output, errors = holder.communicate(timeout=60)
                lines = output.split("\n")
                claim(lines[0] == "poll POLLERR, sync ENXIO", f"{name}, round {number}: the program saw \"{lines[0]}\" {errors}")
                claim("open again" in lines, f"{name}, round {number}: it could not be opened again: {output} {errors}")
        lab.before = lab.quiet_account()
        if lab.before["free buffers"] != lab.before["buffers"]:
            lab.nudge()
            lab.before = lab.quiet_account()
        claim(lab.before["free buffers"] == lab.before["buffers"], f"buffers are missing: {lab.before}")
    end = time.monotonic() + 5
    while free_pages() != before and time.monotonic() < end:
        time.sleep(0.1)
    claim(free_pages() == before, f"{before - free_pages()} hugepages are missing")


def beside_a_hostile_one(options, programs, source, target):
    with Lab(options, programs) as lab:
        words = ["--seconds", options.seconds, "--seed", options.seed]
        if lab.cards:
            words += ["--cards", lab.cards[0]]
        hostile = lab.background("netmap-hostile", *words)
        code, told, errors = lab.figures("netmap-steady", "--seconds", options.seconds, "--from", source, "--to", target,
                                         timeout=60 + options.seconds)
        output, _ = hostile.communicate(timeout=30)
        print(f"        {told} beside {output.strip()}", flush=True)
        claim(lab.alive(), f"ringwayd ended with {lab.daemon.returncode}\n{lab.tail()}")
        claim(code == 0, f"the program that behaves did not fare well: {told} {errors}")
        # Two cores, five programs: what is more than a second is no scheduling any more.
        claim(told["longest_ms"] < 1000, f"a packet took {told['longest_ms']} ms")
        lab.settled(30)


@scenario("hostile/pipe")
def hostile_pipe(options, programs):
    # In the region of a switch's port, which is its own: the hostile ones have the global region.
    beside_a_hostile_one(options, programs, "valesteady:p{1", "valesteady:p}1")


@scenario("hostile/switch")
def hostile_switch(options, programs):
    beside_a_hostile_one(options, programs, "valesteady:a", "valesteady:b")
