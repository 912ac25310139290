#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The data races that a guest's console reports, less those of upstream's code.

  kcsan.py CONSOLE KERNEL   CONSOLE is the console.log of a guest, KERNEL the
                            folder of its kernel in build/kernel/

A race belongs to a topic if a function on one of its two stacks, or a function
inlined there, executes a line that a commit of this topic adds: git blame of
the kernel's source tree tells. Prints a line for each such race in the form of
harness/soak-findings, with "known" before the races that are listed there.
Exits 1 if one is not listed. ALL=1 ignores the list.
"""

import os
import re
import subprocess
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

FINDINGS = Path(__file__).resolve().parent / "soak-findings"

BEGIN = re.compile(r"BUG: KCSAN: (\S+) in (.+)$")
END = re.compile(r"Reported by Kernel Concurrency Sanitizer")
FRAME = re.compile(r"\s([\w.]+)\+0x([0-9a-f]+)/0x([0-9a-f]+)$")

Frame = tuple[str, int, int]		# function, offset, size


@dataclass
class Race:
    kind: str
    functions: str
    stack: list[Frame] = field(default_factory=list)


def races(console: Path) -> list[Race]:
    found: list[Race] = []
    inside = False
    for text in console.read_text(errors="replace").splitlines():
        text = text.rstrip()
        if begin := BEGIN.search(text):
            names = (re.sub(r"[+ ].*", "", name) for name in begin[2].split(" / "))
            found.append(Race(begin[1], "/".join(names)))
            inside = True
        elif END.search(text):
            inside = False
        elif inside and (frame := FRAME.search(text)):
            found[-1].stack.append((frame[1], int(frame[2], 16), int(frame[3], 16)))
    return found


def run(*command: str, **kwargs) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, **kwargs).stdout


class Source:
    """The lines behind a kernel's addresses, and the topics that add them."""

    def __init__(self, kernel: Path) -> None:
        self.vmlinux = kernel / "vmlinux"
        self.tree = kernel.parent
        self.touched = set(self.git("diff", "--name-only", "base").split())
        log = self.git("log", "--format=%H %(trailers:key=Topic,valueonly,separator=)", "base..HEAD")
        self.topics = dict(text.split() for text in log.splitlines())
        self.topics["0" * 40] = "uncommitted"

    def git(self, *args: str) -> str:
        return run("git", *args, cwd=self.tree)

    @cache
    def blame(self, name: str) -> list[str]:
        """The topic of each line, "" for those of the base."""
        return [self.topics.get(text.split()[0], "") for text in self.git("blame", "-s", "-l", "--", name).splitlines()]

    def symbols(self) -> dict[str, list[tuple[int, int]]]:
        """Addresses and sizes by name: a static function's is not unique."""
        texts = [text.split() for text in run("nm", "-n", str(self.vmlinux)).splitlines()]
        texts = [each for each in texts if len(each) == 3 and each[1] in "tTwW"]
        result: dict[str, list[tuple[int, int]]] = defaultdict(list)
        starts = list(dict.fromkeys(int(each[0], 16) for each in texts))
        after = dict(zip(starts, starts[1:]))
        for start, _, name in texts:
            address = int(start, 16)
            result[name].append((address, after.get(address, address) - address))
        return result

    def lines(self, frames: set[Frame]) -> dict[Frame, list[tuple[str, int]]]:
        """File and line of each frame, and of the functions inlined there."""
        symbols, wanted = self.symbols(), defaultdict(list)
        for frame in frames:
            name, offset, size = frame
            same = symbols.get(name, [])
            for start, _ in [each for each in same if each[1] == size] or same:
                # A return address: the call is before it.
                wanted[start + offset - 1].append(frame)
        out = run("addr2line", "-a", "-i", "-e", str(self.vmlinux), input="".join(f"{each:#x}\n" for each in wanted))
        result: dict[Frame, list[tuple[str, int]]] = defaultdict(list)
        at: list[Frame] = []
        for text in out.splitlines():
            if text.startswith("0x"):
                at = wanted[int(text, 16)]
            elif place := re.match(r"(.+):(\d+)", text):
                # ccache: the object may come from another tree's build.
                name = re.sub(r"^.*/o-\w+/", "", os.path.normpath(re.sub(r"(.*/o-\w+)/\.\./", r"\1/", place[1])))
                for frame in at:
                    result[frame].append((name, int(place[2])))
        return result


def ours(found: list[Race], kernel: Path) -> dict[str, str]:
    """What harness/soak-findings would say of each race, and where it is."""
    source = Source(kernel)
    lines = source.lines({frame for race in found for frame in race.stack})
    result: dict[str, str] = {}
    for race in found:
        for name, number in (place for frame in race.stack for place in lines.get(frame, [])):
            if name in source.touched and (topic := source.blame(name)[number - 1]):
                result.setdefault(f"kcsan {topic} {race.functions}", f"{race.kind}, {name}:{number}")
                break
    return result


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    console, kernel = Path(argv[0]), Path(argv[1]).resolve()
    for path in (console, kernel / "vmlinux"):
        if not path.is_file():
            print(f"offpath: no such file: {path}", file=sys.stderr)
            return 2
    listed: set[str] = set()
    if FINDINGS.exists() and not os.environ.get("ALL"):
        listed = {" ".join(re.sub(r"#.*", "", text).split()) for text in FINDINGS.read_text().splitlines()}
    found = races(console)
    mine = ours(found, kernel) if found else {}
    for finding, where in mine.items():
        print(f"{'known ' if finding in listed else ''}{finding}  # {where}")
    print(f"{len(found)} reports, {len(mine)} races of the series, {len(mine.keys() - listed)} not listed")
    return 1 if mine.keys() - listed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
