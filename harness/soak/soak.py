#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""make soak: random programs on a guest, checked against a model.

  harness/soak/run             one run; the environment:
      TOPIC=NAME               prefer this topic's calls and neighbours
      MINUTES=5                of guest time
      SEED=NUMBER|tree         tree: computed from HEAD's tree; else a new one
      CONFIG=guest|debug|kcsan STOCK=1    the kernel; STOCK=1 leaves out the
                               calls of the series and records violations as
                               upstream's
      SHAPE="4 2 2G"           CPUs, nodes, memory, and kernel parameters
      REPLAY=FILE              run this program file
      ALL=1                    ignore harness/soak-findings
      SHRINK_MINUTES=20        spent on a smaller program; 0, and the default
                               with REPLAY: none
      CHECK_STOCK=1            build the stock kernel to see if it fails as well
  harness/soak/run --test      3 minutes, SEED=tree, no shrinking: for make test
  harness/soak/run --check     validate harness/soak-findings

Exits with 0 if the run was clean, 1 after a violation, 2 for bad input. A
failure's program and logs are in build/soak/failures/SEED/.
"""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build"
OUT = BUILD / "soak"
SOAK = OUT / "soak"
FINDINGS = ROOT / "harness/soak-findings"
CONFIGS = ("guest", "debug", "kcsan")
AXES = ("calls", "neighbours", "knobs")

SHAPE = re.compile(r"([1-9]\d*) ([1-9]\d*) (\d+[GM])(?: (\S.*))?$")
PROGRESS = re.compile(r"soak: \d+ s: (\d+) calls.*neighbours: ?(.*)")
CLEAN = re.compile(r"soak: clean after \d+ s, (\d+) calls")
VIOLATION = re.compile(r"soak: violation (\w+): (.*)")
FAILED = re.compile(r"offpath: \S+ guest: (its kernel complained: |data races in code of the series|"
                    r"hung|died|did not|the script exited with)(.*?)(?:; see .*)?$", re.M)
# Numbers that differ between two runs that hit the same bug; not those of lines.
VARIES = re.compile(r"(?<!\.[ch]:)\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b")
FAULT = re.compile(r"unable to handle|NULL pointer|general protection|double fault|divide error")

# Console lines that hostile neighbours cause, and that are no complaint.
EXPECTED = (r"Memory failure: ",)


class BadInput(Exception):
    """One sentence, with the values that are accepted."""


class Broken(Exception):
    """The harness itself failed: cause, place, remedy."""


def say(text: str) -> None:
    print(text, flush=True)


def option(name: str) -> str:
    return os.environ.get(name, "").strip()


def positive(name: str, default: str) -> float:
    text = option(name) or default
    if not re.fullmatch(r"\d+(\.\d+)?", text) or (name == "MINUTES" and float(text) == 0):
        raise BadInput(f"{name}={text}: give a {'positive ' if name == 'MINUTES' else ''}number of minutes, such as {default}")
    return float(text)


def number(text: str, name: str = "SEED") -> int:
    if not re.fullmatch(r"\d+", text) or int(text) >= 1 << 64:
        raise BadInput(f"{name}={text}: give a number below 2^64" + (", or 'tree' for that of HEAD's tree" if name == "SEED" else ""))
    return int(text)


def topics() -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / "patches/series").read_text().splitlines())
    return [line for line in lines if line and not line.startswith("prerequisite ")]


def one_of(name: str, value: str, values: tuple[str, ...] | list[str]) -> str:
    if value and value not in values:
        raise BadInput(f"{name}={value}: there are {', '.join(values)}")
    return value


@dataclass
class Program:
    """A program file; a list that is None means all."""

    seed: int
    seconds: int
    processes: int = 3
    threads: int = 3
    series: bool = True
    topic: str = ""
    calls: list[str] | None = None
    neighbours: list[str] | None = None
    knobs: list[str] | None = None
    apart: list[str] = field(default_factory=list)
    config: str = "guest"
    shape: str = "4 2 2G"
    append: str = ""
    symptom: str = ""

    def text(self) -> str:
        lines = [f"# {name} {getattr(self, name)}" for name in ("config", "shape", "append", "symptom")]
        lines += [f"{name} {getattr(self, name)}" for name in ("seed", "seconds", "processes", "threads")]
        lines += [f"series {'yes' if self.series else 'no'}"]
        lines += [f"topic {self.topic}"] if self.topic else []
        for name in AXES:
            if (names := getattr(self, name)) is not None:
                lines.append(f"{name} {' '.join(names) or '-'}")
        lines += [f"apart {' '.join(self.apart)}"] if self.apart else []
        return "\n".join(lines) + "\n"

    @staticmethod
    def read(path: Path) -> Program:
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"REPLAY={path}: give a program file, such as build/soak/failures/SEED/program ({error})") from error
        program = Program(0, 0)
        for place, line in enumerate(lines, 1):
            key, _, value = line.removeprefix("# ").partition(" ")
            value = value.strip()
            host = key in ("config", "shape", "append", "symptom")
            if not line.strip() or (line.startswith("#") and not host):
                continue
            if line.startswith("#"):
                setattr(program, key, value)
            elif key in ("seed", "seconds", "processes", "threads") and value.isdecimal():
                setattr(program, key, int(value))
            elif key == "series" and value in ("yes", "no"):
                program.series = value == "yes"
            elif key == "topic" and value in topics():
                program.topic = value
            elif key in AXES and value:
                setattr(program, key, [] if value == "-" else value.split())
            elif key == "apart":
                program.apart = value.split()
            else:
                raise BadInput(f"REPLAY={path}, line {place}, '{line}': it takes seed, seconds, processes and threads with a number, "
                               f"series yes|no, topic with a topic, and calls, neighbours, knobs and apart with names")
        if program.seconds == 0:
            raise BadInput(f"REPLAY={path}: it needs a line 'seconds NUMBER', and a 'seed NUMBER'")
        return program

    def size(self) -> str:
        def count(names: list[str] | None, what: str) -> str:
            return f"{'all' if names is None else len(names)} {what}{'s' if names is None or len(names) != 1 else ''}"
        return (f"{count(self.calls, 'call')}, {count(self.neighbours, 'neighbour')}, {count(self.knobs, 'knob')}, "
                f"{self.processes}x{self.threads} threads")


@dataclass
class Findings:
    """The lines of harness/soak-findings that soak reads."""

    apart: list[str] = field(default_factory=list)
    upstream: list[tuple[str, str]] = field(default_factory=list)	# class, regex

    def tolerates(self, result: Result) -> bool:
        return any(kind == result.kind and re.search(regex, result.text) for kind, regex in self.upstream)


@dataclass
class Vocabulary:
    """The names that this soak binary knows."""

    calls: list[str]
    neighbours: list[str]
    knobs: list[str]
    series: set[str]		# calls of the series

    def check(self, program: Program) -> None:
        for axis in AXES:
            names = getattr(self, axis)
            for name in getattr(program, axis) or []:
                if name not in names:
                    raise BadInput(f"REPLAY: there is no {axis[:-1]} '{name}'; there are {' '.join(names)}")


@dataclass
class Result:
    """How a boot went; kind is empty for a clean one."""

    kind: str			# a class of soak's, or complaint, hang, died
    text: str
    seconds: float		# from soak's start
    calls: int
    log: list[str]		# lines that soak printed
    excerpt: list[str]		# console lines that harness/boot quoted

    def same(self, other: Result) -> bool:
        """The kind of failure that shrinking may not change."""
        return self.kind == other.kind and (self.kind != "complaint" or self.likeness() == other.likeness())

    def likeness(self) -> str:
        return VARIES.sub("N", re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+", "", self.text))

    def last(self) -> list[str]:
        """Each thread's last calls, or the newest of the trail."""
        found = [line for line in self.log if line.startswith("soak: last ")]
        return found or [line for line in self.log if line.startswith("soak: trail ")][-2:]

    def used(self, names: list[str]) -> list[str]:
        """Those of these names that the last calls and the last progress line have."""
        progress = [match[2] for line in self.log if (match := PROGRESS.match(line))]
        words = set(re.findall(r"[\w.:-]+", " ".join(self.last() + progress[-1:])))
        return [name for name in names if name in words]


def guest_environment(program: Program, stock: bool) -> dict[str, str]:
    cpus, nodes, mem, _ = SHAPE.match(program.shape).groups()	# type: ignore[union-attr]
    return {**os.environ, "CONFIG": program.config, "STOCK": "1" if stock else "", "CPUS": cpus, "NODES": nodes, "MEM": mem}


def boot(program: Program, stock: bool, out: Path, findings: Findings, stop: threading.Event,
         until: float = float("inf"), live: bool = False) -> Result:
    """Boot a guest for this program. It ends early once @stop is set, or @until has passed."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "program").write_text(program.text())
    parameters = SHAPE.match(program.shape)[4]	# type: ignore[index]
    complaints = [regex for kind, regex in findings.upstream if kind == "complaint"]
    append = f"{program.append} {parameters or ''} {option('APPEND')}"
    allow = [*EXPECTED, *complaints, *([option("ALLOW")] if option("ALLOW") else [])]
    if program.config != "kcsan" and not complaints:
        append += " panic_on_warn=1"	# the first complaint ends the run
    # soak prints a line each 10 s; it waits up to 240 s for processes to end.
    silence = 300 if program.config == "guest" else 480
    environment = guest_environment(program, stock) | {
        "BUILT": "1", "APPEND": append, "OUT": str(out), "ALLOW": "|".join(allow), "LIMIT": str(program.seconds + 4 * silence)}
    log: list[str] = []
    begin = heard = time.monotonic()
    grace = float("inf")

    with (out / "boot.log").open("w") as errors, subprocess.Popen(
            [ROOT / "harness/boot", "-f", SOAK, "-f", out / "program", ROOT / "harness/soak/guest.sh", "program"],
            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace",
            start_new_session=True) as process:

        def end() -> None:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)

        def watch() -> None:
            while process.poll() is None:
                if stop.wait(1) or time.monotonic() > until:
                    return end()
                if time.monotonic() > min(grace, heard + silence):
                    kill_guest(process.pid)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for line in process.stdout or ():
                line = line.rstrip()
                log.append(line)
                heard = time.monotonic()
                if line.startswith("soak: starts"):
                    begin = heard
                elif VIOLATION.match(line):
                    grace = heard + 60	# the guest may not be able to power off
                if live and not re.match(r"soak: (last|trail|log) ", line):
                    say(f"  {line}")
            process.wait()
        finally:
            end()
            watcher.join()
    return judge(process.returncode, log, (out / "boot.log").read_text(errors="replace"), heard - begin)


def kill_guest(group: int) -> None:
    """Kill QEMU in this process group; harness/boot then judges the console as after a hang."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        if name.startswith("qemu-system") and int(rest.split()[2]) == group:
            os.kill(int(stat.parent.name), signal.SIGKILL)


def judge(status: int, log: list[str], errors: str, seconds: float) -> Result:
    calls = max((int(match[1]) for line in log if (match := PROGRESS.match(line) or CLEAN.match(line))), default=0)
    excerpt = [line for line in errors.splitlines() if line.startswith("  | ")]
    result = Result("", "", seconds, calls, log, excerpt)
    violation = next((match for line in log if (match := VIOLATION.match(line))), None)
    failed = FAILED.search(errors)
    if failed and failed[1].startswith("data races"):
        # The kcsan kernel; harness/boot quotes the races, known ones with that word.
        new = [line.removeprefix("  | kcsan ") for line in excerpt if line.startswith("  | kcsan ")]
        result.kind, result.text = "complaint", "KCSAN: " + "".join(new[:1]).partition("  #")[0]
    elif failed and failed[1].startswith("its kernel"):
        result.kind, result.text = "complaint", failed[2]
        if FAULT.search(result.text) and (where := re.search(r"RIP: \S+?:(\w+)", "\n".join(excerpt))):
            result.text += f" in {where[1]}()"
    elif violation:
        result.kind, result.text = violation[1], violation[2]
    elif status == 2:
        raise BadInput("soak takes no such program file: " + " ".join(log[-2:]))
    elif failed:
        result.kind, result.text = "died", failed[1] + failed[2]
        if failed[1] == "hung":
            result.kind, result.text = "hang", f"the guest printed nothing after {seconds:.0f} s"
    elif status in (-signal.SIGTERM, 128 + signal.SIGTERM):
        result.kind = "stopped"
    elif status or not any(CLEAN.match(line) for line in log):
        raise Broken("the guest ran no soak: " + (errors.strip() or " ".join(log[-3:])))
    return result


class Shrinker:
    """Delta debugging: each try is a boot with fewer names."""

    def __init__(self, program: Program, stock: bool, result: Result, words: Vocabulary, findings: Findings, minutes: float):
        self.best, self.stock, self.goal, self.words, self.findings = program, stock, result, words, findings
        self.seconds = self.bound(result)
        self.until = time.monotonic() + 60 * minutes
        self.tries = 0
        # Two guests side by side only where neither slows the other one down.
        self.width = 2 if (os.cpu_count() or 1) >= 2 * int(program.shape.split()[0]) else 1

    @staticmethod
    def bound(result: Result) -> int:
        return max(30, round(3 * result.seconds))

    def first_failing(self, candidates: list[Program]) -> int | None:
        """The first candidate that still fails becomes the best; its index."""
        for first in range(0, len(candidates), self.width):
            if time.monotonic() > self.until:
                return None
            batch = [replace(each, seconds=self.seconds) for each in candidates[first:first + self.width]]
            stop = threading.Event()

            def attempt(place: int, batch: list[Program] = batch, stop: threading.Event = stop) -> Result:
                result = boot(batch[place], self.stock, OUT / f"try-{place}", self.findings, stop, self.until)
                if self.goal.same(result):
                    stop.set()
                return result

            with ThreadPoolExecutor(self.width) as pool:
                try:
                    results = list(pool.map(attempt, range(len(batch))))
                except BaseException:
                    stop.set()
                    raise
            self.tries += len(batch)
            for place, result in enumerate(results):
                fails = self.goal.same(result)
                if result.kind != "stopped":
                    say(f"shrink: {batch[place].size()}, {'still fails' if fails else result.kind or 'clean'}")
                if fails:
                    self.best, self.seconds = batch[place], self.bound(result)
                    return first + place
        return None

    def reduce(self, axis: str) -> None:
        """Fewer names: none, those that were in use when it failed, then delta debugging."""
        names: list[str] = getattr(self.words, axis)
        if axis == "calls" and not self.best.series:
            names = [name for name in names if name not in self.words.series]
        if getattr(self.best, axis) is not None:
            names = getattr(self.best, axis)
        used = self.goal.used(names)
        guesses = [[]] if axis != "calls" and names else []
        guesses += [used] if 0 < len(used) < len(names) else []
        found = self.first_failing([self.with_names(axis, each) for each in guesses])
        if found is not None:
            names = guesses[found]
        # A try that fails ends early, one that passes takes its full time: so
        # leave out one part after the other, and do not try parts alone.
        size, at = -(-len(names) // 2), 0
        while len(names) > 1 and time.monotonic() < self.until:
            rests = [names[:i] + names[i + size:] for i in range(at, len(names), size) if size < len(names)]
            found = self.first_failing([self.with_names(axis, each) for each in rests])
            if found is not None:
                names, at = rests[found], at + found * size
            elif size == 1:
                break
            else:
                size, at = -(-size // 2), 0

    def with_names(self, axis: str, names: list[str]) -> Program:
        match axis:
            case "calls":
                return replace(self.best, calls=names)
            case "neighbours":
                return replace(self.best, neighbours=names)
            case _:
                return replace(self.best, knobs=names)

    def fewer_threads(self) -> None:
        p, t = self.best.processes, self.best.threads
        sizes = dict.fromkeys(((1, 1), (1, t), (p, 1), (1, 2), (-(-p // 2), -(-t // 2))))
        self.first_failing([replace(self.best, processes=a, threads=b) for a, b in sizes if a * b < p * t])

    def run(self) -> Program:
        say(f"shrink: {self.best.size()}; tries of {self.seconds} s until the same failure shows, "
            f"{max(0, round((self.until - time.monotonic()) / 60))} minutes in all")
        self.reduce("neighbours")
        self.reduce("knobs")
        self.fewer_threads()
        self.reduce("calls")
        say(f"shrink: {self.best.size()}, after {self.tries} tries")
        return replace(self.best, seconds=self.seconds)


def findings_lines() -> Iterator[tuple[int, list[str]]]:
    for place, line in enumerate(FINDINGS.read_text().splitlines(), 1):
        if line.strip() and not re.match(r"#|(kcsan|fault)\b", line):
            yield place, line.split("\t")


def read_findings(words: Vocabulary | None = None, wrong: Callable[[str], None] = lambda text: None) -> Findings:
    """harness/soak-findings; @wrong is told of each line that is not valid."""
    found = Findings()
    known = topics()
    for place, fields in findings_lines():
        where = f"soak-findings line {place}: "
        match fields:
            case ["upstream", kind, regex]:
                try:
                    re.compile(regex)
                except re.error as error:
                    wrong(f"{where}regular expression '{regex}': {error}")
                    continue
                found.upstream.append((kind, regex))
            case [seed, symptom, topic, pair] if seed.isdecimal() and symptom and pair.count("/") == 1:
                call, neighbour = pair.split("/")
                if topic not in known:
                    wrong(f"{where}no topic '{topic}'; there are {' '.join(known)}")
                if words and call not in words.calls:
                    wrong(f"{where}soak has no call '{call}'")
                if words and neighbour not in (*words.neighbours, "-"):
                    wrong(f"{where}soak has no neighbour '{neighbour}'; '-' leaves the call out altogether")
                found.apart.append(pair)
            case _:
                wrong(f"{where}needs SEED, SYMPTOM, TOPIC, CALL/NEIGHBOUR with tabs between, or upstream, CLASS, REGEX")
    return found


def compile_soak() -> Vocabulary:
    sources = sorted((ROOT / "harness/soak").glob("*.[ch]"))
    OUT.mkdir(parents=True, exist_ok=True)
    if not SOAK.exists() or any(each.stat().st_mtime > SOAK.stat().st_mtime for each in sources):
        programs = [str(each) for each in sources if each.suffix == ".c"]
        script = '. "$0"; step "compile soak" gcc -O2 -Wall -Wextra -static -pthread -o "$@"'
        if subprocess.run(["bash", "-c", script, ROOT / "harness/lib.sh", SOAK, *programs], check=False).returncode:
            raise Broken("soak does not compile, see build/log/compile-soak.log")

    def names(axis: str) -> list[list[str]]:
        done = subprocess.run([SOAK, "--list", axis], capture_output=True, text=True, check=False)
        if done.returncode:
            raise Broken(f"build/soak/soak --list {axis} failed: {done.stderr.strip()}")
        return [line.split() for line in done.stdout.splitlines() if line.strip()]

    lists = {axis: names(axis) for axis in AXES}
    return Vocabulary(*([line[0] for line in lists[axis]] for axis in AXES),
                      series={line[0] for line in lists["calls"] if "series" in line[1:]})


def build(program: Program, stock: bool) -> None:
    if option("BUILT"):
        return
    for verb in ("kernel", "guest"):
        if subprocess.run([ROOT / "harness" / verb], env=guest_environment(program, stock), check=False).returncode:
            raise Broken(f"harness/{verb} failed, as it says above")


def tree_seed() -> int:
    done = subprocess.run(["git", "rev-parse", "HEAD^{tree}"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadInput("SEED=tree: this folder is no git repository; give a number")
    return int(done.stdout[:8], 16)


def default_append(seed: int, topic: str, shape: str) -> str:
    """Kernel parameters; CPU 3 is isolated for percpu-drain, else in every other seed."""
    append = "offpath.swap=512M offpath.hugepages=32 movablecore=25%"
    if int(shape.split()[0]) >= 4 and (topic == "percpu-drain" or (not topic and seed % 2)):
        append += " isolcpus=domain,managed_irq,3 nohz_full=3 rcu_nocbs=3"
    return append


def new_program(stock: bool) -> Program:
    """The program that the environment asks for, checked before anything is built."""
    one_of("TOPIC", option("TOPIC"), topics())
    one_of("CONFIG", option("CONFIG"), CONFIGS)
    seconds = max(1, round(60 * positive("MINUTES", "5")))
    seed = option("SEED")
    seed_number = tree_seed() if seed == "tree" else number(seed) if seed else secrets.randbelow(10 ** 9)
    if option("REPLAY"):
        program = Program.read(Path(option("REPLAY")))
        program.seed = seed_number if seed else program.seed
        program.seconds = seconds if option("MINUTES") else program.seconds
    else:
        choice = random.Random(seed_number)
        program = Program(seed_number, seconds, choice.randint(2, 4), choice.randint(2, 4))
    program.topic = option("TOPIC") or program.topic
    program.config = one_of("CONFIG", option("CONFIG") or program.config, CONFIGS)
    program.shape = option("SHAPE") or program.shape
    if not SHAPE.match(program.shape):
        raise BadInput(f"SHAPE='{program.shape}': give CPUs, nodes and memory, such as '4 2 2G'")
    program.append = program.append or default_append(program.seed, program.topic, program.shape)
    program.series = program.series and not stock
    return program


def repeat(program: Program, stock: bool) -> str:
    """The command that runs it again."""
    words = [f"SEED={program.seed}", f"MINUTES={round(program.seconds / 60, 2):g}"]
    if option("REPLAY"):
        words = [f"REPLAY={option('REPLAY')}"]
    words += [f"{name}={option(name)}" for name in ("TOPIC", "CONFIG", "ALL") if option(name)]
    words += [f"SHAPE='{option('SHAPE')}'"] if option("SHAPE") else []
    return " ".join(["make soak", *words, *(["STOCK=1"] if stock else [])])


def report(program: Program, result: Result) -> None:
    say(f"soak: seed {program.seed}, after {result.seconds:.0f} s: {result.kind}: {result.text}")
    for line in result.excerpt + result.last():
        say(f"  {line}")


def save(program: Program, result: Result, folder: Path, logs: Path) -> Path:
    """The program and its logs, to look at and to run again."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "program"
    path.write_text(replace(program, symptom=f"{result.kind}: {result.text}").text())
    for name in ("console.log", "result.log"):
        if (logs / name).exists():
            shutil.copy(logs / name, folder)
    return path.relative_to(ROOT)


def stock_too(program: Program, result: Result, words: Vocabulary, findings: Findings) -> bool:
    """True if the stock kernel fails alike. Not asked where that takes a build."""
    name = f"stock-{program.config}"
    there = (BUILD / "kernel" / name / "arch/x86/boot/bzImage").exists() and (BUILD / f"guest/{name}.cpio").exists()
    if not (there or option("CHECK_STOCK")) or words.series.intersection(program.calls or []):
        return False
    if not there:
        build(program, True)
    program = replace(program, series=False, seconds=Shrinker.bound(result))
    other = boot(program, True, OUT / "stock", findings, threading.Event())
    say(f"soak: the same program on the stock kernel: {f'{other.kind}: {other.text}' if other.kind else 'clean'}")
    # More than the class: another violation there would hide one of ours.
    return other.kind == result.kind and other.likeness() == result.likeness()


def upstreams(program: Program, result: Result) -> None:
    with (OUT / "upstream").open("a") as file:
        file.write(f"upstream\t{result.kind}\t{result.text}\tseed {program.seed}\n")
    say("soak: this is upstream's, and does not fail the run; noted in build/soak/upstream")


def soak(test: bool) -> int:
    stock = bool(option("STOCK"))
    program = new_program(stock)
    minutes = positive("SHRINK_MINUTES", "0" if option("REPLAY") else "20")
    checked = subprocess.run([ROOT / "harness/boot", "--check"], env=guest_environment(program, stock), check=False)
    if checked.returncode:
        return checked.returncode
    words = compile_soak()
    words.check(program)
    findings = Findings() if option("ALL") else read_findings()
    if not option("REPLAY"):
        program.apart = findings.apart
    say(f"soak: seed {program.seed}, {program.seconds} s on {'stock' if stock else 'patched'}-{program.config}, "
        f"{program.shape}; again: {repeat(program, stock)}")
    build(program, stock)
    first, spent, calls, upstream = program.seed, 0.0, 0, 0
    total = program.seconds
    while True:
        result = boot(program, stock, OUT / "run", findings, threading.Event(), live=True)
        spent, calls = spent + result.seconds, calls + result.calls
        if not result.kind:
            break
        report(program, result)
        if not (stock or findings.tolerates(result)):
            failed = failure(program, result, words, findings, minutes)
            if failed:
                if test:
                    say(f"FAIL seed {program.seed}: {result.kind}: {result.text}; see {failed}")
                return 1
        elif stock:
            save(program, result, OUT / f"failures/{program.seed}-stock", OUT / "run")
            upstreams(program, result)
        else:
            say("soak: harness/soak-findings has it as upstream's")
        upstream += 1
        # The rest of the time goes to the next seed.
        if option("REPLAY") or total - spent < 30:
            break
        program = replace(program, seed=program.seed + 1, seconds=round(total - spent))
        say(f"soak: seed {program.seed}, the {program.seconds} s that remain")
    say(f"soak: {calls} calls in {spent / 60:.1f} minutes, seed {first}: clean"
        + (f", but for {upstream} violations of upstream's" if upstream else ""))
    if test:
        say(f"ok {total // 60} minutes of random programs, seed {first}")
    return 0


def failure(program: Program, result: Result, words: Vocabulary, findings: Findings, minutes: float) -> Path | None:
    """Save it, see whether it is upstream's, shrink it. None: it is upstream's."""
    folder = OUT / f"failures/{program.seed}"
    path = save(program, result, folder, OUT / "run")
    say(f"soak: saved in {path.parent}; again: {repeat(program, False)}")
    if stock_too(program, result, words, findings):
        upstreams(program, result)
        return None
    if minutes:
        smaller = Shrinker(program, False, result, words, findings, minutes).run()
        shutil.copy(ROOT / path, folder / "program.whole")
        (ROOT / path).write_text(replace(smaller, symptom=f"{result.kind}: {result.text}").text())
        if smaller.calls and stock_too(smaller, result, words, findings):
            upstreams(smaller, result)
            return None
        say((ROOT / path).read_text().rstrip())
    say(f"soak: to run it: make soak REPLAY={path}")
    return path.parent


def check() -> int:
    wrong: list[str] = []
    read_findings(compile_soak(), wrong.append)
    for text in wrong:
        say(f"FAIL {text}")
    if not wrong:
        say(f"ok soak-findings, {sum(1 for _ in findings_lines())} lines")
    return 1 if wrong else 0


def main(argv: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        match argv:
            case []:
                return soak(False)
            case ["--test"]:
                for name in ("TOPIC", "CONFIG", "STOCK", "SHAPE", "REPLAY", "ALL", "CHECK_STOCK"):
                    os.environ.pop(name, None)
                os.environ |= {"SEED": "tree", "MINUTES": "3", "SHRINK_MINUTES": "0"}
                return soak(True)
            case ["--check"]:
                return check()
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except BadInput as error:
        print(f"offpath: {error}", file=sys.stderr)
        return 2
    except Broken as error:
        print(f"offpath: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
