# SPDX-License-Identifier: GPL-2.0
"""make bench: all results of the topics: base, disabled and enabled."""

from __future__ import annotations

import argparse
import sys

import common


def main() -> int:
    parser = argparse.ArgumentParser(prog="harness/bench")
    parser.add_argument("topic", nargs="?", help="one topic in place of all")
    parser.add_argument("--only", metavar="COLUMN,...", default=",".join(common.COLUMNS),
                        help="leave out the other columns")
    parser.add_argument("--demo", action="store_true", help="the short form that make run shows")
    parser.add_argument("--sweep", action="store_true", help="the topic's sweep over a knob, alone")
    parser.add_argument("--jobs", metavar="NAME,...", help="of the topic's guest scripts, only these; other rows stay")
    args = parser.parse_args()
    columns = tuple(args.only.split(","))
    if not set(columns) <= set(common.COLUMNS):
        parser.error(f"the columns are {', '.join(common.COLUMNS)}")

    for topic in [args.topic] if args.topic else common.topics():
        module = common.load(topic)
        if not module:
            continue
        if args.sweep:
            sweep(topic, module)
            continue
        bench = common.Bench(topic, module, columns)
        jobs = module.jobs(args.demo)
        if args.jobs:
            jobs = [j for j in jobs if j.name in args.jobs.split(",")]
        bench.prepare(jobs, again=bool(args.jobs))
        bench.run(jobs)
        booted = not bench.notes
        if hasattr(module, "native") and "enabled" in columns and not args.demo and (
                not args.jobs or "native" in args.jobs.split(",")):
            bench.run_native()
        specs = module.specs(args.demo)
        record = bench.record(specs)
        (bench.build.parent / f"{topic}.json").write_text(record.text())
        print(f"\n{topic}: {module.WAIT}\n")
        print(common.table(common.rows(topic, record.figures)))
        for note in bench.notes:
            print(f"  failed: {note}")
        print(f"\nbuild/bench/{topic}.json; what the guests printed: build/bench/{topic}/raw/")
        rows = [f for f in record.figures if f.mode != "native"]
        complete = (columns == common.COLUMNS and not args.demo and len(rows) == len([s for s in specs if s.mode != "native"])
                    and all("enabled" in f.runs for f in rows))
        if complete and booted:
            replace(record)
        else:
            print(f"bench/results/{topic}.json stays: " + ("not all was measured" if booted else "a guest failed"))
        print(flush=True)
    return 0


def replace(record: common.Record) -> None:
    """bench/results/TOPIC.json; its sweep stays."""
    path = common.RESULTS / f"{record.topic}.json"
    if path.exists():
        record.sweep = common.Record.load(path).sweep
    path.write_text(record.text())
    print(f"{path.relative_to(common.ROOT)} is replaced: make results brings README and the covers up to date")


def sweep(topic: str, module: object) -> None:
    if not hasattr(module, "sweep_jobs"):
        common.say(f"        {topic}: has no sweep")
        return
    bench = common.Bench(topic, module, ("enabled",), raw="raw-sweep")
    jobs = module.sweep_jobs()
    bench.prepare(jobs)
    bench.run(jobs)
    found = module.sweep(bench.results["enabled"]) | {"setup": bench.setup}
    print(common.sweep_table(found))
    for note in bench.notes:
        print(f"  failed: {note}")
    path = common.RESULTS / f"{topic}.json"
    if path.exists() and not bench.notes:
        record = common.Record.load(path)
        record.sweep = found
        path.write_text(record.text())
        print(f"the sweep of {path.relative_to(common.ROOT)} is replaced: make results brings the cover up to date")


if __name__ == "__main__":
    sys.exit(main())
