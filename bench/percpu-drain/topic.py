# SPDX-License-Identifier: GPL-2.0
"""percpu-drain: how often a CPU that holds nothing, or is isolated, is disturbed."""

from __future__ import annotations

from collections.abc import Callable

from common import Figure, Front, Job, Plot, Spec

WAIT = "how often an isolated CPU is interrupted for memory management that others do"
FILES = ["guest.sh"]
MODULES = ["slabload"]
PROGRAMS = ["loads.c"]

# name: what it is, times, and whether the CPUs use memory each time or once before
LOADS = {
    "collapse": ("MADV_COLLAPSE of 256 MiB", 1, "once"),
    "modules": ("module loaded and unloaded, 20 times", 20, "once"),
    "caches": ("1,000 slab caches filled, kfree_rcu()d, destroyed", 20, "once"),
    "stat_refresh": ("vm.stat_refresh, 20 times", 20, "once"),
    "drop_caches": ("drop_caches, 20 times", 20, "each"),
    "compact": ("compact_memory, 20 times", 20, "each"),
    "fadvise": ("fadvise DONTNEED, 20 times", 20, "each"),
    "numa": ("move_pages and mbind, 20 times", 20, "each"),
    "reclaim": ("memory.reclaim, 20 times", 20, "each"),
    "overcommit": ("overcommit_memory = 2, 20 times", 20, "once"),
    "shrink": ("all slab caches shrunk, 5 times", 5, "once"),
    "seal": ("memfd sealed, 20 times", 20, "each"),
    "oom": ("16 talkers and an eater of memory, into OOM", 1, "each"),
}
DEMO = ("collapse", "caches", "stat_refresh", "drop_caches", "numa")
# No load here gets to drain_all_pages(), so there is no share for pcp_drain.
PATHS = ("lru_drain", "slab_flush", "slab_rcu_flush", "pt_sync", "stat_refresh")
APPEND = "isolcpus=domain,managed_irq,6-7 nohz_full=6-7 rcu_nocbs=6-7 nowatchdog"

Get = Callable[[str], float]


def loads(demo: bool) -> list[str]:
    return [name for name in LOADS if not demo or name in DEMO]


def disturb(job: str, mem: str, names: list[str], *after: str) -> Job:
    script = ["set +m", ". /payload/guest.sh", "prepare"]
    script += [f"watch {name} {LOADS[name][1]} {LOADS[name][2]} {name}" for name in names]
    script += [*after, "kill -9 $spinner", "true"]
    return Job(job, "\n".join(script), mode="parallel", mem=mem, cpus=8, nodes=2, limit=900, append=APPEND)


def jobs(demo: bool) -> list[Job]:
    todo = [disturb("disturb", "3G", [name for name in loads(demo) if name != "oom"], "shares")]
    if not demo:
        todo += [disturb("oom", "768M", ["oom"])]
    cost = [". /payload/guest.sh", "knobs"]
    todo += [Job("cost", "\n".join([*cost, "$LOADS cost 0 || die cost",
                                    "insmod /payload/slabload.ko caches=100 objects=1000 || die slabload",
                                    "echo = kfree_rcu $(cat /sys/module/slabload/parameters/free_ns)"]), mem="1G"),
             # Two CPUs take turns: good to a few percent, which is enough here.
             Job("cost-isolated", "\n".join([*cost, "$LOADS cost 1 || die cost"]), mem="1G", cpus=2,
                 append="isolcpus=domain,managed_irq,1")]
    return todo


def specs(demo: bool) -> list[Spec]:
    def same(key: str, scale: float = 1) -> Callable[[Get], float]:
        return lambda get: get(key) * scale

    def both(name: str, kind: str) -> Callable[[Get], float]:
        return lambda get: get(f"{name}_{kind}_6") + get(f"{name}_{kind}_7")

    result = []
    for name in loads(demo):
        what = LOADS[name][0]
        result += [Spec(f"{what}: sent to an isolated CPU, idle", "times", "parallel", same(f"{name}_total_6")),
                   Spec("  in user mode", "times", "parallel", same(f"{name}_total_7")),
                   Spec("  both, by this topic's paths", "times", "parallel", both(name, "mine"))]
    ordinary = "on any CPU"
    isolated = "on an isolated CPU"
    for cpu, where in ((0, ordinary), (1, isolated)):
        result += [Spec(f"page fault {where}", "instructions", "cost", same(f"fault_{cpu}")),
                   Spec(f"a page written to a file {where}", "instructions", "cost", same(f"write_{cpu}")),
                   Spec(f"mlock() and munlock(), a page, {where}", "instructions", "cost", same(f"mlock_{cpu}"))]
    result += [Spec("kfree_rcu()", "instructions", "cost", same("kfree_rcu", 1e-5))]
    if not demo:
        result += [Spec(f"{path}: CPUs left alone", "%", "parallel", same(f"avoided_{path}"), better="higher")
                   for path in PATHS]
    return result


def front(demo: bool) -> list[Front]:
    return [Front("isolated CPU, 20 drop_caches", "drop_caches, 20 times: sent to an isolated CPU, idle",
                  "page fault", "page fault on any CPU")]


def idle(name: str) -> str:
    return f"{LOADS[name][0]}: sent to an isolated CPU, idle"


SHORT = {name: "  " + what for name, (what, _, _) in LOADS.items()} | {"caches": "  1,000 slab caches, kfree_rcu()"}
TABLES = {
    "interrupts": [
        ("idle", ""), *((SHORT[name], idle(name)) for name in LOADS if name != "oom"),
        ("in user mode, if not 0 in all columns", ""),
        *((SHORT[name], f"{idle(name)} > in user mode")
          for name in ("collapse", "modules", "caches", "stat_refresh", "compact", "overcommit", "shrink")),
    ],
    "cost": [
        ("page fault, ordinary CPU", "page fault on any CPU"),
        ("a page written to a file, ordinary CPU", "a page written to a file on any CPU"),
        ("mlock() and munlock() of a page", "mlock() and munlock(), a page, on any CPU"),
        ("page fault, isolated CPU", "page fault on an isolated CPU"),
        ("a page written to a file, isolated CPU", "a page written to a file on an isolated CPU"),
        ("mlock() and munlock(), isolated CPU", "mlock() and munlock(), a page, on an isolated CPU"),
        ("kfree_rcu()", "kfree_rcu()"),
    ],
}


def plot(figures: list[Figure]) -> Plot:
    series: dict[str, list[tuple[float, float]]] = {}
    mine = [(name, f) for name, (what, _, _) in LOADS.items() for f in figures
            if f.name == f"{what}: sent to an isolated CPU, idle"]
    for number, (_, figure) in enumerate(mine, 1):
        for column, value in figure.values.items():
            if value is not None:
                series.setdefault(column, []).append((number, value + 1))
    return Plot("Times that an idle isolated CPU was disturbed", "load", "times, plus one", series,
                labels=tuple(name.replace("_", " ") for name, _ in mine))
