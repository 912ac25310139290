# SPDX-License-Identifier: GPL-2.0
"""What all benchmarks share: guests booted for three columns, and tables.

The columns are base (the kernel without the series), disabled (the patched
kernel, its knobs at what upstream does) and enabled. A topic describes itself
in bench/<topic>/topic.py:

    WAIT             what a user waits for or pays, in a few words
    FILES            files beside it that go into the guest's /payload
    MODULES          folders beside it: kernel modules, built for each kernel
    PROGRAMS         C files beside it: programs
    LINK             optional: of a program, what gcc is told to link it with
                     and how, in place of -static
    SYSTEM_FILES     optional: files of this machine to take along
    build(bench, jobs)    optional: build other programs, if those jobs need them;
                     returns files to take along
    jobs(demo)       list of Job: the guest scripts to run
    specs(demo)      list of Spec: the rows to compute from what they print
    front(demo)      list of Front: one or two rows for README's table
    TABLES           tables of the cover letter: name -> list of (label, key of
                     a row); a label without a key is a heading
    plot(figures)    optional: a Plot for the report
    native(bench)    optional: results that are taken on this machine itself,
                     by name; job "native", in the column "enabled"
    sweep_jobs(), sweep(values)    optional: for "make bench SWEEP=1"; the table
                     as a dict: about, head, lines of numbers

A guest script prints "= name value" for each result and whatever else a
reader of the raw output should see. bench/<topic>/off.sh is sourced first in
the column "disabled": it sets the knobs to what upstream does.

The key of a row is its name. A row whose name is indented belongs to the row
above it with less indentation, and its key is "name of that row > name".
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
RESULTS = ROOT / "bench/results"
COLUMNS = ("base", "disabled", "enabled")
SPREAD_BOOTS = 5		# a ratio of times needs at least so many

# What a job printed: figure -> one value for each boot.
Values = dict[str, list[float]]


@dataclass
class Job:
    """A script for the guest, run once for each column."""

    name: str
    script: str
    mode: str = "cost"		# "parallel" or "slow", see harness/boot
    mem: str = "1G"
    cpus: int = 1
    boots: int = 1
    limit: int = 300
    nodes: int = 1
    append: str = ""		# kernel parameters
    columns: tuple[str, ...] = COLUMNS
    config: str = "bench"	# the kernel's configuration


@dataclass
class Spec:
    """A row of the table."""

    name: str
    unit: str
    mode: str
    value: Callable[[Callable[[str], float]], float]
    better: str = "lower"


@dataclass
class Figure:
    """A row that was measured: a value for each run, by column. A column
    without a value is absent."""

    name: str
    unit: str
    better: str
    mode: str
    runs: dict[str, list[float]]

    @property
    def values(self) -> dict[str, float | None]:
        return {c: self.value(c) for c in COLUMNS}

    def value(self, column: str) -> float | None:
        return median(self.runs[column]) if column in self.runs else None

    def spread(self, column: str) -> float | None:
        """Half the range of several runs, as a share of their median."""
        runs, middle = self.runs.get(column, []), self.value(column)
        return (max(runs) - min(runs)) / 2 / middle if len(runs) > 1 and middle else None

    def ratio(self, column: str) -> float | None:
        mine, base = self.value(column), self.value("base")
        return mine / base if mine is not None and base else None

    def as_json(self) -> dict[str, object]:
        row: dict[str, object] = {"name": self.name, "unit": self.unit, "better": self.better, "mode": self.mode}
        for column in self.runs:
            row[column] = {"median": rounded(self.values[column] or 0)}
            if self.spread(column) is not None:
                row[column]["spread"] = rounded(self.spread(column) or 0)
            row[column]["runs"] = self.runs[column]
        return row


@dataclass
class Front:
    """A row of README's table: a result that users notice, and its cost, as
    the change of another row from base to enabled."""

    label: str
    row: str
    cost_label: str
    cost: str


@dataclass
class Record:
    """What bench/results/<topic>.json holds."""

    topic: str
    setup: dict[str, list[str]]
    figures: list[Figure]
    sweep: dict[str, object] | None = None
    failed: list[str] = field(default_factory=list)

    @staticmethod
    def load(path: Path) -> Record:
        data = json.loads(path.read_text())
        figures = [Figure(row["name"], row["unit"], row["better"], row["mode"],
                          {c: row[c]["runs"] for c in COLUMNS if c in row}) for row in data["rows"]]
        return Record(data["topic"], data["setup"], figures, data.get("sweep"), data.get("failed", []))

    def as_json(self) -> dict[str, object]:
        data: dict[str, object] = {"topic": self.topic, "setup": self.setup, "rows": [f.as_json() for f in self.figures]}
        return data | ({"sweep": self.sweep} if self.sweep else {}) | ({"failed": self.failed} if self.failed else {})

    def text(self) -> str:
        """A line for each row, so that a diff shows the rows that changed."""
        def items(value: object) -> str:
            if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
                return "[\n" + ",\n".join("  " + json.dumps(v) for v in value) + "\n ]"
            return json.dumps(value)
        return "{\n" + ",\n".join(f' "{k}": {items(v)}' for k, v in self.as_json().items()) + "\n}\n"

    def by_key(self) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        above: list[tuple[int, str]] = []
        for figure in self.figures:
            depth = len(figure.name) - len(figure.name.lstrip())
            above = [a for a in above if a[0] < depth] + [(depth, figure.name.strip())]
            found.setdefault(" > ".join(name for _, name in above), figure)
        return found


@dataclass
class Plot:
    title: str
    xlabel: str
    ylabel: str
    series: dict[str, list[tuple[float, float]]]	# by column
    log: bool = True
    labels: tuple[str, ...] = ()	# of x = 1, 2, ...: bars in place of lines


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def topics() -> list[str]:
    lines = (ROOT / "patches/series").read_text().splitlines()
    return [t for t in (line.split("#")[0].strip() for line in lines) if t and not t.startswith("prerequisite ")]


def load(topic: str) -> ModuleType | None:
    """The topic's own module; None where the topic has no benchmark yet."""
    path = ROOT / "bench" / topic / "topic.py"
    if not path.exists():
        say(f"        {topic}: no bench/{topic}/topic.py, nothing to measure")
        return None
    spec = importlib.util.spec_from_file_location("topic_" + topic.replace("-", "_"), path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def kernels(columns: Iterable[str]) -> list[str]:
    return sorted({"stock" if c == "base" else "patched" for c in columns})


class Bench:
    """One topic's boots, with all they printed under build/bench/<topic>/raw."""

    def __init__(self, topic: str, module: ModuleType, columns: tuple[str, ...], raw: str = "raw") -> None:
        self.topic, self.module, self.columns = topic, module, columns
        self.source = ROOT / "bench" / topic
        self.build = BUILD / "bench" / topic
        self.raw = self.build / raw
        self.results: dict[str, Values] = {c: {} for c in columns}
        self.setup: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.again = False
        self.renewed: set[tuple[str, str]] = set()
        self.payload: dict[tuple[str, str], list[Path]] = {}

    def prepare(self, jobs: list[Job], again: bool = False) -> None:
        """Kernels of the configurations that JOBS need, modules for each kernel,
        programs for all. AGAIN: what other jobs have measured is kept."""
        values = self.raw / "values.json"
        kept = json.loads(values.read_text()) if again and values.exists() else {}
        if "columns" in kept:
            self.results = {c: kept["columns"].get(c, {}) for c in self.columns}
            self.setup = kept["setup"]
            self.again = True
        else:
            shutil.rmtree(self.raw, ignore_errors=True)
        self.raw.mkdir(parents=True, exist_ok=True)
        common = [self.source / f for f in getattr(self.module, "FILES", [])]
        common += [Path(f) for f in getattr(self.module, "SYSTEM_FILES", [])]
        common += [f for f in [self.source / "off.sh"] if f.exists()]
        for name in getattr(self.module, "PROGRAMS", []):
            program = self.build / Path(name).stem
            self.make(["gcc", "-O2", "-Wall", "-pthread", "-o", str(program), str(self.source / name),
                       *getattr(self.module, "LINK", {}).get(name, ["-static"])], f"program {name}")
            common.append(program)
        common += self.module.build(self, jobs) if hasattr(self.module, "build") else []
        for kernel in kernels(self.columns):
            for config in sorted({j.config for j in jobs}):
                self.build_kernel(kernel, config)
                self.payload[kernel, config] = common + [self.module_for(f"{kernel}-{config}", name)
                                                         for name in getattr(self.module, "MODULES", [])]
        for key, value in setup().items():
            self.seen(key, value)

    def build_kernel(self, kernel: str, config: str) -> None:
        env = os.environ | {"STOCK": "1" if kernel == "stock" else "", "CONFIG": config}
        for verb in ("kernel", "guest") if config != "bench" else ():	# harness/bench has built that one
            if subprocess.run([ROOT / "harness" / verb], env=env, check=False).returncode:
                raise SystemExit(f"offpath: {self.topic}: harness/{verb} failed for CONFIG={config}, as it says above")

    def seen(self, key: str, value: str) -> None:
        """Results of several runs may have been taken with more than one."""
        values = self.setup.setdefault(key, [])
        if value not in values:
            values.append(value)

    def module_for(self, kernel: str, name: str) -> Path:
        # A copy: kbuild leaves its objects beside the source.
        work = self.build / f"{name}-{kernel}"
        shutil.copytree(self.source / name, work, dirs_exist_ok=True)
        out = (BUILD / "kernel" / kernel).resolve()
        self.make(["make", "-C", str(out), f"M={work}", "modules"], f"module {name} for {kernel}")
        return work / f"{name}.ko"

    def make(self, command: list[str], what: str, **environment: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)
        if done.returncode:
            say(done.stdout[-2000:] + done.stderr[-2000:])
            raise SystemExit(f"offpath: {self.topic}: could not build {what}")

    def boot(self, job: Job, column: str, number: int) -> None:
        kernel = "stock" if column == "base" else "patched"
        out = self.raw / f"{job.name}-{column}{f'-{number}' if job.boots > 1 else ''}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        script = out / "script.sh"
        lines = ["#!/bin/bash", "# SPDX-License-Identifier: GPL-2.0", "set -u"]
        lines += [". /payload/off.sh"] if column == "disabled" else []
        script.write_text("\n".join(lines + [job.script]) + "\n")
        env = os.environ | {"BUILT": "1", "STOCK": "1" if kernel == "stock" else "", "MODE": job.mode,
                            "CPUS": str(job.cpus), "NODES": str(job.nodes), "MEM": job.mem, "APPEND": job.append,
                            "CONFIG": job.config, "LIMIT": str(job.limit), "OUT": str(out)}
        command = [str(ROOT / "harness/boot")]
        for file in self.payload[kernel, job.config]:
            command += ["-f", str(file)]
        start = time.monotonic()
        done = subprocess.run(command + [str(script)], env=env, capture_output=True, text=True,
                              errors="replace", check=False)
        self.seen_qemu(out / "qemu.args", job.mode)
        printed = (out / "result.log").read_text(errors="replace") if (out / "result.log").exists() else ""
        for line in printed.splitlines():
            word = line.split()
            if len(word) == 3 and word[0] == "=":
                if self.again and (column, word[1]) not in self.renewed:
                    self.results[column].pop(word[1], None)
                    self.renewed.add((column, word[1]))
                self.results[column].setdefault(word[1], []).append(float(word[2]))
        where = f"{self.topic} {job.name} {column}" + (f" {number + 1}/{job.boots}" if job.boots > 1 else "")
        failed = ""
        if done.returncode:
            reasons = [ln for ln in printed.splitlines() if ln.startswith("failed:")]
            reasons += [ln for ln in done.stderr.splitlines() if ln.startswith("offpath:")]
            failed = "; ".join(reasons[:2]) or f"harness/boot exited with {done.returncode}"
            self.notes.append(f"{where}: {failed}")
        say(f"{time.monotonic() - start:5.0f} s  {where} ({job.mode})" + (f" FAILED: {failed}" if failed else ""))

    def seen_qemu(self, path: Path, mode: str) -> None:
        arguments = path.read_text().splitlines() if path.exists() else []
        for key, option in (("cpu", "-cpu"), ("accel", "-accel")):
            if option in arguments:
                value = arguments[arguments.index(option) + 1]
                self.seen(key, value if key == "cpu" else f"{mode}: {value}")
        if arguments:
            self.seen("qemu", first_line(arguments[0], "--version").removeprefix("QEMU emulator version "))

    def run(self, jobs: list[Job]) -> None:
        """Instructions do not change with the load of this machine, times do."""
        cost = [(j, c) for j in jobs if j.mode == "cost" for c in self.columns if c in j.columns]
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 4)) as pool:
            for done in [pool.submit(self.boot, j, c, 0) for j, c in cost]:
                done.result()
        for job in (j for j in jobs if j.mode != "cost"):
            for number in range(job.boots):
                for column in self.columns:
                    if column in job.columns:
                        self.boot(job, column, number)
        self.save_values()

    def run_native(self) -> None:
        """What an emulator would tell nothing about."""
        start = time.monotonic()
        try:
            figures = self.module.native(self)
        except (OSError, RuntimeError) as error:
            self.notes.append(f"{self.topic} native: {error}")
            figures = {}
        self.results["enabled"].update({name: [value] for name, value in figures.items()})
        self.save_values()
        say(f"{time.monotonic() - start:5.0f} s  {self.topic} native" + ("" if figures else " FAILED: " + self.notes[-1]))

    def save_values(self) -> None:
        (self.raw / "values.json").write_text(json.dumps({"setup": self.setup, "columns": self.results}) + "\n")

    def figures(self, specs: list[Spec]) -> list[Figure]:
        rows = [Figure(s.name, s.unit, s.better, s.mode, {c: runs for c in self.columns
                                                          if (runs := each_run(s, self.results[c]))}) for s in specs]
        return [row for row in rows if row.runs]

    def record(self, specs: list[Spec]) -> Record:
        return Record(self.topic, dict(sorted(self.setup.items())), self.figures(specs), failed=self.notes)


def each_run(spec: Spec, values: Values) -> list[float]:
    result = []
    for i in range(max((len(v) for v in values.values()), default=0)):
        try:
            result.append(rounded(spec.value(lambda k, i=i: values[k][i])))
        except (KeyError, IndexError, ZeroDivisionError):
            pass
    return result


def rounded(value: float) -> float:
    """No more digits than a reader can use; counts stay what they are."""
    if value == int(value):
        return int(value)
    return round(value, 3) if abs(value) >= 1000 else float(f"{value:.6g}")


@cache
def first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.splitlines()[0] if done.stdout else "unknown"


def setup() -> dict[str, str]:
    """What the results are taken with; no more of the machine than matters."""
    changed = first_line("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results",
                         ":!README.md", ":!patches/*/cover")
    base = re.search(r"^VERSION=(\S+)", (ROOT / "BASE").read_text(), re.M)
    config = BUILD / "kernel/patched-bench/.config"
    return {"series": first_line("git", "rev-parse", "--short", "HEAD") + ("" if changed == "unknown" else "-dirty"),
            "base": base[1] if base and not os.environ.get("KSRC") else "KSRC",
            "compiler": first_line("gcc", "--version"), "host_cpus": str(os.cpu_count()),
            "jump_label": "yes" if config.exists() and "CONFIG_JUMP_LABEL=y" in config.read_text() else "no"}


def in_words(setup: dict[str, list[str]]) -> str:
    """Emulator, CPU model and host, as one sentence."""
    def some(key: str) -> str:
        return " or ".join(setup.get(key, ["unknown"]))
    qemu = " or ".join(value.split()[0] for value in setup.get("qemu", ["unknown"]))
    cpus = " or ".join(cpu + ("" if "-erms" in cpu else " (with ERMS)") for cpu in setup.get("cpu", ["unknown"]))
    labels = {"yes": "with jump labels", "no": "without jump labels"}.get(some("jump_label"), "with and without jump labels")
    return f"QEMU {qemu} with -cpu {cpus}, kernels {labels}, {some('host_cpus')} host CPUs"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def with_spread(figure: Figure, column: str) -> str:
    spread = figure.spread(column)
    return number(figure.value(column)) + (f" ±{100 * spread:.0f}%" if spread is not None else "")


def rows(topic: str, figures: list[Figure]) -> list[list[str]]:
    """The cells of the table, as text."""
    result = []
    for f in figures:
        cells = [topic, f.name, *(with_spread(f, column) for column in COLUMNS)]
        for column in COLUMNS[1:]:
            ratio = f.ratio(column)
            cells.append("-" if ratio is None else f"{ratio:.3g}" if ratio < 0.1 else f"{ratio:.3f}")
        result.append(cells + [f.unit, f.mode])
    return result


def front_rows(record: Record, wanted: list[Front]) -> list[list[str]]:
    """Rows of README's table; those that RECORD lacks are left out."""
    found = record.by_key()
    result = []
    for row in wanted:
        if row.row in found and row.cost in found:
            figure, change = found[row.row], found[row.cost].ratio("enabled")
            cost = "-" if change is None else f"{100 * (change - 1):+.1f}%" if change < 2 else f"x{change:.0f}"
            spread = max(figure.spread(c) or 0 for c in COLUMNS)
            result.append([row.label, *(short(figure.value(c)) for c in COLUMNS), f"{row.cost_label} {cost}",
                           figure.mode + (f" ±{100 * spread:.0f}%" if spread else "")])
    return result


def short(value: float | None) -> str:
    return f"{value / 1e6:.1f} M" if value is not None and value >= 1e6 else number(value)


FRONT_HEAD = ["result", *COLUMNS, "cost", "mode"]
HEAD = ["topic", "result", *COLUMNS, "disabled/base", "enabled/base", "unit", "mode"]


def table(lines: list[list[str]], head: list[str] | None = None) -> str:
    lines = [head or HEAD] + lines
    width = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    right = {i for i in range(len(width)) if all(
        line[i][:1].isdigit() or line[i] == "-" for line in lines[1:])}
    text = []
    for line in lines:
        text.append("  ".join(cell.rjust(width[i]) if i in right else cell.ljust(width[i])
                              for i, cell in enumerate(line)).rstrip())
    text.insert(1, "-" * min(max(map(len, text)), 200))
    return "\n".join(text)


def sweep_table(sweep: dict) -> str:
    lines = [[number(value) for value in line] for line in sweep["lines"]]
    return f"{sweep['about']}\n\n{table(lines, sweep['head'])}"


def markdown(lines: list[list[str]], head: list[str] | None = None) -> str:
    """Columns are aligned, for readers of the source, if the table fits a screen."""
    head = head or HEAD
    right = [h in COLUMNS or "/" in h for h in head]
    lines = [head, ["---:" if r else "---" for r in right], *lines]
    width = [max(len(line[i]) for line in lines) for i in range(len(head))]
    if sum(width) + 3 * len(width) + 1 > 120:
        width = [0] * len(head)
    return "\n".join("| " + " | ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, width, right))
                     + " |" for line in lines)
