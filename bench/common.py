# SPDX-License-Identifier: GPL-2.0
"""What all benchmarks share: guests booted for three columns, and a table.

A topic describes itself in bench/<topic>/topic.py:

    WAIT             what a user waits for or pays, in a few words
    FILES            files beside it that go into the guest's /payload
    MODULES          folders beside it: kernel modules, built for each kernel
    PROGRAMS         C files beside it: programs
    LINK             optional: of a program, what gcc is told to link it with
                     and how, in place of -static
    SYSTEM_FILES     optional: files of this machine to take along
    jobs(demo)       list of Job: the guest scripts to run
    specs(demo)      list of Spec: the figures to take from what they print
    plot(figures)    optional: a Plot for the report
    native(bench)    optional: figures that are taken on this machine itself,
                     by name; job "native", in the column of the patched kernel
    sweep_jobs(), sweep_table(results)    optional: for "make bench SWEEP=1"

A guest script prints "= name value" for each figure and whatever else a
reader of the raw output should see. bench/<topic>/off.sh is sourced first in
the "off" column: it sets the knobs to what upstream does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
COLUMNS = ("stock", "patched", "off")
SPREAD_BOOTS = 5		# a ratio of times needs at least so many

# What a job printed: figure -> one value for each boot.
Values = dict[str, list[float]]


@dataclass
class Job:
    """A script for the guest, run once for each column."""

    name: str
    script: str
    mode: str = "cost"		# or "parallel"
    mem: str = "1G"
    cpus: int = 1
    boots: int = 1
    limit: int = 300
    nodes: int = 1
    append: str = ""		# kernel parameters
    columns: tuple[str, ...] = COLUMNS
    config: str = "guest"	# the kernel's configuration


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
    """A row that was measured; None where it could not be."""

    name: str
    unit: str
    better: str
    mode: str
    values: dict[str, float | None]
    spread: dict[str, float] = field(default_factory=dict)

    def ratio(self, column: str) -> float | None:
        mine, stock = self.values.get(column), self.values.get("stock")
        return mine / stock if mine is not None and stock else None

    def as_json(self) -> dict[str, object]:
        return {"name": self.name, "unit": self.unit, "better": self.better, "mode": self.mode,
                **{c: self.values.get(c) for c in COLUMNS}}


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
    return [t for t in (line.split("#")[0].strip() for line in lines) if t]


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
    return sorted({"stock" if c == "stock" else "patched" for c in columns})


class Bench:
    """One topic's boots, with all they printed under build/bench/<topic>/raw."""

    def __init__(self, topic: str, module: ModuleType, columns: tuple[str, ...], raw: str = "raw") -> None:
        self.topic, self.module, self.columns = topic, module, columns
        self.source = ROOT / "bench" / topic
        self.build = BUILD / "bench" / topic
        self.raw = self.build / raw
        self.results: dict[str, Values] = {c: {} for c in columns}
        self.notes: list[str] = []
        self.again = False
        self.renewed: set[tuple[str, str]] = set()
        self.payload: dict[tuple[str, str], list[Path]] = {}

    def prepare(self, jobs: list[Job], again: bool = False) -> None:
        """Kernels of the configurations that JOBS need, modules for each kernel,
        programs for all. AGAIN: what other jobs have measured is kept."""
        values = self.raw / "values.json"
        if again and values.exists():
            kept = json.loads(values.read_text())
            self.results = {c: kept.get(c, {}) for c in self.columns}
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
        for kernel in kernels(self.columns):
            for config in sorted({j.config for j in jobs}):
                self.build_kernel(kernel, config)
                self.payload[kernel, config] = common + [self.module_for(f"{kernel}-{config}", name)
                                                         for name in getattr(self.module, "MODULES", [])]

    def build_kernel(self, kernel: str, config: str) -> None:
        env = os.environ | {"STOCK": "1" if kernel == "stock" else "", "CONFIG": config}
        for verb in ("kernel", "guest") if config != "guest" else ():	# harness/bench has built that one
            subprocess.run([ROOT / "harness" / verb], env=env, check=True)

    def module_for(self, kernel: str, name: str) -> Path:
        # A copy: kbuild leaves its objects beside the source.
        work = self.build / f"{name}-{kernel}"
        shutil.copytree(self.source / name, work, dirs_exist_ok=True)
        out = (BUILD / "kernel" / kernel).resolve()
        self.make(["make", "-C", str(out), f"M={work}", "modules"], f"module {name} for {kernel}")
        return work / f"{name}.ko"

    def make(self, command: list[str], what: str) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            say(done.stdout[-2000:] + done.stderr[-2000:])
            raise SystemExit(f"offpath: {self.topic}: could not build {what}")

    def boot(self, job: Job, column: str, number: int) -> None:
        kernel = "stock" if column == "stock" else "patched"
        out = self.raw / f"{job.name}-{column}{f'-{number}' if job.boots > 1 else ''}"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        script = out / "script.sh"
        lines = ["#!/bin/bash", "# SPDX-License-Identifier: GPL-2.0", "set -u"]
        lines += [". /payload/off.sh"] if column == "off" else []
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

    def run(self, jobs: list[Job]) -> None:
        """Instructions do not change with the load of this machine, times do."""
        cost = [(j, c) for j in jobs if j.mode == "cost" for c in self.columns if c in j.columns]
        with ThreadPoolExecutor(max_workers=min(os.cpu_count() or 1, 4)) as pool:
            for done in [pool.submit(self.boot, j, c, 0) for j, c in cost]:
                done.result()
        for job in (j for j in jobs if j.mode == "parallel"):
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
        self.results["patched"].update({name: [value] for name, value in figures.items()})
        self.save_values()
        say(f"{time.monotonic() - start:5.0f} s  {self.topic} native" + ("" if figures else " FAILED: " + self.notes[-1]))

    def save_values(self) -> None:
        (self.raw / "values.json").write_text(json.dumps(self.results, indent=1) + "\n")
        (self.raw / "setup.txt").write_text(setup())

    def figures(self, specs: list[Spec]) -> list[Figure]:
        rows = []
        for spec in specs:
            row = Figure(spec.name, spec.unit, spec.better, spec.mode, {c: None for c in COLUMNS})
            for column in self.columns:
                values = self.results[column]
                try:
                    row.values[column] = spec.value(lambda k, v=values: median(v[k]))
                    count = max((len(v) for v in values.values()), default=0)
                    if spec.mode == "parallel" and count > 1:
                        each = [spec.value(lambda k, v=values, i=i: v[k][i]) for i in range(count)
                                if has(spec, values, i)]
                        low, high, mid = min(each), max(each), row.values[column]
                        if mid:
                            row.spread[column] = (high - low) / 2 / mid
                except (KeyError, ZeroDivisionError):
                    pass
            rows.append(row)
        return rows

    def save(self, figures: list[Figure], name: str | None = None) -> None:
        (self.build.parent / f"{name or self.topic}.json").write_text(json.dumps(
            {"topic": self.topic, "metrics": [f.as_json() for f in figures]}, indent=1) + "\n")


def has(spec: Spec, values: Values, i: int) -> bool:
    try:
        spec.value(lambda k: values[k][i])
        return True
    except (KeyError, IndexError, ZeroDivisionError):
        return False


def setup() -> str:
    """What the figures were taken with; no more of the machine than matters."""
    def out(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        return done.stdout.splitlines()[0] if done.stdout else "unknown"
    return "\n".join([
        f"series: {out('git', 'describe', '--always', '--dirty')}",
        f"qemu: {out(str(ROOT / 'harness/qemu'), '--version')}",
        f"compiler: {out('gcc', '--version')}",
        f"host: {os.cpu_count()} CPUs",
        f"ACCEL={os.environ.get('ACCEL', 'auto')} (cost mode is always emulation)"]) + "\n"


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.4g}"


def rows(topic: str, figures: list[Figure]) -> list[list[str]]:
    """The cells of the table, as text."""
    result = []
    for f in figures:
        cells = [topic, f.name]
        for column in COLUMNS:
            text = number(f.values.get(column))
            if column in f.spread:
                text += f" ±{100 * f.spread[column]:.0f}%"
            cells.append(text)
        for column in ("patched", "off"):
            ratio = f.ratio(column)
            cells.append("-" if ratio is None else f"{ratio:.3g}" if ratio < 0.1 else f"{ratio:.3f}")
        result.append(cells + [f.unit, f.mode])
    return result


HEAD = ["topic", "what", *COLUMNS, "patched/stock", "off/stock", "unit", "mode"]


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


def markdown(lines: list[list[str]], head: list[str] | None = None) -> str:
    head = head or HEAD
    marks = ["---:" if h in COLUMNS or "/" in h else "---" for h in head]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |"
                     for line in [head, marks, *lines])
