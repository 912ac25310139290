# SPDX-License-Identifier: GPL-2.0
"""A topic's plot as SVG, by gnuplot."""

from __future__ import annotations

import re
import subprocess

from common import Plot, say

# Colours that both a light and a dark page carry, told apart without colour
# by their marks too.
COLOURS = {"base": ("#d1495b", 7), "disabled": ("#8d80c9", 9), "enabled": ("#2a9d8f", 5)}


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
        place = f"(${1}+{0.24 * (len(parts) - 1):.2f}):2 with boxes" if plot.labels else \
            f"1:2 with linespoints lw 2 pt {mark} ps 0.8"
        parts.append(f"'-' using {place} lc rgb '{colour}' title '{column}'")
        data += [f"{x} {y}" for x, y in points] + ["e"]
    lines += ["plot " + ", ".join(parts)] + data
    done = subprocess.run(["gnuplot"], input="\n".join(lines), capture_output=True, text=True, check=False)
    start = done.stdout.find("<svg")
    if done.returncode or start < 0:
        say(f"        plot '{plot.title}': {done.stderr.strip()[:200]}")
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


def alone(plot: Plot) -> str:
    """The plot as a file of its own; empty if gnuplot failed."""
    svg = draw(plot)
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return head + svg.replace("<svg", '<svg style="background:#fff;color:#222"', 1) if svg else ""
