# SPDX-License-Identifier: GPL-2.0
"""make bench: every figure of the topics, stock against patched against off."""

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
        if hasattr(module, "native") and "patched" in columns and not args.demo and (
                not args.jobs or "native" in args.jobs.split(",")):
            bench.run_native()
        figures = bench.figures(module.specs(args.demo))
        bench.save(figures)
        print(f"\n{topic}: {module.WAIT}\n")
        print(common.table(common.rows(topic, figures)))
        for note in bench.notes:
            print(f"  failed: {note}")
        print(f"\nbuild/bench/{topic}.json; what the guests printed: build/bench/{topic}/raw/\n", flush=True)
    return 0


def sweep(topic: str, module: object) -> None:
    if not hasattr(module, "sweep_jobs"):
        common.say(f"        {topic}: has no sweep")
        return
    bench = common.Bench(topic, module, ("patched",), raw="raw-sweep")
    jobs = module.sweep_jobs()
    bench.prepare(jobs)
    bench.run(jobs)
    text = module.sweep_table(bench.results["patched"])
    (bench.build / "sweep.txt").write_text(text + "\n")
    print(text)
    for note in bench.notes:
        print(f"  failed: {note}")


if __name__ == "__main__":
    sys.exit(main())
