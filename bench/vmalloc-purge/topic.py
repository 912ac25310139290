# SPDX-License-Identifier: GPL-2.0
"""vmalloc-purge: what others wait for while freed areas are given back."""

from __future__ import annotations

from collections.abc import Callable

from common import SPREAD_BOOTS, Figure, Front, Job, Plot, Spec, Values

WAIT = "how long vmalloc() callers and the CPU are held up while vfree()d areas are given back"
FILES = ["guest.sh"]
MODULES = ["storm"]

# mask of lib/test_vmalloc.c: loops. Masks with sizes at random need many for
# a mean that is good to some tenths of a percent.
MASKS = {1: 100_000, 2: 20_000, 4: 10_000, 8: 40_000, 127: 5_000, 128: 1, 1024: 200_000}
MASKS_PARALLEL = {1: 50_000, 2: 20_000, 4: 5_000, 8: 10_000, 127: 2_000, 128: 1, 1024: 100_000}
PEAK_AREAS = 200_000

# 4 GiB of pages and their page tables: boots of their own.
LARGE = 1_000_000

Get = Callable[[str], float]


def body(*lines: str) -> str:
    return "\n".join([". /payload/guest.sh", "prepare", *lines])


def sizes(demo: bool) -> list[int]:
    return [1_000, 10_000, 100_000] if demo else [1_000, 10_000, 100_000, LARGE]


def jobs(demo: bool) -> list[Job]:
    parallel = [] if demo else [
        f"{'flushing ' if m == 1 else ''}test_vmalloc {m} 2 {n}" for m, n in MASKS_PARALLEL.items()]
    small = [n for n in sizes(demo) if n != LARGE]
    todo = [
        Job("hold", body(*[f"hold {n}" for n in small]), mem="2G"),
        Job("cost", body("cost 100000"), mem="2G"),
    ]
    if not demo:
        todo += [
            Job("nonpreemptible", body("nonpreemptible 1", "nonpreemptible 100000 plain=1",
                                       *[f"nonpreemptible {n}" for n in small]), mem="2G", config="trace"),
            Job("test_vmalloc", body(*[f"{'flushing ' if m == 1 else ''}test_vmalloc {m} 1 {n}"
                                       for m, n in MASKS.items()]), mem="2G", limit=600),
            Job("hold-large", body(f"hold {LARGE}"), mem="6G", limit=900),
            Job("nonpreemptible-large", body(f"nonpreemptible {LARGE}"), mem="6G", limit=900, config="trace"),
        ]
    peaks = [f"peak {PEAK_AREAS}", f"peak {PEAK_AREAS} fifo=1"]
    todo.append(Job("parallel", body(*prefixed("p", *peaks, *parallel)), mode="parallel", cpus=2, mem="3G",
                    boots=3 if demo else SPREAD_BOOTS))
    return todo


def prefixed(prefix: str, *commands: str) -> list[str]:
    """Figures of the same name from another setting: with a prefix."""
    return ["p() { \"$@\" | sed 's/^= /= %s/'; return \"${PIPESTATUS[0]}\"; }" % prefix,
            *[f"p {c} || exit 1" for c in commands]]


def specs(demo: bool) -> list[Spec]:
    def same(key: str, scale: float = 1) -> Callable[[Get], float]:
        return lambda get: get(key) * scale

    def per(key: str, count: str, scale: float = 1) -> Callable[[Get], float]:
        return lambda get: get(key) * scale / get(count)

    result = [Spec(hold_name(n), "instructions", "cost", same(f"hold_{n}")) for n in sizes(demo)]
    result += [Spec(f"  with interrupts in it, {n:,} areas", "instructions", "cost", same(f"holdirq_{n}"))
               for n in sizes(demo)]
    result += [Spec("  of it the probes: a lock that guards nothing", "instructions", "cost", same("probe_1000"))]
    # One-page areas have a guard page each.
    result += [
        Spec("areas freed and not yet returned, peak, both CPUs freeing", "areas", "parallel",
             same("plazy_pages_storm", 0.5)),
        Spec("  the same, freeing at SCHED_FIFO", "areas", "parallel", same("plazy_pages_fifo", 0.5)),
        Spec("instructions a purged area, vfree() included", "instructions", "cost", same("cost_100000", 1e-5)),
    ]
    if demo:
        return result
    result += [Spec(f"longest non-preemptible section, {n:,} areas", "instructions", "cost",
                    same(f"nonpreemptible_{n}")) for n in sizes(demo)]
    result += [Spec("  no purge's: 1 area", "instructions", "cost", same("nonpreemptible_1")),
               Spec("  no purge's: 100,000 pages freed without vmalloc", "instructions", "cost",
                    same("nonpreemptible_100000_plain"))]
    result += [Spec(f"areas freed and not yet returned, peak of {n:,} freed on one CPU", "areas", "cost",
                    same(f"lazy_pages_{n}", 0.5)) for n in sizes(demo)]
    result += [Spec(f"test_vmalloc mask {m}, one thread", "1000 instructions", "cost", same(f"test_{m}"))
               for m in MASKS]
    result += [Spec(f"test_vmalloc mask {m}, two threads", "loops a second", "parallel",
                    lambda get, m=m, n=n: 2 * n * 1e6 / get(f"ptest_{m}"), better="higher")
               for m, n in MASKS_PARALLEL.items()]
    result += [
        Spec("TLB flushes a million vfree()s, one CPU", "flushes", "cost", per("flushes_test_1", "calls_1", 1e6)),
        Spec("TLB flushes a million vfree()s, two CPUs", "flushes", "parallel",
             per("pflushes_test_1", "pcalls_1", 1e6)),
        Spec("  of these full ones", "flushes", "parallel", per("pfull_test_1", "pcalls_1", 1e6)),
        Spec("longest vfree() in that storm", "ns", "parallel", same("pmax_free_storm")),
    ]
    return result


def hold_name(n: int) -> str:
    return f"longest hold of free_vmap_area_lock, {n:,} areas"


def front(demo: bool) -> list[Front]:
    return [Front("lock hold of a vmalloc purge", hold_name(100_000), "vfree()", "instructions a purged area, vfree() included")]


def by_areas(name: str) -> list[tuple[str, str]]:
    return [(f"  {n:,} areas", f"{name}, {n:,} areas") for n in sizes(False)]


TABLES = {
    "holds": [
        ("longest hold of free_vmap_area_lock, instructions", ""), *by_areas("longest hold of free_vmap_area_lock"),
        ("  the probes alone", f"{hold_name(LARGE)} > of it the probes: a lock that guards nothing"),
        ("longest non-preemptible section, instructions", ""), *by_areas("longest non-preemptible section"),
        ("instructions for a freed area", "instructions a purged area, vfree() included"),
        ("areas not yet returned, at their peak", ""),
        *((f"  {n:,} freed", f"areas freed and not yet returned, peak of {n:,} freed on one CPU") for n in (100_000, LARGE)),
        ("  two CPUs, SCHED_FIFO",
         "areas freed and not yet returned, peak, both CPUs freeing > the same, freeing at SCHED_FIFO"),
        ("TLB flushes for a million vfree()s", ""),
        ("  one CPU", "TLB flushes a million vfree()s, one CPU"), ("  two CPUs", "TLB flushes a million vfree()s, two CPUs"),
    ],
    "test_vmalloc": [
        ("one thread, thousands of instructions", ""), *((f"  mask {m}", f"test_vmalloc mask {m}, one thread") for m in MASKS),
        ("two threads on two CPUs, loops a second", ""),
        *((f"  mask {m}", f"test_vmalloc mask {m}, two threads") for m in MASKS_PARALLEL),
    ],
}


def plot(figures: list[Figure]) -> Plot:
    series: dict[str, list[tuple[float, float]]] = {}
    for n in sizes(False):
        for f in figures:
            if f.name == hold_name(n):
                for column, value in f.values.items():
                    if value:
                        series.setdefault(column, []).append((n, value))
    return Plot("Longest hold time of free_vmap_area_lock", "areas freed", "instructions", series)


SWEEP = (1, 16, 64, 100, 1000, 0)


def sweep_jobs() -> list[Job]:
    """Without back-pressure: all areas are there when the purge begins."""
    def job(name: str, batch: int, config: str, *what: str) -> Job:
        script = body(f"echo {batch} >/sys/kernel/mm/vmalloc/purge_batch || die purge_batch",
                      "echo 0 >/sys/kernel/mm/vmalloc/throttle_percent || die throttle_percent",
                      *prefixed(f"b{batch}_", *what))
        return Job(f"{name}-{batch}", script, mem="2G", columns=("enabled",), config=config)
    return [each for b in SWEEP for each in (
        job("sweep", b, "guest", "hold 100000", "cost 100000", "test_vmalloc 1 1 100000"),
        job("sweep-trace", b, "trace", "nonpreemptible 100000"))]


def sweep(values: Values) -> dict[str, object]:
    def cell(batch: int, key: str, scale: float = 1) -> float | None:
        value = values.get(f"b{batch}_{key}")
        return round(value[0] * scale) if value else None

    return {"about": "100,000 one-page areas freed at once on one CPU, without back-pressure, in\n"
                     "instructions; a purge_batch of 0 is unlimited.",
            "head": ["purge_batch", "lock hold", "non-preemptible", "a purged area", "test_vmalloc 1"],
            "lines": [[b, cell(b, "hold_100000"), cell(b, "nonpreemptible_100000"), cell(b, "cost_100000", 1e-5),
                       cell(b, "test_1", 1e-2)] for b in SWEEP]}
