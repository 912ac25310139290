# SPDX-License-Identifier: GPL-2.0
"""knuma: how long a task stands still for pages that move to its node."""

from __future__ import annotations

import mmap
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from common import ROOT, SPREAD_BOOTS, Bench, Figure, Front, Job, Plot, Spec, Values

WAIT = "how long a task stands still for its pages that move to its node"
FILES = ["guest.sh"]
MODULES = ["pagecopy"]
PROGRAMS = ["numa.c"]
HERE = Path(__file__).parent
PARTS = ("tools", "touch", "loads", "moves", "threads", "mbind", "ring")
LINK = {"numa.c": ["-static", *(str(HERE / f"{part}.c") for part in PARTS)]}

# Modes of the patched kernel. On the base kernel, and with enabled=0, all are one.
MODES = {"default": "default", "scand": "with knuma_scand"}
SHOWN = "default"		# the mode of all rows that do not name one

MIB = 256
SMALL_MIB = 64
RING_MIB = 16			# of a process
EVERYWHERE_SECONDS = 14
LOADS = {"numa01": "numa01", "numa01_local": "numa01, thread-local", "numa02": "numa02", "numa02_smt": "numa02_SMT"}
BINDS = {"hard": "bound", "inverse": "bound to the wrong nodes"}
WATCHED_GIB = 16		# of a process that numamap shows
POPULATE_WRITE = 23		# MADV_POPULATE_WRITE, which mmap does not name
WINDOWS = (1, 8, 16, 32, 64, 128, 256, 512)
TIMES = (50, 90, 95, 99)

Get = Callable[[str], float]


def body(*lines: str) -> str:
    return "\n".join([". /payload/guest.sh", f"knobs {SHOWN}", *lines])


def cost(name: str, *lines: str, nodes: int = 2) -> Job:
    """One CPU: node 1 has memory alone, and one clock counts all that is done."""
    return Job(name, body(*lines), nodes=nodes, mem="2G", limit=900)


def parallel(name: str, *lines: str, boots: int = SPREAD_BOOTS) -> Job:
    return Job(name, body(*lines), mode="parallel", cpus=2, nodes=2, mem="2G", boots=boots)


def jobs(demo: bool) -> list[Job]:
    if demo:
        return [cost("cost", "soon", f"as {SHOWN} cost 64"),
                parallel("converge", f"as {SHOWN} converge {MIB}", boots=1)]
    return [
        cost("cost", "soon", "in_modes cost 64"),
        cost("steady", "soon", "in_modes steady"),
        cost("without", "balancing_off", "as off numa steady 4k 64 near 20", "as off others"),
        cost("one-node", "as one numa steady 4k 64 near 20", "as one others", nodes=1),
        parallel("converge", f"floor {MIB}", f"in_modes converge {MIB}", "in_modes busy 64"),
        parallel("loads", "loads 128", *(f"loads 128 {bind}" for bind in BINDS), "in_modes numa lookup 64 50 6"),
        # Paced by the kernel's own timers, and twice in each boot.
        parallel("flip", "numa flip 64 15 2", boots=3),
        cost("copy", "copy"),
        parallel("reads", f"reads {MIB}"),
        parallel("loaded", f"loaded {MIB}"),
        parallel("moves", f"moves {SMALL_MIB}", f"numa shared {SMALL_MIB}"),
        parallel("threads", f"numa alternate {SMALL_MIB} 10", f"numa everywhere {MIB} {EVERYWHERE_SECONDS}"),
        parallel("mbind", f"numa mbind {SMALL_MIB} 400", f"numa attack {SMALL_MIB}"),
        Job("ring", body(f"ring {RING_MIB}"), mode="slow", cpus=16, nodes=8, mem="2G", boots=SPREAD_BOOTS, limit=900),
    ]


def value(key: str, factor: float = 1) -> Callable[[Get], float]:
    return lambda get: get(key) * factor


def in_modes(demo: bool, key: str, name: str, unit: str, mode: str, factor: float = 1) -> list[Spec]:
    """A row for the mode that is shown, then one for each other."""
    rows = [Spec(name, unit, mode, value(f"{key}_{SHOWN}", factor))]
    indent = " " * (2 + len(name) - len(name.lstrip()))
    if not demo:
        rows += [Spec(f"{indent}{text}", unit, mode, value(f"{key}_{m}", factor)) for m, text in MODES.items() if m != SHOWN]
    return rows


def without_copy(kind: str) -> Callable[[Get], float]:
    return lambda get: get(f"all_{kind}_cost_{SHOWN}") - get(f"copy_{kind}")


def copy_specs(kinds: dict[str, str]) -> list[Spec]:
    """The guest's kernel copies with memcpy(), as its CPU has no ERMS; the module measures folio_mc_copy()."""
    result = []
    for kind, what in kinds.items():
        result += [Spec(f"copy of 4 KiB by folio_mc_copy(): {what}", "instructions", "cost", value(f"copy_{kind}")),
                   Spec(f"balancing, a 4 KiB that moved, task and kernel threads, less that copy: {what}", "instructions",
                        "cost", without_copy(kind))]
    return result


def read_specs() -> list[Spec]:
    result = []
    for key, rank in (("p999", "99.9 %"), ("p9999", "99.99 %"), ("max", "all")):
        result += [Spec(f"random read while {MIB} MiB of 4 KiB pages move: {rank} take less than", "us", "parallel",
                        value(f"{key}_4k_read")),
                   Spec("  nothing moves, balancing off", "us", "parallel", value(f"{key}_4k_read_still"))]
    return result


def move_specs() -> list[Spec]:
    """On the first move, the memory has been local for some seconds before."""
    moves = {key: f"{key} move of a thread's memory, scan_period_max_ms 1000" for key in ("first", "second", "third")}
    moves["shared"] = "memory of two processes"
    result = []
    for key, what in moves.items():
        result += [Spec(f"hinting faults on pages that are not local, a page that moved: {what}", "faults", "parallel",
                        value(f"remote_faults_{key}")),
                   Spec("  90 % local after", "seconds", "parallel", value(f"t90_{key}"))]
    return result


def thread_specs() -> list[Spec]:
    return [
        Spec("two threads on two nodes, alternate pages: moves for each page that had to move", "moves", "parallel",
             value("moves_alternate")),
        Spec("  95 % of both local after", "seconds", "parallel", value("t95_alternate")),
        Spec(f"one thread on each node, both touch {MIB} MiB: pages that moved in {EVERYWHERE_SECONDS} s", "pages", "parallel",
             value("moved_everywhere")),
        Spec("  touches", "touches", "parallel", value("touches_everywhere"), better="higher"),
    ]


def mbind_specs() -> list[Spec]:
    beside = {"mbind": "mbind() of one other page 400 times a second", "attack": "mbind() of 1,024 memfds by another user"}
    result = []
    for key, what in beside.items():
        result += [Spec(f"{SMALL_MIB} MiB of 4 KiB pages during {what}: 90 % local after", "seconds", "parallel",
                        value(f"t90_{key}")),
                   Spec("  calls", "a second", "parallel", value(f"calls_{key}"), better="higher")]
    return result


def ring_specs() -> list[Spec]:
    name = f"16 CPUs on 8 nodes, 8 processes of {RING_MIB} MiB on the next node"
    return [
        *(Spec(f"{name}: {share} % local after", "seconds", "slow", value(f"t{share}_ring")) for share in (90, 99)),
        Spec(f"{name}: 99.9 % of touches take less than", "us", "slow", value("p999_ring")),
        Spec(f"{name}: pages dropped from a queue, of those queued", "%", "slow", value("dropped_ring")),
        Spec("  time of a slow CPU that the host did not provide", "%", "slow", value("lost_time_percent")),
    ]


def specs(demo: bool) -> list[Spec]:
    kinds = {"4k": "4 KiB pages", "thp": "huge pages"}
    result = []
    # Of huge pages there are so few that only the longest touches are theirs.
    ranks = {"4k": (("p999", "99.9 %"),), "thp": ()} if demo else dict.fromkeys(
        kinds, (("p999", "99.9 %"), ("p9999", "99.99 %")))
    for kind, what in kinds.items():
        for key, rank in (*ranks[kind], ("max", "all")):
            result += in_modes(demo, f"{key}_{kind}", f"random touch while {MIB} MiB of {what} move: {rank} take less than",
                               "us", "parallel")
            if not demo:
                result += [Spec("  nothing moves, balancing off", "us", "parallel", value(f"{key}_{kind}_still"))]
        # With one CPU these are instructions, a kernel thread's that came between too.
        for key, rank in (*(ranks[kind] if kind == "4k" else ()), ("max", "all")):
            result += in_modes(demo, f"{key}_{kind}_alone", f"random touch while 64 MiB of {what} move, one CPU: {rank} take "
                               "less than", "instructions", "cost", 1000)
        result += in_modes(demo, f"over_1ms_{kind}", f"touches that took over 1 ms, {what}", "touches", "parallel")
        result += in_modes(demo, f"stalled_{kind}", f"time in touches that took over 10 us, {what}", "%", "parallel")
    for kind, what in kinds.items():
        for share in TIMES[-1:] if demo and kind == "thp" else TIMES:
            result += in_modes(demo, f"t{share}_{kind}", f"{MIB} MiB of {what}: {share} % local after", "seconds", "parallel")
    result += in_modes(demo, "faults_4k", "hinting faults a page that moved, 4 KiB pages", "faults", "parallel")
    result += in_modes(demo, "faults_4k_cost", "hinting faults a page that moved, 4 KiB pages, one CPU", "faults", "cost")
    for kind, what in kinds.items():
        result += in_modes(demo, f"all_{kind}_cost", f"balancing, a 4 KiB that moved, task and kernel threads: {what}",
                           "instructions", "cost")
        result += in_modes(demo, f"task_{kind}_cost", f"  of it the task's, {what}", "instructions", "cost")
    if demo:
        return result
    result += in_modes(demo, "remote_faults_4k", "hinting faults on pages that are not local, a page that moved", "faults",
                       "parallel")
    for kind, what in kinds.items():
        result += in_modes(demo, f"flushes_{kind}_busy", f"TLB flush interrupts, a 4 KiB that moved, two threads: {what}",
                           "interrupts", "parallel")
        result += in_modes(demo, f"flushes_{kind}", f"TLB flush interrupts, a 4 KiB that moved: {what}", "interrupts", "parallel")
    result += copy_specs(kinds) + read_specs() + move_specs() + thread_specs() + mbind_specs()
    result += [Spec(f"{MIB} MiB of 4 KiB pages beside two busy loops: {share} % local after", "seconds", "parallel",
                    value(f"t{share}_4k_loaded")) for share in (90, 99)]
    result += ring_specs()
    result += in_modes(demo, "steady_far", "touch, memory that has moved", "instructions", "cost")
    result += in_modes(demo, "steady_faults_far", "  hinting faults in a million touches", "faults", "cost")
    small = {"small_fork": "fork, exit and wait of a small process", "small_maps": "mmap, touch and munmap of 256 KiB"}
    for key, what in small.items():
        result += in_modes(demo, key, what, "instructions", "cost")
    for suffix, when in (("off", "balancing off"), ("one", "one node")):
        result += [Spec(f"touch, {when}", "instructions", "cost", value(f"steady_near_{suffix}"))]
        result += [Spec(f"{what}, {when}", "instructions", "cost", value(f"{key}_{suffix}")) for key, what in small.items()]
    for load, what in LOADS.items():
        result += [Spec(f"{what}: times that a thread has been through its memory", "a second", "parallel",
                        value(f"passes_{load}"), better="higher")]
        result += [Spec(f"  {text}", "a second", "parallel", value(f"passes_{load}_{bind}"), better="higher")
                   for bind, text in BINDS.items()]
        result += [Spec("  90 % local after", "seconds", "parallel", value(f"t90_{load}")),
                   Spec("  local in the end", "%", "parallel", value(f"share_{load}"), better="higher"),
                   Spec("  hinting faults", "faults", "parallel", value(f"hinted_{load}"))]
    result += [
        Spec("flip to the other node each 15 s: 50 % local after", "seconds", "parallel", value("t50_flip")),
        Spec("  90 % local after", "seconds", "parallel", value("t90_flip")),
        Spec("  local at the next flip", "%", "parallel", value("share_flip"), better="higher"),
        Spec("  hinting faults a page that moved", "faults", "parallel", value("faults_flip")),
    ]
    for key, rank in (("p99", "99 %"), ("p999", "99.9 %"), ("p9999", "99.99 %"), ("max", "all")):
        result += in_modes(demo, f"{key}_lookup", f"lookup by a server that has changed node: {rank} take less than",
                           "us", "parallel")
    result += in_modes(demo, "t90_lookup", "memory of a server that has changed node: 90 % local after", "seconds", "parallel")
    for kind, what in kinds.items():
        result += [Spec(f"numamap on a process of {WATCHED_GIB} GiB, {what}: frames", "a second", "native",
                        value(f"frames_{kind}_numamap"), better="higher"),
                   Spec("  its share of a CPU", "%", "native", value(f"cpu_{kind}_numamap"))]
    return result


def native(bench: Bench) -> dict[str, float]:
    """numamap on a large screen, for ten seconds. In a guest, it would have
    neither the memory nor the speed."""
    program = bench.build / "numamap"
    bench.make(["gcc", "-O2", "-static", "-o", str(program), str(ROOT / "tools/mm/numamap.c")], "program numamap.c")
    found = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    free = int(found[1]) >> 20 if found else 0
    if free <= WATCHED_GIB:
        raise RuntimeError(f"needs more than {WATCHED_GIB} GiB of memory, and {free} GiB are available")
    figures: dict[str, float] = {}
    for kind, advice in (("4k", mmap.MADV_NOHUGEPAGE), ("thp", mmap.MADV_HUGEPAGE)):
        with mmap.mmap(-1, WATCHED_GIB << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(advice)
            memory.madvise(POPULATE_WRITE)
            done = subprocess.run([str(program), "--count", "200", "--stats", str(os.getpid())], check=False, text=True,
                                  stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                  env=os.environ | {"COLUMNS": "200", "LINES": "50"})
        found = re.search(r"([\d.]+) frames/s, ([\d.]+)% of a CPU", done.stderr)
        if not found:
            raise RuntimeError(f"numamap printed no figures: {done.stderr.strip()[:200]}")
        figures[f"frames_{kind}_numamap"] = float(found[1])
        figures[f"cpu_{kind}_numamap"] = float(found[2])
    return figures


TOUCH = f"random touch while {MIB} MiB of 4 KiB pages move"
ALONE = "random touch while 64 MiB of 4 KiB pages move, one CPU"
MOVE = "balancing, a 4 KiB that moved, task and kernel threads"
FLUSHES = "TLB flush interrupts, a 4 KiB that moved, two threads"
LOOKUP = "lookup by a server that has changed node"


def front(demo: bool) -> list[Front]:
    return [Front("time in touches of 10+ us, %", "time in touches that took over 10 us, 4 KiB pages", "one-CPU max", f"{ALONE}: all take less than"),
            Front("256 MiB 90 % local, seconds", f"{MIB} MiB of 4 KiB pages: 90 % local after", "flush IPIs",
                  f"{FLUSHES}: 4 KiB pages")]


TABLES = {
    "latency": [
        ("256 MiB of 4 KiB pages", ""),
        ("  faults for a page that moves", "hinting faults a page that moved, 4 KiB pages"),
        ("  touch, us, 99.9 % below", f"{TOUCH}: 99.9 % take less than"),
        ("    99.99 %", f"{TOUCH}: 99.99 % take less than"),
        ("    99.99 %, balancing off", f"{TOUCH}: 99.99 % take less than > nothing moves, balancing off"),
        ("  time in touches over 10 us, %", "time in touches that took over 10 us, 4 KiB pages"),
        *((f"  {share} % local after, s", f"{MIB} MiB of 4 KiB pages: {share} % local after") for share in (90, 99)),
        ("  TLB flush IPIs for a page", f"{FLUSHES}: 4 KiB pages"),
        ("256 MiB of huge pages", ""),
        ("  longest touch, us", f"random touch while {MIB} MiB of huge pages move: all take less than"),
        ("  time in touches over 10 us, %", "time in touches that took over 10 us, huge pages"),
        *((f"  {share} % local after, s", f"{MIB} MiB of huge pages: {share} % local after") for share in (90, 99)),
    ],
    "cost": [
        ("a 4 KiB page moved, task and daemons", f"{MOVE}: 4 KiB pages"),
        ("  by the task", f"{MOVE}: 4 KiB pages > of it the task's, 4 KiB pages"),
        ("4 KiB of a huge page, task and daemons", f"{MOVE}: huge pages"),
        ("  by the task", f"{MOVE}: huge pages > of it the task's, huge pages"),
        ("touch while 4 KiB pages move, 99.9 %", f"{ALONE}: 99.9 % take less than"),
        ("  99.99 %", f"{ALONE}: 99.99 % take less than"),
        ("  longest", f"{ALONE}: all take less than"),
        ("a touch after all has moved", "touch, memory that has moved"),
        ("a touch, balancing off", "touch, balancing off"),
        ("a touch, one node", "touch, one node"),
    ],
    "busy": [
        ("numa01, 90 % local after, s", "numa01: times that a thread has been through its memory > 90 % local after"),
        ("numa02, 90 % local after, s", "numa02: times that a thread has been through its memory > 90 % local after"),
        ("server: 99.9 % of lookups below, us", f"{LOOKUP}: 99.9 % take less than"),
        ("  with knuma_scand", f"{LOOKUP}: 99.9 % take less than > with knuma_scand"),
        ("server: 90 % local after, s", "memory of a server that has changed node: 90 % local after"),
        ("  with knuma_scand", "memory of a server that has changed node: 90 % local after > with knuma_scand"),
    ],
}


def plot(figures: list[Figure]) -> Plot:
    """How much is local, over time."""
    series: dict[str, list[tuple[float, float]]] = {}
    for share in TIMES:
        for f in figures:
            if f.name == f"{MIB} MiB of 4 KiB pages: {share} % local after":
                for column, seconds in f.values.items():
                    if seconds is not None:
                        series.setdefault(column, []).append((seconds, share))
    return Plot(f"{MIB} MiB of 4 KiB pages on the wrong node", "seconds", "% local", series, log=False)


def sweep_jobs() -> list[Job]:
    """Pages of a window."""
    lines = ["soon"]
    for pages in WINDOWS:
        lines += [f"WINDOW={pages} mode default",
                  f"as {pages} numa cost 4k 64"]
    return [cost("sweep", *lines)]


def sweep(values: Values) -> dict[str, object]:
    keys = ("faults", "all", "task", "threads", "t99")
    found = {pages: [values.get(f"{key}_4k_cost_{pages}") for key in keys] for pages in WINDOWS}
    return {"about": "64 MiB of 4 KiB pages move, one CPU; of a page that moved: faults, instructions",
            "head": ["window_pages", "hinting faults", "all", "task", "kernel threads", "99 % local after, s"],
            "lines": [[pages, *(f[0] if f else None for f in figures)] for pages, figures in found.items()]}
