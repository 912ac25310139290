# SPDX-License-Identifier: GPL-2.0
"""lazyfree: what an allocator pays for giving memory back, and for using it again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common import SPREAD_BOOTS, Figure, Front, Job, Plot, Spec

WAIT = "what an allocator pays for giving memory back, and for using it again"
FILES = ["guest.sh"]
PROGRAMS = ["lazy.c", "jemalloc.c", "blocks.c", "shim.c"]
BLOCKS = str(Path(__file__).parent / "blocks.c")
LINK = {"jemalloc.c": ["-static", BLOCKS, "-ljemalloc", "-lstdc++", "-lm"],
        "blocks.c": [], "shim.c": ["-shared", "-fPIC"]}
SYSTEM_FILES = ["/usr/lib/x86_64-linux-gnu/libmimalloc.so.2"]

KINDS = {"4k": "2 MiB of 4 KiB pages", "thp": "2 MiB, a huge page", "half": "half of a huge page",
         "64k": "64 KiB", "1g": "1 GiB, of which 2 MiB are touched"}

READERS = [("fair", "mglru", "fair, MGLRU"), ("fair", "classic", "fair, classic LRU"),
           ("first", "mglru", "first, MGLRU")]

Get = Callable[[str], float]


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
        Job("churn", body("churn"), mode="parallel", mem="2G", cpus=2, boots=SPREAD_BOOTS),
    ]


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
        Spec("jemalloc, blocks of 256 KiB to 4 MiB come and go", "MiB/s", "parallel", value("churn_default"),
             better="higher"),
        Spec("  with hooks, zeroed", "MiB/s", "parallel", value("churn_hooks"), better="higher"),
        Spec("  with hooks, as it is", "MiB/s", "parallel", value("churn_undo"), better="higher"),
        Spec("  half of its heap freed and used again: huge pages left", "%", "parallel", value("huge_default"),
             better="higher"),
        Spec("  with hooks", "%", "parallel", value("huge_hooks"), better="higher"),
        Spec("the same of an unmodified program, glibc that unmaps", "MiB/s", "parallel", value("churn_glibc"),
             better="higher"),
        Spec("  with the preloaded shim", "MiB/s", "parallel", value("churn_shim"), better="higher"),
        Spec("  mimalloc, which keeps what is freed for a while", "MiB/s", "parallel", value("churn_mimalloc"),
             better="higher"),
    ]


SHIM = "the same of an unmodified program, glibc that unmaps > with the preloaded shim"


def front(demo: bool) -> list[Front]:
    return [Front("free 2 MiB (MADV_SPLITTABLE)", f"give back {KINDS['4k']}", "fork+exit", "fork, exit and wait of a small process"),
            Front("malloc() with a shim, MiB/s", SHIM, "map+unmap", "mmap, touch and munmap of 256 KiB")]


JEMALLOC = "jemalloc, blocks of 256 KiB to 4 MiB come and go"
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
        ("jemalloc, blocks of 256 KiB to 4 MiB", JEMALLOC),
        ("  with hooks, MADV_UNSPLITTABLE", f"{JEMALLOC} > with hooks, zeroed"),
        ("  with hooks, MADV_FREE_UNDO", f"{JEMALLOC} > with hooks, as it is"),
        ("malloc() of as much, glibc", "the same of an unmodified program, glibc that unmaps"),
        ("  preloaded shim, MADV_FREE_UNDO", SHIM),
        ("half of jemalloc's heap freed, reused", ""),
        ("  huge pages left, %", f"{JEMALLOC} > half of its heap freed and used again: huge pages left"),
        ("  with hooks, %", f"{JEMALLOC} > with hooks"),
    ],
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
