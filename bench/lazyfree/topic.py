# SPDX-License-Identifier: GPL-2.0
"""lazyfree: what an allocator pays for giving memory back, and for using it again."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import SPREAD_BOOTS, Bench, Figure, Front, Job, Plot, Spec, say

WAIT = "what an allocator pays for giving memory back, and for using it again"
FILES = ["guest.sh"]
PROGRAMS = ["lazy.c", "blocks.c", "shim.c"]
HERE = Path(__file__).parent
LINK = {"blocks.c": [], "shim.c": ["-shared", "-fPIC"]}

KINDS = {"4k": "2 MiB of 4 KiB pages", "thp": "2 MiB, a huge page", "half": "half of a huge page",
         "64k": "64 KiB", "1g": "1 GiB, of which 2 MiB are touched"}

READERS = [("fair", "mglru", "fair, MGLRU"), ("fair", "classic", "fair, classic LRU"),
           ("first", "mglru", "first, MGLRU")]

Get = Callable[[str], float]


@dataclass
class Allocator:
    """An allocator of Debian 12."""

    name: str
    defaults: str		# version and options of the unmodified one, all as they are by default
    change: str			# what the one that marks has
    link: tuple[str, ...] = ()	# gcc's arguments


ALLOCATORS = [
    Allocator("jemalloc", "5.3.0: narenas:4 a CPU, tcache:true, tcache_max:32768, dirty_decay_ms:10000, muzzy_decay_ms:0, "
              "oversize_threshold:8388608, retain:true, background_thread:false, thp:default",
              "with hooks and dirty_decay_ms:0",
              ("-static", "-Wl,--wrap=calloc", "-ljemalloc", "-lstdc++", "-lm")),
    Allocator("mimalloc", "2.0.9: eager_commit=1, eager_commit_delay=1, allow_decommit=1, decommit_delay=25, "
              "decommit_extend_delay=1, segment_decommit_delay=500, page_reset=0, large_os_pages=0",
              "with hooks, decommit_delay=0 and segment_decommit_delay=0", ("-Wl,-rpath,/payload", "-lmimalloc")),
    Allocator("tcmalloc", "gperftools 2.10, minimal: RELEASE_RATE=1, AGGRESSIVE_DECOMMIT=0, HEAP_LIMIT_MB=0, "
              "MAX_TOTAL_THREAD_CACHE_BYTES=33554432", "with hooks and AGGRESSIVE_DECOMMIT=1",
              ("-static", "-Wl,--wrap=_Z22TCMalloc_SystemReleasePvm", "-Wl,--wrap=_Z21TCMalloc_SystemCommitPvm",
               "-ltcmalloc_minimal", "-lstdc++", "-lm")),
    Allocator("go", "1.19: GOGC=100, GOMEMLIMIT=off, GODEBUG=madvdontneed=1; runtime.GC() after each round",
              "with runtime.patch; debug.FreeOSMemory() after each round"),
]


@dataclass
class Load:
    """A load of allocs.c, with the limits of its cgroup."""

    name: str
    what: str
    arguments: str		# MIB, ROUNDS, IDLE_MS
    limits: tuple[str, ...]
    rate_idle: str = ""		# IDLE_MS where it is wall clock time; not run there without


LOADS = [
    Load("churn", "2 threads allocate 32 MiB together, free all, pause", "32 4 3000", ("max", "40M"), "100"),
    Load("turns", "2 processes of 2 threads in turn: each allocates 32 MiB, frees all", "32 4 3000", ("max", "48M"), "100"),
    Load("half", "half of a heap of 256 MiB freed, allocated again after a pause", "256 4 12000", ("288M",)),
]
UNITS = {"cost": ("instructions a MiB", "cost", "lower"), "rate": ("MiB/s", "parallel", "higher")}


def build(bench: Bench, jobs: list[Job]) -> list[Path]:
    """The allocators, each linked with its load. One that cannot be built has no rows."""
    found: list[Path] = []
    if not any(job.name.startswith("alloc") for job in jobs):
        return found
    for allocator in ALLOCATORS:
        try:
            found += build_go(bench) if allocator.name == "go" else build_c(bench, allocator)
        except (OSError, SystemExit, StopIteration) as error:
            say(f"        {bench.topic}: no rows of {allocator.name}, not that of Debian 12? {error}")
    return found


def build_c(bench: Bench, allocator: Allocator) -> list[Path]:
    program = bench.build / allocator.name
    bench.make(["gcc", "-O2", "-Wall", "-pthread", "-o", str(program), str(HERE / f"{allocator.name}.c"),
                str(HERE / "allocs.c"), *allocator.link], f"program {allocator.name}")
    if allocator.name == "mimalloc":
        return [program, next(Path("/usr/lib").glob("*/libmimalloc.so.2"))]
    return [program]


def build_go(bench: Bench) -> list[Path]:
    """The same program twice; the second with a patched copy of one file of Go's runtime."""
    root = subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=False).stdout.strip()
    source, copy = f"{root}/src/runtime/mem_linux.go", bench.build / "mem_linux.go"
    shutil.copyfile(source, copy)
    bench.make(["patch", "-s", str(copy), str(HERE / "runtime.patch")], "Go's runtime")
    overlay = bench.build / "overlay.json"
    overlay.write_text(json.dumps({"Replace": {source: str(copy)}}))
    programs = [bench.build / "go-default", bench.build / "go-marked"]
    for program, options in zip(programs, ([], ["-overlay", str(overlay)])):
        bench.make(["go", "build", *options, "-o", str(program), str(HERE / "golang.go")], "Go's program", GO111MODULE="off",
                   CGO_ENABLED="0", GOFLAGS="", GOCACHE=str(bench.build / "gocache"))
    return programs


def body(*lines: str) -> str:
    return "\n".join([". /payload/guest.sh", "knobs", *lines])


def jobs(demo: bool) -> list[Job]:
    todo = [
        Job("cost", body(*(f"lazy give {kind}" for kind in KINDS), "lazy undo", "lazy zero", "lazy kept",
                         "warm fork 200", "lazy fork 2000", "warm maps 100", "lazy maps 2000",
                         "warm dontneed 100", "lazy dontneed 2000", "returned 128"), mem="1536M"),
    ]
    if demo:
        return todo
    return todo + [
        Job("reader", body(*(f"beside_a_reader {policy} {lru}" for policy, lru, _ in READERS)), mode="parallel", mem="1G", cpus=2,
            boots=SPREAD_BOOTS),
        Job("shim", body("shim"), mode="parallel", mem="2G", cpus=2, boots=SPREAD_BOOTS),
        *(Job(f"alloc-{load.name}", body(f"allocators cost {load.name} {load.arguments} {' '.join(load.limits)}"), mem="1536M",
              append="offpath.swap=1G", limit=1200) for load in LOADS),
        Job("alloc-rate", body(*(f"allocators rate {load.name} {load.arguments.rsplit(maxsplit=1)[0]} {load.rate_idle} "
                                 f"{load.limits[-1]}" for load in LOADS if load.rate_idle)),
            mode="parallel", mem="1536M", cpus=2, append="offpath.swap=1G", boots=SPREAD_BOOTS, limit=600),
    ]


def row(unit: str, load: Load, limit: str, allocator: Allocator) -> str:
    """The key of the row of an unmodified allocator."""
    where = "no limit" if limit == "max" else f"memory.max {limit}"
    return f"{load.name}, {where}, {UNITS[unit][0]}: {allocator.name} {allocator.defaults}"


def scenarios() -> list[tuple[str, Load, str]]:
    return [*(("cost", load, limit) for load in LOADS for limit in load.limits),
            *(("rate", load, load.limits[-1]) for load in LOADS if load.rate_idle)]


MARKED = "of the memory that it freed, marked; 0: no result of marking"
MEMORY = "memory and swap that it holds at the end, of the unmodified one's"
HUGE = "huge pages in its heap"


def allocator_specs() -> list[Spec]:
    """A row of each unmodified allocator, below it those of the one that marks."""
    result = []
    for unit, load, limit in scenarios():
        what, mode, better = UNITS[unit]
        for allocator in ALLOCATORS:
            key = f"{unit}_{load.name}_{allocator.name}_%s_{limit}"
            both = [(row(unit, load, limit, allocator), key % "default"), (f"  {allocator.change}", key % "marked")]
            for name, k in both:
                result.append(Spec(name, what, mode, lambda get, k=k: get(k), better=better))
                if load.name == "half":
                    blanks = " " * (len(name) - len(name.lstrip()) + 2)
                    result.append(Spec(blanks + HUGE, "%", mode, lambda get, k=k: get(f"huge_{k}"), better="higher"))
            result += [
                Spec(f"    {MARKED}", "%", mode, lambda get, k=key: get("marked_" + k % "marked"), better="higher"),
                Spec(f"    {MEMORY}", "%", mode,
                     lambda get, k=key: 100 * get("mib_" + k % "marked") / get("mib_" + k % "default")),
            ]
    return result


def specs(demo: bool) -> list[Spec]:
    def value(key: str) -> Callable[[Get], float]:
        return lambda get: get(key)

    result = [Spec(f"give back {what}", "instructions", "cost", value(f"give_{kind}")) for kind, what in KINDS.items()]
    result += [
        Spec("take 2 MiB back as it is", "instructions", "cost", value("undo_call")),
        Spec("  and touch it, a 4 KiB page", "instructions", "cost", value("undo_page")),
        Spec("take half of a huge page back, zeroed, a 4 KiB page", "instructions", "cost", value("zero_page")),
        Spec("  memset() of as much", "instructions", "cost", value("memset_page")),
        Spec("  huge pages that are left", "%", "cost", value("thp_kept"), better="higher"),
        Spec("given back, returned by one reclaim", "%", "cost", value("returned"), better="higher"),
        Spec("fork, exit and wait of a small process", "instructions", "cost", value("fork")),
        Spec("mmap, touch and munmap of 256 KiB", "instructions", "cost", value("maps")),
        Spec("touch and MADV_DONTNEED of 256 KiB", "instructions", "cost", value("dontneed")),
    ]
    if demo:
        return result
    for policy, lru, what in READERS:
        result += [
            Spec(f"MADV_FREE loop beside a reader, {what}", "MiB/s", "parallel", value(f"freed_mb_{policy}_{lru}"),
                 better="higher"),
            Spec("  the reader", "MiB/s", "parallel", value(f"streamed_mb_{policy}_{lru}"), better="higher"),
        ]
    return result + [
        Spec("blocks of 256 KiB to 4 MiB of an unmodified program, glibc that unmaps", "MiB/s", "parallel", value("churn_glibc"),
             better="higher"),
        Spec("  with the preloaded shim", "MiB/s", "parallel", value("churn_shim"), better="higher"),
        *allocator_specs(),
    ]


SHIM = "blocks of 256 KiB to 4 MiB of an unmodified program, glibc that unmaps > with the preloaded shim"


def front(demo: bool) -> list[Front]:
    return [Front("free 2 MiB (MADV_SPLITTABLE)", f"give back {KINDS['4k']}", "fork+exit", "fork, exit and wait of a small process"),
            Front("malloc() with a shim, MiB/s", SHIM, "map+unmap", "mmap, touch and munmap of 256 KiB")]


def allocator_table() -> list[tuple[str, str]]:
    """Under a limit only; the long table has all."""
    lines = []
    for unit, load, limit in scenarios():
        if limit == "max" or (unit == "cost" and load.rate_idle):
            continue
        lines.append((f"{load.name}, {UNITS[unit][0]}, memory.max {limit}", ""))
        for allocator in ALLOCATORS:
            key = row(unit, load, limit, allocator)
            marked = f"{key} > {allocator.change}"
            lines += [(f"  {allocator.name}", key), ("    marking", marked), ("    freed memory marked, %", f"{marked} > {MARKED}"),
                      ("    memory, % of unmodified", f"{marked} > {MEMORY}")]
            if load.name == "half":
                lines += [("    huge pages, %", f"{key} > {HUGE}"), ("    huge pages, marking, %", f"{marked} > {HUGE}")]
    return lines


HALF = "take half of a huge page back, zeroed, a 4 KiB page"
TABLES = {
    "cost": [
        ("free 2 MiB of 4 KiB pages", f"give back {KINDS['4k']}"),
        ("free 2 MiB, a huge page", f"give back {KINDS['thp']}"),
        ("free half of a huge page", f"give back {KINDS['half']}"),
        ("free 64 KiB", f"give back {KINDS['64k']}"),
        ("free 1 GiB, 2 MiB of it touched", f"give back {KINDS['1g']}"),
        ("reuse 2 MiB as it is (MADV_FREE_UNDO)", "take 2 MiB back as it is"),
        ("  and touch it, a page", "take 2 MiB back as it is > and touch it, a 4 KiB page"),
        ("reuse half of a huge page, zeroed, a page", HALF),
        ("  huge pages left after that, %", f"{HALF} > huge pages that are left"),
        ("freed pages returned by one reclaim, %", "given back, returned by one reclaim"),
        ("fork, exit and wait of a small process", "fork, exit and wait of a small process"),
    ],
    "throughput": [
        *((name, f"MADV_FREE loop beside a reader, {what}{more}") for _, _, what in READERS
          for name, more in ((f"MADV_FREE loop, {what}", ""), ("  the reader beside it", " > the reader"))),
        ("malloc() of 256 KiB to 4 MiB, glibc", SHIM.split(" > ", maxsplit=1)[0]),
        ("  with a preloaded shim, MADV_FREE_UNDO", SHIM),
    ],
    "allocators": allocator_table(),
}


def plot(figures: list[Figure]) -> Plot:
    sizes = {"64 KiB": 1 / 16, "2 MiB of 4 KiB pages": 2.0, "1 GiB, of which 2 MiB are touched": 1024.0}
    series: dict[str, list[tuple[float, float]]] = {}
    for f in figures:
        for name, size in sizes.items():
            if f.name == f"give back {name}":
                for column, number in f.values.items():
                    if number:
                        series.setdefault(column, []).append((size, number))
    return Plot("Giving memory back", "MiB", "instructions", series)
