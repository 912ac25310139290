# SPDX-License-Identifier: GPL-2.0
"""Text that is generated from bench/results/*.json.

README.md, the pages of the topics in Documentation and the cover letters have
tables between a line "results: NAME" and a line "results end"; in README.md and
the pages these are comments, in a cover they begin with "# ", and harness/series
leaves them out. NAME is "front" or "slow" (README), "setup", "sweep", or one of
the topic's TABLES, in README.md as TOPIC/NAME. bench/results/README.md is generated
as a whole.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from os.path import commonprefix
from pathlib import Path
from types import ModuleType

import common
from common import COLUMNS, RESULTS, ROOT, Record

MARK = re.compile(r"^(# |<!-- |\.\. )results: (\S+?)( -->)?$")
END = ("# results end", "<!-- results end -->", ".. results end")
PAGES = ROOT / "Documentation/admin-guide/mm"
WIDTH = 75		# of a cover letter
REMEDY = "run 'make results'; the results themselves come from 'make bench TOPIC='"


class TableError(Exception):
    """Where a table cannot be generated, and why: one line."""


def records() -> dict[str, tuple[ModuleType, Record]]:
    found = {}
    for topic in common.topics():
        path = RESULTS / f"{topic}.json"
        module = common.load(topic) if path.exists() else None
        if module:
            try:
                found[topic] = (module, Record.load(path))
            except (KeyError, TypeError, ValueError) as error:
                raise TableError(f"{path.relative_to(ROOT)}: not what make bench writes ({error!r}): "
                                 f"make bench TOPIC={topic}") from None
    return found


def aligned(lines: list[list[str]]) -> str:
    """A table for mail; a line of one cell is a heading, without a say in the widths."""
    rows = [line for line in lines if len(line) > 1]
    width = [max(len(line[i]) for line in rows) for i in range(len(rows[0]))]
    return "\n".join("  " + "  ".join([line[0].ljust(width[0]) if len(line) > 1 else line[0],
                                       *(c.rjust(w) for c, w in zip(line[1:], width[1:]))]).rstrip() for line in lines)


def cover_table(record: Record, name: str, wanted: list[tuple[str, str]]) -> str:
    found = record.by_key()
    lines = [["", *COLUMNS, "spread"]]
    for label, key in wanted:
        if key and key not in found:
            raise TableError(f"bench/{record.topic}/topic.py: TABLES[{name!r}] names '{key}', which is no row of "
                             f"bench/results/{record.topic}.json")
        if key:
            figure = found[key]
            spread = max(figure.spread(c) or 0 for c in COLUMNS)
            lines.append([label, *(common.number(figure.value(c)) for c in COLUMNS), f"±{100 * spread:.0f}%" if spread else ""])
        else:
            lines.append([label])
    if not any(line[-1].startswith("±") for line in lines):
        lines = [line[:4] for line in lines]
    text = aligned(lines)
    if any(cell == "-" for line in lines for cell in line):
        text += "\n  (-: no value in this column)"
    wide = [line for line in text.splitlines() if len(line) > WIDTH]
    if wide:
        raise TableError(f"bench/{record.topic}/topic.py: TABLES[{name!r}] is wider than {WIDTH} columns: {wide[0].strip()}")
    return text


def setup_text(many: list[Record]) -> str:
    setup: dict[str, list[str]] = {}
    boots = set()
    for record in many:
        for key, values in record.setup.items():
            setup[key] = setup.get(key, []) + [v for v in values if v not in setup.get(key, [])]
        boots |= {len(runs) for f in record.figures if f.mode != "cost" for runs in f.runs.values() if len(runs) > 1}
    text = common.in_words(setup) + "."
    if boots:
        count = f"{min(boots)} to {max(boots)}" if len(boots) > 1 else str(max(boots))
        text += f" Values with a spread are medians of {count} interleaved boots; the spread is half of their range."
    return text


def text_of(name: str, topic: str, known: dict[str, tuple[ModuleType, Record]]) -> str:
    if not topic and "/" in name:
        return "```\n" + text_of(name.partition("/")[2], name.partition("/")[0], known) + "\n```"
    if not topic:
        if name == "front":
            lines = [line for module, record in known.values() for line in common.front_rows(record, module.front(False))]
            return common.markdown(lines, common.FRONT_HEAD)
        if name == "setup":
            return textwrap.fill(setup_text([record for _, record in known.values()]), 79)
        if name == "slow":
            return "```\n" + (RESULTS / "slow.txt").read_text() + "```"
        raise TableError(f"no table '{name}': README.md has front, setup, slow and TOPIC/NAME")
    if topic not in known:
        raise TableError(f"bench/results/{topic}.json is missing: make bench TOPIC={topic}")
    module, record = known[topic]
    if name == "setup":
        return textwrap.fill(setup_text([record]), WIDTH - 3)
    if name == "sweep" and record.sweep:
        cells = [record.sweep["head"], *([common.number(v) for v in line] for line in record.sweep["lines"])]
        return "\n".join([str(record.sweep["about"]), "", aligned(cells)])
    if name in module.TABLES:
        return cover_table(record, name, module.TABLES[name])
    raise TableError(f"no table '{name}': bench/{topic}/topic.py has {', '.join(['setup', *module.TABLES])}")


def filled(path: Path, topic: str, known: dict[str, tuple[ModuleType, Record]]) -> str:
    """The file with the text between its marks as it should be."""
    result: list[str] = []
    inside = 0
    for number, line in enumerate(path.read_text().splitlines(), 1):
        mark = MARK.match(line)
        if mark and not inside:
            inside = number
            try:
                body = text_of(mark[2], topic, known)
            except TableError as error:
                raise TableError(f"{path.relative_to(ROOT)}:{number}: {error}") from None
            # Markdown and reST want empty lines around what is between comments.
            around = [""] if mark[1] != "# " else []
            if mark[1] == ".. " and body.startswith("  "):
                around = ["", "::", ""]
            result += [line, *around, *body.splitlines(), *around[:1]]
        elif line in END and inside:
            inside = 0
            result.append(line)
        elif mark or line in END:
            raise TableError(f"{path.relative_to(ROOT)}:{number}: '{line}' has no counterpart")
        elif not inside:
            result.append(line)
    if inside:
        raise TableError(f"{path.relative_to(ROOT)}:{inside}: there is no line 'results end' below")
    return "\n".join(result) + "\n"


def long_table(known: dict[str, tuple[ModuleType, Record]]) -> str:
    parts = ["<!-- Generated from the files beside it by make results. -->", "# Results", "", textwrap.dedent("""\
        *base* is Linux without the series, *disabled* the patched kernel with its
        tunables at what upstream does, *enabled* the patched kernel. *cost* counts
        instructions, *parallel* and *slow* (more CPUs than the host has, equally slow)
        are wall clocks, of which only ratios mean something;
        see [what that can tell](../../README.md#how-the-results-are-measured). ± is
        half of the range of several boots. A dash: there is no value in this column,
        because it was not measured or does not exist there.""")]
    for topic, (module, record) in known.items():
        setup = {k: ", ".join(v) for k, v in record.setup.items()}
        parts += ["", f"## {topic}", "", textwrap.fill(module.WAIT[0].upper() + module.WAIT[1:] + ". " +
                                                      setup_text([record]), 79), "",
                  f"Base {setup.get('base')}; series at {setup.get('series')}; {setup.get('compiler')}; "
                  f"accelerator {setup.get('accel')}.", "", f"![{topic}]({topic}.svg)", ""]
        lines = [line[1:] for line in common.rows(topic, record.figures)]
        # Blanks at the start of a cell are lost in Markdown.
        lines = [[re.sub(r"^ +", lambda m: "&nbsp;" * len(m[0]), line[0]), *line[1:]] for line in lines]
        parts.append(common.markdown(lines, common.HEAD[1:]))
        if record.sweep:
            about = " ".join(str(record.sweep["about"]).split())
            cells = [[common.number(v) for v in line] for line in record.sweep["lines"]]
            parts += ["", about + " Series at " + ", ".join(record.sweep["setup"]["series"]) + ".", "",
                      common.markdown(cells, record.sweep["head"])]
        parts += [f"\nfailed: {note}" for note in record.failed]
    return "\n".join(parts) + "\n"


def generated() -> dict[Path, str]:
    """Each file with text from results, as it should be."""
    known = records()
    files = {RESULTS / f"{topic}.json": record.text() for topic, (_, record) in known.items()}
    files[RESULTS / "README.md"] = long_table(known)
    files[ROOT / "README.md"] = filled(ROOT / "README.md", "", known)
    for topic in common.topics():
        for path in (ROOT / "patches" / topic / "cover", PAGES / f"{topic.replace('-', '_')}.rst"):
            if path.exists():
                files[path] = filled(path, topic, known)
    return files


def differences() -> list[str]:
    """File, line and remedy for each place that differs."""
    try:
        files = generated()
    except TableError as error:
        return [str(error)]
    found = []
    for path, text in files.items():
        have, want = path.read_text().splitlines() if path.exists() else [], text.splitlines()
        for kind, a, b, c, d in difflib.SequenceMatcher(None, have, want, autojunk=False).get_opcodes():
            if kind != "equal":
                is_now, wanted = cut("".join(have[a:a + 1][:b - a]), "".join(want[c:c + 1][:d - c]))
                found.append(f"{path.relative_to(ROOT)}:{a + 1}: is '{is_now}', but the results give '{wanted}': {REMEDY}")
    return found


def cut(one: str, other: str) -> tuple[str, str]:
    """A line each, from a little before the place where they differ."""
    same = len(commonprefix([one, other]))
    start = max(0, same - 40) if len(one) > 120 else 0
    return one[start:start + 120].strip(), other[start:start + 120].strip()
