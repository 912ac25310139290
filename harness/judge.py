#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Verdicts from what harness/guest-tests printed, a line a test:
pass, fail or skip, a tab, what ran, a tab, the test's name.

  judge.py verdicts LOG            the verdicts of one run
  judge.py keep LOG...             of several runs of one kernel: "varies" where
                                   they disagree; the form of harness/expected/
  judge.py against EXPECTED LOG    the verdicts, judged by the kept ones: a test
                                   that does worse, or is gone, fails; one that
                                   cannot pass on the stock kernel is a skip
  judge.py differ LOG LOG          the tests on which two runs differ
"""

import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

KUNIT = Path(__file__).resolve().parent.parent / "build/stock/tools/testing/kunit"
RANK = {"fail": 0, "varies": 0, "skip": 1, "pass": 2}

BEGIN = re.compile(r"@ begin (\S+)$")
END = re.compile(r"@ end (\S+) (\d+) ")
VERSION = re.compile(r"((?:# | {2})*)K?TAP version \d+$")
PLAN = re.compile(r"((?:# | {2})*)1\.\.(\d+)(.*)$")
RESULT = re.compile(r"((?:# | {2})*)(ok|not ok) (\d+) ?-? ?(.*)$")
# What a test has counted is no part of its name.
MEASURED = re.compile(r" Extra pages \d.*")
# Some of upstream's tests print no TAP of their own within run_vmtests.sh.
PROSE = re.compile(r"# Testing (.+)\.\.\. (done|skipped|failed)\b")

Key = tuple[str, str]
Verdicts = dict[Key, str]


@dataclass
class Level:
    """One nesting depth of a KTAP stream, since its last version line."""
    planned: int | None = None
    seen: int = 0


@dataclass
class Section:
    """What one test command printed."""
    name: str
    lines: list[str] = field(default_factory=list)
    status: int | None = None
    verdicts: Verdicts = field(default_factory=dict)

    def add(self, path: str, verdict: str) -> None:
        path = re.sub(r"0x[0-9a-f]{6,}", "0x…", path)
        key, again = (self.name, path), 1
        while key in self.verdicts:
            again += 1
            key = (self.name, f"{path} ({again})")
        self.verdicts[key] = verdict

    def ktap(self) -> None:
        """Nested KTAP: results come before the one that sums them up."""
        levels: dict[int, Level] = {}
        waiting: list[tuple[int, str, str]] = []	# depth, path, verdict

        def close(depth: int) -> None:
            for each in [each for each in levels if each > depth]:
                level = levels.pop(each)
                if level.planned is not None and level.seen < level.planned:
                    waiting.append((each, f"printed fewer results than the {level.planned} planned", "fail"))

        for text in self.lines:
            if found := VERSION.match(text):
                close(len(found[1]) - 1)
                levels[len(found[1])] = Level()
            elif found := PLAN.match(text):
                depth = len(found[1])
                levels.setdefault(depth, Level()).planned = int(found[2])
                if "SKIP" in found[3].upper():
                    waiting.append((depth + 1, "all", "skip"))
            elif found := RESULT.match(text):
                depth = len(found[1])
                close(depth)
                levels.setdefault(depth, Level()).seen += 1
                name, verdict = self.result(found[2] == "ok", found[3], found[4])
                # Those that waited for their parent have found it.
                waiting = [each if each[0] <= depth else (depth, f"{name}: {each[1]}", each[2]) for each in waiting]
                waiting.append((depth, name, verdict))
            elif found := PROSE.match(text):
                waiting.append((3, found[1], {"done": "pass", "skipped": "skip", "failed": "fail"}[found[2]]))
        close(-1)
        for _, path, verdict in waiting:
            self.add(path, verdict)

    @staticmethod
    def result(good: bool, number: str, text: str) -> tuple[str, str]:
        name, _, directive = text.partition("# ")
        word = directive.split()[0].upper() if directive.split() else ""
        if word in ("SKIP", "XFAIL", "TODO"):
            verdict = "skip" if word == "SKIP" else "pass"
        else:
            verdict = "pass" if good else "fail"
        return MEASURED.sub("", name).strip() or f"test {number}", verdict

    def kunit(self) -> None:
        """KUnit's output, by KUnit's own parser."""
        sys.path.insert(0, str(KUNIT))
        import kunit_parser
        from kunit_printer import Printer
        status = kunit_parser.TestStatus

        def walk(test: "kunit_parser.Test", path: str) -> None:
            if test.subtests:
                for each in test.subtests:
                    walk(each, f"{path}: {each.name}" if path else each.name)
            if path:
                self.add(path, {status.SUCCESS: "pass", status.SKIPPED: "skip"}.get(test.status, "fail"))

        whole = kunit_parser.parse_run_tests(iter(self.lines), Printer(print=False))
        if whole.subtests:
            walk(whole, "")

    def judge(self) -> None:
        if self.name.startswith("kunit:"):
            self.kunit()
        else:
            self.ktap()
        if self.status is None:
            self.add("did not end", "fail")
        elif not self.verdicts:
            self.add("printed no result", "fail")
        elif self.status not in (0, 4) and "fail" not in self.verdicts.values():
            self.add(f"exit status {self.status}", "fail")


def verdicts(log: str) -> Verdicts:
    sections: list[Section] = []
    for text in Path(log).read_text(errors="replace").splitlines():
        text = text.rstrip()
        if found := BEGIN.match(text):
            sections.append(Section(found[1]))
        elif (found := END.match(text)) and sections:
            sections[-1].status = int(found[2])
        elif sections and sections[-1].status is None:
            sections[-1].lines.append(text)
    result: Verdicts = {}
    for section in sections:
        section.judge()
        result.update(section.verdicts)
    return result


def kept(path: str) -> Verdicts:
    lines = [text for text in Path(path).read_text().splitlines() if text and not text.startswith("#")]
    return {(what, name): verdict for verdict, what, name in (text.split("\t") for text in lines)}


def show(found: Verdicts) -> bool:
    for (what, name), verdict in found.items():
        print(verdict, what, name, sep="\t")
    return bool(found) and "fail" not in found.values()


def keep(logs: list[str]) -> Verdicts:
    runs = [verdicts(log) for log in logs]
    result: Verdicts = {}
    for key in dict.fromkeys(key for run in runs for key in run):
        seen = {run.get(key, "gone") for run in runs}
        result[key] = seen.pop() if len(seen) == 1 else "varies"
    return result


def against(expected: Verdicts, found: Verdicts) -> Verdicts:
    ran = {what for what, _ in found}
    result: Verdicts = {}
    for key in [*found, *(key for key in expected if key not in found)]:
        what, name = key
        was, now = expected.get(key), found.get(key)
        if now is None:
            # What was not asked for this time, or comes and goes, is not missed.
            if what in ran and was == "pass":
                result[what, f"{name} (no result; passes on the stock kernel)"] = "fail"
        elif was is not None and RANK[now] < RANK[was]:
            result[what, f"{name} ({now}; {was} on the stock kernel)"] = "fail"
        elif was in ("fail", "varies") and now == "fail":
            result[what, f"{name} (fails on the stock kernel too)"] = "skip"
        else:
            result[key] = now
    return result


def main(argv: list[str]) -> int:
    match argv:
        case ["verdicts", log]:
            return 0 if show(verdicts(log)) else 1
        case ["keep", *logs] if logs:
            show(keep(logs))
            return 0
        case ["against", expected, log]:
            return 0 if show(against(kept(expected), verdicts(log))) else 1
        case ["differ", one, other]:
            first, second = verdicts(one), verdicts(other)
            for key in dict.fromkeys([*first, *second]):
                if first.get(key) != second.get(key):
                    print(first.get(key, "gone"), second.get(key, "gone"), *key, sep="\t")
            return 0
        case _:
            print(__doc__, file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
