#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The last "make bench TOPIC=knuma" with a column for each mode.

The table that it printed has a row for each mode, and stock beside it. Here
are those figures alone that were taken in all modes:
    python3 bench/knuma/columns.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import common  # noqa: E402


def main() -> int:
    topic = common.load("knuma")
    path = common.BUILD / "bench/knuma.json"
    if not topic or not path.exists():
        raise SystemExit("offpath: no build/bench/knuma.json yet: make bench TOPIC=knuma")
    modes = {f"  {text}": mode for mode, text in topic.MODES.items()}
    rows: list[dict[str, str]] = []
    for figure in json.loads(path.read_text())["metrics"]:
        mode = modes.get(figure["name"])
        if not mode:
            mode = topic.SHOWN
            rows.append({"what": figure["name"], "stock": common.number(figure["stock"]),
                         "off": common.number(figure["off"]), "unit": figure["unit"], "mode": figure["mode"]})
        rows[-1][mode] = common.number(figure["patched"])
    columns = ["what", "stock", "off", *topic.MODES, "unit", "mode"]
    lines = [[row[c] for c in columns] for row in rows if len(row) == len(columns)]
    head = ["what", "stock", "enabled=0", *topic.MODES.values(), "unit", "mode"]
    print(common.table(lines, head) if lines else "nothing was measured in all modes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
