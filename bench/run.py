# SPDX-License-Identifier: GPL-2.0
"""make run: each topic's demonstration, as a table and a page to open."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import common
from common import COLUMNS, Figure, Plot

REPORT = common.BUILD / "report"
# Colours that both a light and a dark page carry, told apart without colour
# by their marks too.
COLOURS = {"stock": ("#d1495b", 7), "patched": ("#2a9d8f", 5), "off": ("#8d80c9", 9)}

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


def draw(plot: Plot) -> str:
    """The plot as SVG that takes the page's colour for text and axes."""
    if not any(plot.series.values()):
        return ""
    lines = ["set terminal svg size 720,400 dynamic background rgb 'white' font 'system-ui,sans-serif,13'",
             f'set xlabel "{plot.xlabel}"', f'set ylabel "{plot.ylabel}"', "set key top left reverse Left",
             "set border 3 lw 0.8", "set tics nomirror", 'set grid ytics lw 0.4 dt 3', f"set format '{'%.0s%c' if plot.log else '%g'}'"]
    lines += [f"set logscale {'y' if plot.labels else 'xy'}"] if plot.log else []
    if plot.labels:
        tics = ", ".join(f'"{label}" {x}' for x, label in enumerate(plot.labels, 1))
        lines += [f"set xtics rotate by 30 right ({tics})", f"set xrange [0.4:{len(plot.labels) + 0.6}]",
                  "set style fill solid", "set boxwidth 0.22", "set key top right"]
    parts, data = [], []
    for column, points in plot.series.items():
        colour, mark = COLOURS[column]
        name = "off (patched, knobs off)" if column == "off" else column
        place = f"(${1}+{0.24 * (len(parts) - 1):.2f}):2 with boxes" if plot.labels else \
            f"1:2 with linespoints lw 2 pt {mark} ps 0.8"
        parts.append(f"'-' using {place} lc rgb '{colour}' title '{name}'")
        data += [f"{x} {y}" for x, y in points] + ["e"]
    lines += ["plot " + ", ".join(parts)] + data
    done = subprocess.run(["gnuplot"], input="\n".join(lines), capture_output=True, text=True, check=False)
    start = done.stdout.find("<svg")
    if done.returncode or start < 0:
        common.say(f"        plot '{plot.title}': {done.stderr.strip()[:200]}")
        return ""
    svg = done.stdout[start:]
    # The page is the background; black is the page's text, grey too.
    svg = re.sub(r'<rect x="0" y="0"[^>]*fill="[^"]*"/>', "", svg)
    svg = re.sub(r'<polygon[^>]*fill="?rgb\(255, ?255, ?255\)[^>]*/>|<g[^>]*>\s*<polygon fill="#ffffff"[^>]*/>\s*</g>', "", svg)
    svg = re.sub(r"rgb\( *0, *0, *0\)|rgb\(128, *128, *128\)|\bblack\b|\bgr[ae]y\b", "currentColor", svg)
    # Several drawings on one page must not share the names of their parts.
    prefix = re.sub(r"\W+", "-", plot.title.lower())
    svg = re.sub(r'id=([\'"])gp', rf"id=\g<1>{prefix}-gp", svg)
    svg = re.sub(r'href=([\'"])#gp', rf"href=\g<1>#{prefix}-gp", svg)
    return svg


def cell(text: str, kind: str = "") -> str:
    return f"<td{f' class={chr(34)}{kind}{chr(34)}' if kind else ''}>{html.escape(text)}</td>"


def html_table(figures: list[Figure], lines: list[list[str]]) -> str:
    text = ["<div class=wide><table><tr><th>what</th>"]
    text += [f'<th class="n">{c}</th>' for c in (*COLUMNS, "patched/stock", "off/stock")]
    text.append("<th>unit</th><th>mode</th></tr>")
    for f, line in zip(figures, lines):
        verdict = {}
        for column in ("patched", "off"):
            r = f.ratio(column)
            better = r is not None and (r < 0.97 if f.better == "lower" else r > 1.03)
            worse = r is not None and (r > 1.03 if f.better == "lower" else r < 0.97)
            verdict[column] = "n good" if better else "n bad" if worse else "n"
        text.append("<tr>" + cell(line[1]) + "".join(cell(c, "n") for c in line[2:5]) +
                    cell(line[5], verdict["patched"]) + cell(line[6], verdict["off"]) +
                    cell(line[7], "soft") + cell(line[8], "soft") + "</tr>")
    return "".join(text) + "</table></div>"


def page(parts: list[str], about: str) -> str:
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>offpath: stock against patched</title><style>{STYLE}</style></head><body>
<h1>offpath: stock against patched</h1>
<p>The same kernel configuration, guest image and command; <b>off</b> is the patched kernel with its knobs
at what upstream does. A ratio below 1 is less than stock.</p>
<dl><dt>cost</dt><dd>one emulated CPU whose clock counts instructions: what it costs, the same on every host</dd>
<dt>parallel</dt><dd>two CPUs and wall-clock time, the median of interleaved boots with half their range: only the ratios mean something</dd></dl>
{"".join(parts)}
<h2>Measured with</h2><dl>{about}</dl>
</body></html>
"""


def describe() -> str:
    pairs = (line.partition("=" if line.startswith("ACCEL") else ":") for line in common.setup().splitlines())
    return "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v.strip())}</dd>" for k, _, v in pairs)


def last_table() -> int:
    path = REPORT / "run.json"
    if not path.exists():
        raise SystemExit("offpath: no build/report/run.json yet: make run")
    lines = []
    for topic in json.loads(path.read_text())["topics"]:
        lines += common.rows(topic["topic"], recorded(topic))
    print(common.markdown(lines))
    return 0


def recorded(topic: dict) -> list[Figure]:
    return [Figure(m["name"], m["unit"], m["better"], m["mode"], {c: m[c] for c in COLUMNS},
                   topic.get("spread", {}).get(m["name"], {})) for m in topic["metrics"]]


def picture(topic: str) -> int:
    """The topic's plot of the last make bench, as a file of its own."""
    path, module = common.BUILD / f"bench/{topic}.json", common.load(topic)
    if not module or not path.exists():
        raise SystemExit(f"offpath: no build/bench/{topic}.json yet: make bench TOPIC={topic}")
    svg = draw(module.plot(recorded(json.loads(path.read_text()))))
    print('<?xml version="1.0" encoding="utf-8"?>')
    print(svg.replace("<svg", '<svg style="background:#fff;color:#222"', 1), end="")
    return 0 if svg else 1


def main(args: list[str]) -> int:
    if args[:1] == ["--markdown"]:
        return last_table()
    if args[:1] == ["--picture"] and len(args) == 2:
        return picture(args[1])
    if args and args[0].startswith("-"):
        raise SystemExit("offpath: usage: harness/run [TOPIC | --markdown | --picture TOPIC]")
    REPORT.mkdir(parents=True, exist_ok=True)
    lines: list[list[str]] = []
    parts: list[str] = []
    notes: list[str] = []
    record = []
    for topic in args[:1] or common.topics():
        module = common.load(topic)
        if not module:
            continue
        bench = common.Bench(topic, module, COLUMNS, raw="raw-run")
        jobs = module.jobs(True)
        bench.prepare(jobs)
        bench.run(jobs)
        figures = bench.figures(module.specs(True))
        mine = common.rows(topic, figures)
        lines += mine
        notes += bench.notes
        drawing = draw(module.plot(figures)) if hasattr(module, "plot") else ""
        parts.append(f"<h2>{html.escape(topic)}</h2><p>{html.escape(module.WAIT)}</p>" + html_table(figures, mine) +
                     "".join(f"<p class=failed>failed: {html.escape(n)}</p>" for n in bench.notes) +
                     (f"<figure><figcaption>{html.escape(module.plot(figures).title)}</figcaption>{drawing}</figure>"
                      if drawing else ""))
        record.append({"topic": topic, "wait": module.WAIT, "metrics": [f.as_json() for f in figures],
                       "spread": {f.name: f.spread for f in figures if f.spread}, "failed": bench.notes})
        # Written after each topic: a run that is stopped leaves what it has.
        (REPORT / "run.json").write_text(json.dumps({"setup": common.setup().splitlines(), "topics": record},
                                                    indent=1) + "\n")
        (REPORT / "index.html").write_text(page(parts, describe()))
    if not lines:
        print("no topic has a demonstration yet")
        return 0
    print("\n" + common.table(lines))
    for note in notes:
        print(f"  failed: {note}")
    print("\ncost: instructions, on one emulated CPU; parallel: two CPUs, median of boots, only ratios count")
    print(f"report: {(REPORT / 'index.html').relative_to(common.ROOT)}")
    # A demonstration that could not run is a failure; its figures never are.
    return 1 if notes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
