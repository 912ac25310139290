# SPDX-License-Identifier: GPL-2.0
"""make run: each topic's demonstration, as a table and a page to open."""

from __future__ import annotations

import html
import json
import sys

import common
from common import COLUMNS, Figure
from picture import draw

REPORT = common.BUILD / "report"
STYLE = """
:root { color-scheme: light dark; --fg: #1c2126; --soft: #5c6670; --bg: #fcfcfb; --line: #dde1e4;
        --good: #137a6c; --bad: #b3363f; --card: #fff; }
@media (prefers-color-scheme: dark) {
  :root { --fg: #e4e7e9; --soft: #98a2ab; --bg: #14171a; --line: #2c3238; --good: #4fc3b0; --bad: #ef7a83; --card: #1a1e22; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.25rem 4rem; color: var(--fg); background: var(--bg);
       font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .2rem; }
p { margin: .2rem 0 1rem; color: var(--soft); max-width: 46rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .6rem; background: var(--card); }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { padding: .5rem .8rem; text-align: left; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.soft, small { color: var(--soft); } .good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
figure { margin: 1.2rem 0 0; } svg { width: 100%; max-width: 44rem; height: auto; color: var(--fg); }
.failed { color: var(--bad); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; font-size: .92rem; color: var(--soft); }
dt { font-weight: 600; } dd { margin: 0; }
"""


def cell(text: str, kind: str = "") -> str:
    return f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{html.escape(text)}</td>"


def html_table(figures: list[Figure], lines: list[list[str]]) -> str:
    text = ["<div class=wide><table><tr><th>result</th>"]
    text += [f'<th class="n">{c}</th>' for c in common.HEAD[2:-2]]
    text.append("<th>unit</th><th>mode</th></tr>")
    for f, line in zip(figures, lines):
        verdict = []
        for column in COLUMNS[1:]:
            r = f.ratio(column)
            better = r is not None and (r < 0.97 if f.better == "lower" else r > 1.03)
            worse = r is not None and (r > 1.03 if f.better == "lower" else r < 0.97)
            verdict.append("n good" if better else "n bad" if worse else "n")
        text.append("<tr>" + cell(line[1]) + "".join(cell(c, "n") for c in line[2:5]) +
                    cell(line[5], verdict[0]) + cell(line[6], verdict[1]) +
                    cell(line[7], "soft") + cell(line[8], "soft") + "</tr>")
    return "".join(text) + "</table></div>"


def page(parts: list[str], about: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>offpath: base, disabled, enabled</title><style>{STYLE}</style></head><body>
<h1>offpath: base, disabled, enabled</h1>
<p>The same kernel configuration, guest image and command. <b>base</b>: Linux without the series; <b>disabled</b>:
the patched kernel with its knobs at what upstream does; <b>enabled</b>: the patched kernel. A ratio below 1 is less than base.</p>
<dl><dt>cost</dt><dd>one emulated CPU whose clock counts instructions: what it costs, the same on every host</dd>
<dt>parallel</dt><dd>two CPUs and wall-clock time, the median of interleaved boots with half their range: only the ratios mean something</dd></dl>
{"".join(parts)}
<h2>Measured with</h2><dl>{about}</dl>
</body></html>
"""


def describe(setup: dict[str, list[str]]) -> str:
    return "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(', '.join(values))}</dd>" for key, values in setup.items())


def main(args: list[str]) -> int:
    REPORT.mkdir(parents=True, exist_ok=True)
    front: list[list[str]] = []
    parts: list[str] = []
    notes: list[str] = []
    records = []
    for topic in args[:1] or common.topics():
        module = common.load(topic)
        if not module:
            continue
        bench = common.Bench(topic, module, COLUMNS, raw="raw-run")
        jobs = module.jobs(True)
        bench.prepare(jobs)
        bench.run(jobs)
        record = bench.record(module.specs(True))
        figures = record.figures
        front += common.front_rows(record, module.front(True))
        notes += bench.notes
        drawing = draw(module.plot(figures)) if hasattr(module, "plot") else ""
        parts.append(f"<h2>{html.escape(topic)}</h2><p>{html.escape(module.WAIT)}</p>" +
                     html_table(figures, common.rows(topic, figures)) +
                     "".join(f"<p class=failed>failed: {html.escape(n)}</p>" for n in bench.notes) +
                     (f"<figure><figcaption>{html.escape(module.plot(figures).title)}</figcaption>{drawing}</figure>"
                      if drawing else ""))
        records.append(record.as_json())
        # Written after each topic: a run that is stopped leaves what it has.
        (REPORT / "run.json").write_text(json.dumps(records, indent=1) + "\n")
        (REPORT / "index.html").write_text(page(parts, describe(record.setup)))
    if not records:
        print("no topic has a demonstration yet")
        return 0
    print("\n" + common.table(front, common.FRONT_HEAD))
    for note in notes:
        print(f"  failed: {note}")
    print("\ncost: instructions, on one emulated CPU; parallel: two CPUs, median of boots, only ratios count")
    print(f"all results: {(REPORT / 'index.html').relative_to(common.ROOT)}")
    # A demonstration that could not run is a failure; its results never are.
    return 1 if notes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
