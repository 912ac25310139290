#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""One-line mutants, all in one kernel, each selected by the boot parameter
mutant=NUMBER; the parameter "reached" of the module offpath_mutant lists those whose
place has been executed since it was written to. An entry of harness/mutants/TOPIC is a paragraph:

  317 pick-ignores-last
  mm/parallel_zap_areas.h zap_areas_pick
  - i == last
  + false
  first: program:parallel_zap -t helpers_stay_on_their_node
  equivalent: reason
  litmus: parallel-zap-join

The number is unique among all topics. The original text is an expression, or
one statement or more, which end with a semicolon; it occurs once in the file,
or in the function that is named after the file. A space matches any white
space. The mutated text of a statement may be empty. The other lines are
optional: tests to run before all others; the reason why the mutant behaves as
the original does, so that it is not run; the file of Documentation/litmus-tests/mm
that proves that the original is needed, which an emulator does not show. Lines
of a '#' are comments.

  mutate.py check TREE    print "ok" or "FAIL" for each topic
  mutate.py list          print topic, number, name, hash, what decides it without
                          a boot or "-", and the first tests, separated by tabs
  mutate.py apply TREE    rewrite the files of the kernel tree TREE
"""

import hashlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LITMUS = HERE.parent.parent / "Documentation/litmus-tests/mm"
TESTS = re.compile(r"(^|/)(tests?|test_\w+|\w+_kunit|Documentation|tools)(/|\.|$)")

SELECTOR = """\
// SPDX-License-Identifier: GPL-2.0
#include <linux/export.h>
#include <linux/init.h>
#include <linux/kstrtox.h>
#include <linux/moduleparam.h>
#include <linux/printk.h>
#include <linux/string.h>

int offpath_mutant __read_mostly;
EXPORT_SYMBOL(offpath_mutant);
module_param_named(mutant, offpath_mutant, int, 0644);

/* Set for each mutant whose place has been reached, with it or without. */
unsigned char offpath_reached[MOST + 1];
EXPORT_SYMBOL(offpath_reached);

static int get_reached(char *buffer, const struct kernel_param *kp)
{
	int i, len = 0;

	for (i = 1; i <= MOST; i++)
		if (offpath_reached[i])
			len += scnprintf(buffer + len, PAGE_SIZE - len, "%d ", i);
	return len + scnprintf(buffer + len, PAGE_SIZE - len, "\\n");
}

static int reset_reached(const char *value, const struct kernel_param *kp)
{
	memset(offpath_reached, 0, sizeof(offpath_reached));
	return 0;
}

static const struct kernel_param_ops reached_ops = {
	.set = reset_reached,
	.get = get_reached,
};
module_param_cb(reached, &reached_ops, NULL, 0644);

static int __init select_mutant(char *arg)
{
	pr_info("offpath: mutant %s\\n", arg);
	return kstrtoint(arg, 10, &offpath_mutant);
}
early_param("mutant", select_mutant);
"""

DECLARATIONS = "extern int offpath_mutant; extern unsigned char offpath_reached[]; "


class MutantError(Exception):
    """An entry that is wrong, or that does not apply: one line."""


@dataclass
class Mutant:
    topic: str
    number: int
    name: str
    file: str
    function: str
    old: str
    new: str
    first: list[str]
    equivalent: str
    litmus: str

    def __str__(self) -> str:
        return f"{self.topic} {self.number} {self.name}"

    @property
    def statement(self) -> bool:
        return self.old.endswith(";")

    @property
    def hash(self) -> str:
        return hashlib.sha256("\n".join((self.file, self.function, self.old, self.new)).encode()).hexdigest()[:16]


@dataclass
class Place:
    start: int
    end: int
    mutant: Mutant


def parse(topic: str, text: str) -> Mutant:
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    try:
        (number, name), (file, *function), old, new = lines[0].split(), lines[1].split(), lines[2], lines[3]
        mutant = Mutant(topic, int(number), name, file, " ".join(function), old[1:].strip(), new[1:].strip(), [], "", "")
    except (ValueError, IndexError):
        raise MutantError(f"{topic}: '{lines[0]}': give number and name, file, '- original', '+ mutated'") from None
    if old[:1] != "-" or new[:1] != "+" or not mutant.old:
        raise MutantError(f"{mutant}: the third line begins with '-', the fourth with '+'")
    for line in lines[4:]:
        key, _, value = line.partition(": ")
        if key == "first":
            mutant.first.append(value)
        elif key == "equivalent":
            mutant.equivalent = value
        elif key == "litmus" and (LITMUS / f"{value}.litmus").exists():
            mutant.litmus = value
        elif key == "litmus":
            raise MutantError(f"{mutant}: there is no {value}.litmus in Documentation/litmus-tests/mm")
        else:
            raise MutantError(f"{mutant}: '{line}': only first:, equivalent: and litmus: may follow")
    if TESTS.search(mutant.file):
        raise MutantError(f"{mutant}: {mutant.file} is a test: mutate the code that it tests")
    if mutant.new and mutant.statement != mutant.new.endswith((";", "}")):
        raise MutantError(f"{mutant}: a statement becomes a statement or nothing, an expression an expression")
    if not mutant.new and not mutant.statement:
        raise MutantError(f"{mutant}: an expression becomes an expression")
    return mutant


def topics() -> list[str]:
    series = (HERE.parent.parent / "patches/series").read_text().splitlines()
    names = [line.partition("#")[0].strip() for line in series]
    return [name for name in names if name and (HERE / name).is_file()]


def load() -> list[Mutant]:
    mutants: list[Mutant] = []
    for topic in topics():
        for text in re.split(r"\n\s*\n", (HERE / topic).read_text()):
            if any(line and not line.startswith("#") for line in text.splitlines()):
                mutants.append(parse(topic, text.strip("\n")))
    seen: dict[int, Mutant] = {}
    for mutant in mutants:
        if mutant.number < 1 or mutant.number in seen:
            raise MutantError(f"{mutant}: {seen.get(mutant.number, 'the unchanged kernel')} has this number")
        seen[mutant.number] = mutant
    return mutants


def find(mutant: Mutant, source: str) -> Place:
    spans, where = [(0, len(source))], mutant.file
    if mutant.function:
        # Both definitions, where there is a stub.
        head = re.compile(rf"^(?=\w)[^;{{}}=]*?\b{re.escape(mutant.function)}\([^;{{}}]*?\)[^;{{}}()]*\n?{{", re.M)
        spans = [(each.start(), source.find("\n}", each.end())) for each in head.finditer(source)]
        where = f"{mutant.function}() of {mutant.file}"
        if not spans:
            raise MutantError(f"{mutant}: there is no {where}")
    pattern = r"\s+".join(re.escape(word) for word in mutant.old.split())
    pattern = (r"(?<!\w)" if mutant.old[0].isidentifier() else "") + pattern
    pattern += r"(?!\w)" if re.match(r"\w", mutant.old[-1]) else ""
    found = [each for start, end in spans for each in re.compile(pattern).finditer(source, start, end)]
    if len(found) != 1:
        raise MutantError(f"{mutant}: '{mutant.old}' occurs {len(found)} times in {where}, not once")
    return Place(found[0].start(), found[0].end(), mutant)


def choose(same: list[Mutant], old: str) -> str:
    def is_on(mutant: Mutant) -> str:
        return f"(offpath_reached[{mutant.number}] = 1, offpath_mutant == {mutant.number})"

    if same[0].statement:
        chosen = "".join(f"if {is_on(each)} {{ {each.new} }} else " for each in same)
        return f"{{ {chosen}{{ {old} }} }}"
    return "(" + "".join(f"{is_on(each)} ? ({each.new}) : " for each in same) + f"({old}))"


def rewrite(source: str, start: int, end: int, places: list[Place]) -> str:
    """SOURCE from START to END, with the mutants of PLACES, which may nest."""
    done, at = "", start
    places = sorted(places, key=lambda place: (place.start, -place.end, place.mutant.number))
    while places:
        outer = places[0]
        same = [each for each in places if (each.start, each.end) == (outer.start, outer.end)]
        inner = [each for each in places[len(same):] if each.start < outer.end]
        for each in inner:
            if each.end > outer.end:
                raise MutantError(f"{each.mutant} and {outer.mutant} overlap: let one contain the other")
        old = rewrite(source, outer.start, outer.end, inner)
        done += source[at:outer.start] + choose([each.mutant for each in same], old)
        at = outer.end
        places = places[len(same) + len(inner):]
    return done + source[at:end]


def mutated(tree: Path, mutants: list[Mutant]) -> tuple[dict[str, str], list[str]]:
    """The rewritten files, and a line for each entry that does not apply."""
    files: dict[str, str] = {}
    wrong: list[str] = []
    for file in sorted({each.file for each in mutants}):
        try:
            source = (tree / file).read_text()
        except FileNotFoundError:
            wrong += [f"{each}: there is no {file}" for each in mutants if each.file == file]
            continue
        places = []
        for each in mutants:
            try:
                if each.file == file:
                    places.append(find(each, source))
            except MutantError as error:
                wrong.append(str(error))
        try:
            # On the first line, so that the others keep their numbers.
            files[file] = DECLARATIONS + rewrite(source, 0, len(source), places)
        except MutantError as error:
            wrong.append(str(error))
    return files, wrong


def apply(tree: Path, mutants: list[Mutant]) -> None:
    files, wrong = mutated(tree, mutants)
    if wrong:
        raise MutantError("; ".join(wrong))
    for file, text in files.items():
        (tree / file).write_text(text)
    (tree / "mm/offpath_mutant.c").write_text(SELECTOR.replace("MOST", str(max(each.number for each in mutants))))
    makefile = tree / "mm/Makefile"
    makefile.write_text(makefile.read_text() + "obj-y += offpath_mutant.o\n")


def check(tree: Path, mutants: list[Mutant]) -> bool:
    _, wrong = mutated(tree, mutants)
    for topic in topics():
        mine = [line for line in wrong if line.startswith(f"{topic} ")]
        for line in mine:
            print(f"FAIL {line}")
        if not mine:
            print(f"ok {topic}: {sum(each.topic == topic for each in mutants)} mutants apply")
    return not wrong


def main(argv: list[str]) -> int:
    try:
        match argv:
            case ["check", tree]:
                return 0 if check(Path(tree), load()) else 1
            case ["list"]:
                for each in load():
                    decided = "equivalent" if each.equivalent else f"killed by litmus {each.litmus}" if each.litmus else "-"
                    print(each.topic, each.number, each.name, each.hash, decided, *each.first, sep="\t")
            case ["apply", tree]:
                apply(Path(tree), load())
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except MutantError as error:
        print(f"FAIL {error}" if argv[0] == "check" else f"offpath: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
