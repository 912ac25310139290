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

LRUS = {"mglru": "MGLRU", "classic": "classic LRU"}
RANGES = 4096			# max_ranges_per_mm by default

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


LOADS = [
    Load("churn", "2 threads allocate 32 MiB together, free all, pause", "32 10 2000", ("max", "40M")),
    Load("turns", "2 processes of 2 threads in turn: each allocates 32 MiB, frees all", "32 4 3000", ("max", "48M")),
    Load("half", "half of a heap of 256 MiB freed, allocated again after a pause", "256 3 12000", ("max",)),
    Load("needed", "as half, and in the pause another process needs 128 MiB", "256 3 1500", ("288M",)),
]
HEAPS = ("half", "needed")	# a heap of which half is freed


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
                         "returned returned mark"), mem="1536M"),
        # On its own: memory that others have used before changes these by more than the series does.
        Job("others", body(*(f"{how} {verb} {n}" for verb, many in (("fork", 2000), ("maps", 2000), ("dontneed", 2000), ("faults", 200))
                             for how, n in (("warm", many // 10), ("lazy", many))))),
    ]
    if demo:
        return todo
    return todo + [
        Job("calls", body("lazy calls", "lazy undo_free", "lazy cycle", *(f"lazy {verb} {kind}" for verb in ("free", "free_undo")
                                                                          for kind in ("4k", "half")),
                          f"lazy limit {RANGES}", "lazy limit 0",
                          "returned dropped mark_free", "returned dropped_undo mark_free_undo")),
        Job("neighbours", body("neighbours"), nodes=2),
        Job("swap", body("swapped mglru", "swapped classic"), mem="2G", append="offpath.swap=1G"),
        # Without marked memory there is nothing to measure.
        Job("kswapd", body("first_wakeup mglru", "first_wakeup classic"), columns=("enabled",)),
        Job("node", body("wrong_node mglru", "wrong_node classic"), mem="2G", nodes=2, columns=("enabled",)),
        Job("threads", body("threads"), mode="slow", cpus=16, boots=3, limit=900),
        Job("reader", body(*(f"beside_a_reader {policy} {lru}" for policy, lru, _ in READERS)), mode="parallel", mem="1G", cpus=2,
            boots=SPREAD_BOOTS),
        Job("shim", body("shim"), mode="parallel", mem="2G", cpus=2, boots=SPREAD_BOOTS),
        *(Job(f"alloc-{load.name}", body(f"allocators {load.name} {load.arguments} {' '.join(load.limits)}"), mem="1536M",
              append="offpath.swap=1G", limit=1200) for load in LOADS),
    ]


def row(load: Load, limit: str, allocator: Allocator) -> str:
    """The key of the row of an unmodified allocator."""
    return f"{load.name}, {limited(limit)}: {allocator.name} {allocator.defaults}"


def limited(limit: str) -> str:
    return "no limit" if limit == "max" else f"memory.max {limit}"


def scenarios() -> list[tuple[Load, str]]:
    return [(load, limit) for load in LOADS for limit in load.limits]


ACTED = "of the calls, with the result 0; 0: no result of the call"
MARKED = "of the memory that it freed, marked; 0: no result of marking"
MEMORY = "memory and swap that it holds at the end, of the unmodified one's"
HUGE = "huge pages in its heap"


def allocator_specs() -> list[Spec]:
    """A row of each unmodified allocator, below it those of the one that marks."""
    result = []
    for load, limit in scenarios():
        for allocator in ALLOCATORS:
            key = f"{load.name}_{allocator.name}_%s_{limit}"
            both = [(row(load, limit, allocator), key % "default"), (f"  {allocator.change}", key % "marked")]
            for name, k in both:
                result.append(Spec(name, "instructions a MiB", "cost", lambda get, k=k: get(k)))
                if load.name in HEAPS:
                    blanks = " " * (len(name) - len(name.lstrip()) + 2)
                    result.append(Spec(blanks + HUGE, "%", "cost", lambda get, k=k: get(f"huge_{k}"), better="higher"))
            result += [
                Spec(f"    {MARKED}", "%", "cost", lambda get, k=key: get("marked_" + k % "marked"), better="higher"),
                Spec(f"    {MEMORY}", "%", "cost",
                     lambda get, k=key: 100 * get("mib_" + k % "marked") / get("mib_" + k % "default")),
            ]
    return result


def specs(demo: bool) -> list[Spec]:
    def value(key: str) -> Callable[[Get], float]:
        return lambda get: get(key)

    def acted(key: str, mode: str = "cost") -> Spec:
        return Spec(f"  {ACTED}", "%", mode, value(f"acted_{key}"), better="higher")

    result = []
    for kind, what in KINDS.items():
        result += [Spec(f"give back {what}", "instructions", "cost", value(f"give_{kind}")), acted(f"give_{kind}")]
    result += [
        Spec("take 2 MiB back as it is", "instructions", "cost", value("undo_call")),
        acted("undo"),
        Spec("  and touch it, a 4 KiB page", "instructions", "cost", value("undo_page")),
        Spec("take half of a huge page back, zeroed, a 4 KiB page", "instructions", "cost", value("zero_page")),
        Spec("  memset() of as much", "instructions", "cost", value("memset_page")),
        Spec("  huge pages that are left", "%", "cost", value("thp_kept"), better="higher"),
        acted("zero"),
        Spec("given back, returned by one reclaim", "%", "cost", value("returned"), better="higher"),
        Spec("fork, exit and wait of a small process", "instructions", "cost", value("fork")),
        Spec("mmap, touch and munmap of 256 KiB", "instructions", "cost", value("maps")),
        Spec("touch and MADV_DONTNEED of 256 KiB", "instructions", "cost", value("dontneed")),
    ]
    if demo:
        return result
    result += [
        Spec(EMPTY, "instructions", "cost", value("empty")),
        Spec(UNTOUCHED, "instructions", "cost", value("untouched")),
        Spec(UNDO_FREE, "instructions", "cost", value("undo_free")),
        acted("undo_free"),
        Spec(CYCLE, "instructions", "cost", value("cycle_marked")),
        Spec("  with MADV_DONTNEED", "instructions", "cost", value("cycle_dontneed")),
        acted("cycle"),
    ]
    for kind, free in FREE.items():
        result += [Spec(free, "instructions", "cost", value(f"free_{kind}")),
                   Spec(f"  {USED_UNDO}", "instructions", "cost", value(f"free_undo_{kind}"))]
    result += [
        Spec(DROP, "instructions", "cost", value("page_dropped")),
        Spec("  of the amount that reclaim asks for, dropped", "%", "cost", value("dropped"), better="higher"),
        Spec(f"  {USED_UNDO}", "instructions", "cost", value("page_dropped_undo")),
        Spec(FAULT, "instructions", "cost", value("fault")),
    ]
    for lru, what in LRUS.items():
        result += [Spec(SWAPPED.format(what), "pages", "cost", value(f"swapped_{lru}")),
                   Spec("  MADV_FREE memory that is dropped", "MiB", "cost", value(f"dropped_{lru}"), better="higher")]
    result += [
        Spec(NEIGHBOURS, "%", "cost", value("neighbours_thp"), better="higher"),
        Spec("  huge page mappings split", "mappings", "cost", value("neighbours_splits")),
        Spec("  passes of the slowest of the three; below 2: no result", "passes", "cost", value("neighbours_passes"), better="higher"),
        acted("neighbours"),
    ]
    for key, what in LIMITS.items():
        result += [Spec(what, "instructions", "cost", value(f"{key}_0")),
                   Spec(f"  {MORE}", "instructions", "cost", lambda get, k=key: get(f"{k}_{RANGES}") - get(f"{k}_0")),
                   Spec("  of the limit, reached; 0: no result", "ranges", "cost", value("ranges"), better="higher")]
    for lru, what in LRUS.items():
        result += [Spec(WAKEUP.format(what), "% of the high watermark", "cost", value(f"wakeup_free_{lru}")),
                   Spec("  of the marked memory, zapped", "%", "cost", value(f"wakeup_marked_{lru}")),
                   Spec(NODE.format(what), "%", "cost", value(f"node_{lru}")),
                   Spec("  page cache of node 0 that reclaim took; 0: no result", "MiB", "cost", value(f"node_taken_{lru}"),
                        better="higher")]
    for key, what in THREADS.items():
        result += [Spec(what, "times a second", "slow", value(f"{key}_1"), better="higher"),
                   Spec(f"  {LOST}", "%", "slow", value("lost_time_percent"))]
        for n in (4, 16):
            result.append(Spec(f"  {n} threads, together", "x", "slow", lambda get, k=key, n=n: get(f"{k}_{n}") / get(f"{k}_1"),
                               better="higher"))
            if key != "dontneed_threads":
                result.append(Spec(f"    {ACTED}", "%", "slow", value(f"acted_{key}_{n}"), better="higher"))
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


EMPTY = "madvise() of an empty range, for scale"
UNTOUCHED = "MADV_DONTNEED of 64 KiB that is not touched, for scale"
UNDO_FREE = "MADV_FREE_UNDO after MADV_FREE, a present 4 KiB page"
CYCLE = "2 MiB of 4 KiB pages, freed, taken back zeroed, and written"
FREE = {"4k": "MADV_FREE of 2 MiB of 4 KiB pages, by a process that never uses MADV_FREE_UNDO",
        "half": "MADV_FREE of half of a huge page, by a process that never uses MADV_FREE_UNDO"}
USED_UNDO = "by one that has used it"
DROP = "reclaim of MADV_FREE memory, a 4 KiB page, of a process that never uses MADV_FREE_UNDO"
FAULT = "page fault, a 4 KiB page"
SWAPPED = "pages swapped out at memory.max 512M, 400 MiB after MADV_FREE and 400 MiB in use, {}"
NEIGHBOURS = "huge pages left of which half is marked, beside NUMA balancing, khugepaged and KSM"
LIMITS = {"smaps": "read of smaps of a process of 32 MiB", "forked": "fork, exit and wait of a process of 32 MiB",
          "unmapped": "munmap of 32 MiB"}
MORE = f"with {RANGES:,} ranges, more than that"
WAKEUP = "free memory after kswapd has run once, with 480 MiB marked, {}"
NODE = "marked memory of node 1 that a shortage of node 0 zaps, {}"
THREADS = {"near": "MADV_SPLITTABLE and MADV_FREE_UNDO of own 2 MiB, next to each other, 1 thread",
           "far": "MADV_SPLITTABLE and MADV_FREE_UNDO of own 2 MiB, 64 MiB apart, 1 thread",
           "dontneed_threads": "MADV_DONTNEED and touch of own 64 KiB, 1 thread"}
LOST = "time that the host did not give the CPUs; above 2: no result, the host was too slow"
SHIM = "blocks of 256 KiB to 4 MiB of an unmodified program, glibc that unmaps > with the preloaded shim"


def front(demo: bool) -> list[Front]:
    return [Front("free 2 MiB (MADV_SPLITTABLE)", f"give back {KINDS['4k']}", "fork+exit", "fork, exit and wait of a small process"),
            Front("malloc() with a shim, MiB/s", SHIM, "map+unmap", "mmap, touch and munmap of 256 KiB")]


def allocator_table() -> list[tuple[str, str]]:
    """The costs under a limit, and those of a heap; the long table has all."""
    lines = []
    for load, limit in scenarios():
        if limit == "max" and load.name not in HEAPS:
            continue
        lines.append((f"{load.name}, {limited(limit)}", ""))
        for allocator in ALLOCATORS:
            key = row(load, limit, allocator)
            marked = f"{key} > {allocator.change}"
            lines += [(f"  {allocator.name}", key), ("    marking", marked), ("    memory, % of unmodified", f"{marked} > {MEMORY}")]
            if load.name == "half":
                lines.append(("    huge pages left, marking, %", f"{marked} > {HUGE}"))
    return lines


HALF = "take half of a huge page back, zeroed, a 4 KiB page"
TABLES = {
    "summary": [		# for README.md and the documentation
        ("MADV_SPLITTABLE of 64 KiB", f"give back {KINDS['64k']}"),
        ("  of 2 MiB of 4 KiB pages", f"give back {KINDS['4k']}"),
        ("  of 1 GiB, 2 MiB of it touched", f"give back {KINDS['1g']}"),
        ("MADV_FREE_UNDO after it", "take 2 MiB back as it is"),
        ("  after MADV_FREE, a page", UNDO_FREE),
        ("MADV_FREE of half a huge page", FREE["half"]),
        ("free 2 MiB, reuse it zeroed", CYCLE),
        ("huge pages left, half marked, %", NEIGHBOURS),
        ("4 threads mark and undo, x", f"{THREADS['near']} > 4 threads, together"),
        ("16 threads, x", f"{THREADS['near']} > 16 threads, together"),
        ("fork, exit and wait", "fork, exit and wait of a small process"),
        ("mmap, touch, munmap of 256 KiB", "mmap, touch and munmap of 256 KiB"),
        ("touch, DONTNEED of 256 KiB", "touch and MADV_DONTNEED of 256 KiB"),
        ("page fault", FAULT),
    ],
    "cost": [
        ("free 2 MiB of 4 KiB pages", f"give back {KINDS['4k']}"),
        ("free 2 MiB, a huge page", f"give back {KINDS['thp']}"),
        ("free half of a huge page", f"give back {KINDS['half']}"),
        ("free 64 KiB", f"give back {KINDS['64k']}"),
        ("free 1 GiB, 2 MiB of it touched", f"give back {KINDS['1g']}"),
        ("reuse 2 MiB as it is (MADV_FREE_UNDO)", "take 2 MiB back as it is"),
        ("  and touch it, a page", "take 2 MiB back as it is > and touch it, a 4 KiB page"),
        ("reuse half a huge page, zeroed, a page", HALF),
        ("  huge pages left after that, %", f"{HALF} > huge pages that are left"),
        ("  beside NUMA scans, khugepaged, KSM, %", NEIGHBOURS),
        ("    huge page mappings split", f"{NEIGHBOURS} > huge page mappings split"),
        ("free 2 MiB of 4 KiB pages, reuse zeroed", CYCLE),
        ("  with MADV_DONTNEED", f"{CYCLE} > with MADV_DONTNEED"),
        ("undo MADV_FREE, a present page", UNDO_FREE),
        ("MADV_FREE of half of a huge page", FREE["half"]),
        ("freed pages returned by one reclaim, %", "given back, returned by one reclaim"),
        ("empty madvise(), for scale", EMPTY),
        ("MADV_DONTNEED of untouched 64 KiB", UNTOUCHED),
    ],
    "others": [
        ("fork, exit and wait", "fork, exit and wait of a small process"),
        ("mmap, touch, munmap of 256 KiB", "mmap, touch and munmap of 256 KiB"),
        ("touch, MADV_DONTNEED of 256 KiB", "touch and MADV_DONTNEED of 256 KiB"),
        ("page fault", FAULT),
        ("MADV_FREE of 2 MiB of 4 KiB pages", FREE["4k"]),
        ("  MADV_FREE_UNDO was used before", f"{FREE['4k']} > {USED_UNDO}"),
        ("reclaim of a MADV_FREE page", DROP),
        ("  MADV_FREE_UNDO was used before", f"{DROP} > {USED_UNDO}"),
        *((f"pages swapped out, {what}", SWAPPED.format(what)) for what in LRUS.values()),
    ],
    "limits": [
        *(line for what in LIMITS.values() for line in (
            (what.replace("of a process of", "of"), what), (f"  with {RANGES:,} ranges, more", f"{what} > {MORE}"))),
        *((f"{label}, {what}", row.format(what)) for row, label in (
            (WAKEUP, "free after kswapd, %"), (NODE, "zapped for another node, %")) for what in LRUS.values()),
    ],
    "threads": [
        *(line for what in THREADS.values() for line in (
            (what.removesuffix(", 1 thread"), ""), ("  1 thread, times a second", what),
            ("  4 threads, times as often", f"{what} > 4 threads, together"),
            ("  16 threads, times as often", f"{what} > 16 threads, together"))),
        ("time that the host did not give, %", f"{THREADS['near']} > {LOST}"),
    ],
    "throughput": [
        *((name, f"MADV_FREE loop beside a reader, {what}{more}") for _, _, what in READERS
          for name, more in ((f"MADV_FREE loop, {what}", ""), ("  the reader beside it", " > the reader"))),
        ("malloc() of 256 KiB to 4 MiB, glibc", SHIM.split(" > ", maxsplit=1)[0]),
        ("  preloaded shim, MADV_FREE_UNDO", SHIM),
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
