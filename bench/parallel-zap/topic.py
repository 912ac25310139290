# SPDX-License-Identifier: GPL-2.0
"""parallel-zap: how long a large process takes to give its memory back."""

from __future__ import annotations

from collections.abc import Callable

from common import SPREAD_BOOTS, Figure, Front, Job, Plot, Spec

WAIT = "how long the exit of a large process keeps whoever waits for it"
FILES = ["guest.sh"]
PROGRAMS = ["zap.c"]

NODES = (1, 2, 4, 8)
PAGES_A_MIB = 256

Get = Callable[[str], float]


def body(*lines: str) -> str:
    return "\n".join([". /payload/guest.sh", "knobs", *lines])


def size(demo: bool) -> int:
    """MiB of the process that exits."""
    return 1024 if demo else 8192


def jobs(demo: bool) -> list[Job]:
    boots = 3 if demo else SPREAD_BOOTS
    todo = [
        Job("cost", body("warm exit 4k 64", "zap exit 4k 1024 | sed 's/exit_4k/alone/'",
                         "warm fork 200", "zap fork 2000", "warm maps 100 256", "zap maps 2000 256",
                         "warm maps 10 16384", "zap maps 40 16384"), mem="1536M"),
    ]
    if demo:
        return todo + [Job("exit", body(f"helped exit_4k zap exit 4k {size(demo)}"), mode="parallel", cpus=2, nodes=2,
                           mem="2G", boots=boots)]
    todo += [
        # Two CPUs that take turns: the clock counts what both do.
        Job("total", body("helped total zap exit 4k 1024 | sed 's/exit_4k/total/'"), mem="2G", cpus=2, nodes=2),
        Job("late", body("zap late 1024 1"), mode="parallel", mem="2G", cpus=2, nodes=2, boots=boots),
        Job("exit", body(f"helped exit_4k zap exit 4k {size(demo)}"), mode="parallel", cpus=2, nodes=2,
            mem="9G", boots=boots, limit=600),
        Job("live", body(f"helped munmap zap munmap 4k {size(demo)}", f"helped dontneed zap dontneed 4k {size(demo)}"),
            mode="parallel", cpus=2, nodes=2, mem="9G", boots=boots, limit=600),
        Job("others", body("huge warm exit 2048", "helped thp huge zap exit 2048",
                           "mthp warm exit 2048", "helped mthp mthp zap exit 2048",
                           "warm exit kept 64", "helped shmem zap exit shmem 1024",
                           "helped kept zap exit kept 2048",
                           "swapped warm exit 512", "helped swap swapped zap exit 512",
                           "helped flushes flushes 1024"),
            mode="parallel", cpus=2, nodes=2, mem="3584M", boots=boots, limit=600),
    ]
    todo += [Job(f"nodes-{n}", body("zap nodes 2048 | sed 's/nodes/nodes_%d/'" % n), mode="parallel", cpus=2, nodes=1,
                 mem="3G", append=f"numa=fake={n}", boots=boots) for n in NODES]
    return todo


def specs(demo: bool) -> list[Spec]:
    def per(key: str, count: float) -> Callable[[Get], float]:
        return lambda get: get(key) / count

    def seconds(key: str) -> Callable[[Get], float]:
        return per(key, 1e9)

    result = [
        Spec(f"exit of {size(demo) >> 10} GiB of 4 KiB pages, two CPUs", "seconds", "parallel", seconds("exit_4k")),
        Spec("  zapped by helpers", "%", "parallel", per("share_exit_4k", 1), better="higher"),
        Spec("exit of 1 GiB, one CPU, a 4 KiB page", "instructions", "cost",
             per("alone", 1024 * PAGES_A_MIB)),
        Spec("fork, exit and wait of a small process", "instructions", "cost", per("fork", 1)),
        Spec("mmap, touch and munmap of 256 KiB", "instructions", "cost", per("maps_256k", 1)),
        Spec("mmap, touch and munmap of 16 MiB, a page", "instructions", "cost",
             per("maps_16384k", 16 * PAGES_A_MIB)),
    ]
    if demo:
        return result
    result += [
        Spec("exit of 1 GiB, all that two CPUs do, a 4 KiB page", "instructions", "cost",
             per("total", 1024 * PAGES_A_MIB)),
        Spec("  zapped by helpers", "%", "cost", per("share_total", 1), better="higher"),
        Spec("munmap() of 8 GiB of 4 KiB pages", "seconds", "parallel", seconds("munmap_4k")),
        Spec("MADV_DONTNEED of 8 GiB of 4 KiB pages", "seconds", "parallel", seconds("dontneed_4k")),
        Spec("exit of 2 GiB of huge pages", "seconds", "parallel", seconds("exit_thp")),
        Spec("exit of 2 GiB of 64 KiB folios", "seconds", "parallel", seconds("exit_64k")),
        Spec("exit of 1 GiB of shared memory, which is freed", "seconds", "parallel", seconds("exit_shmem")),
        Spec("exit of 2 GiB of shared memory, which stays", "seconds", "parallel", seconds("exit_kept")),
        Spec("exit of 512 MiB, swapped out to zram", "seconds", "parallel", seconds("exit_swap")),
    ]
    result += [Spec(f"exit of 2 GiB, node by node over {n} nodes", "seconds", "parallel", seconds(f"nodes_{n}"))
               for n in NODES]
    result += [
        Spec("TLB flush interrupts a GiB of munmap(), two threads", "interrupts", "parallel", per("flushes", 1)),
        Spec("another task's wake-up on the helper's CPU is late, p99", "ms", "parallel", per("late_p99", 1e6)),
        Spec("  at most", "ms", "parallel", per("late_max", 1e6)),
    ]
    return result


def front(demo: bool) -> list[Front]:
    return [Front(f"exit of {size(demo) >> 10} GiB, seconds", f"exit of {size(demo) >> 10} GiB of 4 KiB pages, two CPUs",
                  "fork+exit", "fork, exit and wait of a small process")]


TABLES = {
    "cost": [
        ("exit of 1 GiB, a 4 KiB page", "exit of 1 GiB, one CPU, a 4 KiB page"),
        ("all that two CPUs do for it", "exit of 1 GiB, all that two CPUs do, a 4 KiB page"),
        ("fork, exit and wait, small process", "fork, exit and wait of a small process"),
        ("mmap, touch and munmap of 256 KiB", "mmap, touch and munmap of 256 KiB"),
        ("the same of 16 MiB, a page", "mmap, touch and munmap of 16 MiB, a page"),
    ],
    "times": [
        ("exit of 8 GiB", "exit of 8 GiB of 4 KiB pages, two CPUs"),
        ("  zapped by helpers, %", "exit of 8 GiB of 4 KiB pages, two CPUs > zapped by helpers"),
        ("munmap() of 8 GiB", "munmap() of 8 GiB of 4 KiB pages"),
        ("MADV_DONTNEED of 8 GiB", "MADV_DONTNEED of 8 GiB of 4 KiB pages"),
        ("exit of 2 GiB of shared memory, kept", "exit of 2 GiB of shared memory, which stays"),
        ("exit of 1 GiB of it, which is freed", "exit of 1 GiB of shared memory, which is freed"),
        ("exit of 2 GiB of 64 KiB folios", "exit of 2 GiB of 64 KiB folios"),
        ("exit of 512 MiB, swapped out to zram", "exit of 512 MiB, swapped out to zram"),
        ("exit of 2 GiB of huge pages", "exit of 2 GiB of huge pages"),
        ("exit of 2 GiB, node by node", ""),
        *((f"  over {n} node{'s' if n > 1 else ''}", f"exit of 2 GiB, node by node over {n} nodes") for n in NODES),
    ],
    "others": [
        ("TLB flush IPIs for munmap() of 1 GiB", "TLB flush interrupts a GiB of munmap(), two threads"),
        ("wake-up delay on a helper's CPU, ms", ""),
        ("  99 % below", "another task's wake-up on the helper's CPU is late, p99"),
        ("  maximum", "another task's wake-up on the helper's CPU is late, p99 > at most"),
    ],
}


def plot(figures: list[Figure]) -> Plot:
    """All rows of 4 KiB pages, in seconds."""
    mine = [f for f in figures if f.unit == "seconds" and ("4 KiB pages" in f.name or "node by node" in f.name)]
    series: dict[str, list[tuple[float, float]]] = {}
    for number, figure in enumerate(mine, 1):
        for column, value in figure.values.items():
            if value is not None:
                series.setdefault(column, []).append((number, value))
    short = {" of 4 KiB pages": "", ", two CPUs": "", ", node by node over": ",", "MADV_DONTNEED": "DONTNEED"}
    labels = []
    for figure in mine:
        label = figure.name
        for long, word in short.items():
            label = label.replace(long, word)
        labels.append(label)
    return Plot("Memory in 4 KiB pages that goes, on two CPUs", "", "seconds", series, log=False, labels=tuple(labels))
