#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The series as files, and as git commits on the base.

As files: patches/series names the topics, patches/<topic>/NNNN-*.patch is
one commit each (message, "---", "Adds:" lines, hunks for files that the base
has), and every file that a commit adds stands whole at its in-tree path in
this repository. As commits: the branch "offpath" of the repository
build/stock, checked out in build/tree.

  patchqueue.py assemble [TOPIC...]  print the commit of the series (or of
                                     these topics alone) on the base
  patchqueue.py checkout [--keep]    bring build/tree to the assembled series;
                                     refuses to drop edits, or keeps them
  patchqueue.py refresh              write the commits of build/tree back
  patchqueue.py list                 print "commit topic file" a patch, in order
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PATCHES = ROOT / "patches"
STOCK = ROOT / "build/stock"
TREE = ROOT / "build/tree"
BRANCH = "refs/heads/offpath"
ASSEMBLED = "refs/offpath/assembled"	# what checkout last wrote to build/tree

IDENTITY = {f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "offpath"), ("EMAIL", "offpath@localhost"),
                                ("DATE", "2026-01-01 00:00 +0000"))}


class QueueError(Exception):
    """What is wrong with the series, where, and what to do: one line."""


@dataclass
class Patch:
    topic: str
    file: str
    message: str
    adds: list[str] = field(default_factory=list)
    hunks: bytes = b""

    @property
    def path(self) -> Path:
        return PATCHES / self.topic / self.file

    @staticmethod
    def parse(topic: str, path: Path) -> "Patch":
        message, found, rest = path.read_bytes().partition(b"\n---\n")
        if not found:
            raise QueueError(f"{path.relative_to(ROOT)}: no '---' line after the message")
        start = rest.find(b"diff --git ")
        head, hunks = (rest, b"") if start < 0 else (rest[:start], rest[start:])
        adds = re.findall(r"^Adds: (\S+)$", head.decode(), re.M)
        return Patch(topic, path.name, message.decode().strip() + "\n", adds, hunks)

    def text(self) -> bytes:
        adds = "".join(f"Adds: {name}\n" for name in self.adds)
        return f"{self.message.strip()}\n---\n{adds}\n".encode() + self.hunks


def git(*args: str, cwd: Path = STOCK, stdin: bytes | None = None, **env: str) -> bytes:
    done = subprocess.run(["git", "-c", "core.autocrlf=false", *args], cwd=cwd, input=stdin,
                          env={**os.environ, **IDENTITY, **env}, capture_output=True)
    if done.returncode:
        raise QueueError(f"git {args[0]}: {done.stderr.decode().strip().splitlines()[:1]}")
    return done.stdout


def line(*args: str, **kwargs) -> str:
    return git(*args, **kwargs).decode().strip()


def topics() -> list[str]:
    names = [re.sub(r"#.*", "", text).strip() for text in (PATCHES / "series").read_text().splitlines()]
    return [name for name in names if name]


def load(wanted: list[str] | None = None) -> list[Patch]:
    return [Patch.parse(topic, path) for topic in topics() if not wanted or topic in wanted
            for path in sorted((PATCHES / topic).glob("[0-9]*.patch"))]


def add_file(patch: Patch, name: str, index: dict[str, str]) -> None:
    source = ROOT / name
    if not source.is_file():
        raise QueueError(f"{patch.path.relative_to(ROOT)}: 'Adds: {name}', but there is no {name} in this repository")
    if git("ls-files", "--", name, **index):
        raise QueueError(f"{patch.path.relative_to(ROOT)}: 'Adds: {name}', but the tree has that file already")
    blob = line("hash-object", "-w", "--no-filters", str(source))
    mode = "100755" if os.access(source, os.X_OK) else "100644"
    git("update-index", "--add", "--cacheinfo", f"{mode},{blob},{name}", **index)


def assemble(patches: list[Patch]) -> list[str]:
    """Commit PATCHES on the base, touching no work tree; returns their ids."""
    index = {"GIT_INDEX_FILE": str(STOCK / ".git" / f"index.{os.getpid()}"), "GIT_WORK_TREE": str(STOCK)}
    commits, parent = [], line("rev-parse", "base")
    try:
        git("read-tree", parent, **index)
        for patch in patches:
            for name in patch.adds:
                add_file(patch, name, index)
            if patch.hunks:
                try:
                    git("apply", "--cached", "--whitespace=nowarn", "-", stdin=patch.hunks, **index)
                except QueueError as error:
                    raise QueueError(f"{patch.path.relative_to(ROOT)} no longer applies ({error}): rebase it in "
                                     "build/tree, or use the base that BASE pins") from None
            tree = line("write-tree", **index)
            parent = line("commit-tree", tree, "-p", parent, "-F", "-",
                          stdin=f"{patch.message}\nTopic: {patch.topic}\n".encode())
            commits.append(parent)
    finally:
        Path(index["GIT_INDEX_FILE"]).unlink(missing_ok=True)
    return commits


def ref(name: str) -> str:
    try:
        return line("rev-parse", "--verify", "-q", name)
    except QueueError:
        return ""


def edited() -> str:
    """What build/tree holds that the last checkout did not put there."""
    if not (TREE / ".git").exists():
        return ""
    if git("status", "--porcelain", "-uno", cwd=TREE):
        return "uncommitted changes"
    return "" if line("rev-parse", "HEAD", cwd=TREE) == ref(ASSEMBLED) else "commits of its own"


def checkout(keep: bool) -> None:
    base = line("rev-parse", "base")
    commits = assemble(load())
    tip = commits[-1] if commits else base
    what = edited()
    if what and ref(BRANCH) != tip and not os.environ.get("FORCE"):
        if keep:
            print(f"build/tree has {what}; using it as it is", file=sys.stderr)
            return
        raise QueueError(f"build/tree has {what} that patches/ lacks: 'make refresh' keeps them, "
                         "'make tree FORCE=1' drops them")
    if not (TREE / ".git").exists():
        git("worktree", "prune")
        git("worktree", "add", "-q", "--force", "-B", "offpath", str(TREE), tip)
    else:
        git("reset", "-q", "--hard", tip, cwd=TREE)
    git("update-ref", ASSEMBLED, tip)


def commits_to_patches() -> list[Patch]:
    known, topic, number = topics(), "", 0
    added: dict[str, str] = {}
    patches = []
    if line("rev-list", "--merges", f"base..{BRANCH}"):
        raise QueueError("build/tree has a merge commit: rebase it, the series is a straight line")
    for commit in line("rev-list", "--reverse", f"base..{BRANCH}").split():
        message = line("log", "-1", "--format=%B", commit)
        trailer = re.search(r"^Topic: (\S+)$", message, re.M)
        this = trailer.group(1) if trailer else topic or known[0]
        if this not in known:
            raise QueueError(f"commit {commit[:12]} names topic '{this}': not one of patches/series")
        if topic and known.index(this) < known.index(topic):
            raise QueueError(f"commit {commit[:12]} of {this} comes after {topic}: order them as patches/series does")
        number = number + 1 if this == topic else 1
        topic = this
        subject = line("log", "-1", "--format=%f", commit)[:52].rstrip("-.")
        patch = Patch(topic, f"{number:04d}-{subject}.patch", re.sub(r"^Topic: \S+\n?", "", message, flags=re.M))
        touched = []
        raw = git("diff-tree", "-r", "--no-renames", "--no-commit-id", "--name-status", "-z", commit).decode()
        for status, name in zip(*[iter(raw.split("\0")[:-1])] * 2):
            if status == "A":
                patch.adds.append(name)
                added[name] = commit
            elif name in added:
                raise QueueError(f"commit {commit[:12]} edits {name}, which {added[name][:12]} adds: a new file enters "
                                 "whole, so fold the edit into that commit (git rebase -i) or make it a file of its own")
            else:
                touched.append(name)
        if touched:
            patch.hunks = b"".join(
                text for text in git("diff-tree", "-p", "--no-renames", "--no-commit-id", "--no-ext-diff", "-U3",
                                     "--no-color", commit, "--", *touched).splitlines(keepends=True)
                if not text.startswith(b"index "))
        patches.append(patch)
    return patches


def write(path: Path, data: bytes, executable: bool = False) -> None:
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"wrote {path.relative_to(ROOT)}")
    path.chmod(0o755 if executable else 0o644)


def refresh() -> None:
    if not (TREE / ".git").exists():
        raise QueueError("there is no build/tree to read: 'make tree' makes it")
    if git("status", "--porcelain", "-uno", cwd=TREE):
        raise QueueError("build/tree has uncommitted changes: commit them there first")
    old = load()
    new = commits_to_patches()
    for patch in new:
        for name in patch.adds:
            mode = line("ls-tree", BRANCH, "--", name).split()[0]
            write(ROOT / name, git("cat-file", "blob", f"{BRANCH}:{name}"), mode == "100755")
        write(patch.path, patch.text())
    kept = {patch.path for patch in new} | {ROOT / name for patch in new for name in patch.adds}
    for path in [patch.path for patch in old] + [ROOT / name for patch in old for name in patch.adds]:
        if path not in kept and path.exists():
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")
    git("update-ref", ASSEMBLED, BRANCH)


def main(argv: list[str]) -> int:
    try:
        match argv:
            case ["assemble", *wanted]:
                print((assemble(load(wanted)) or [line("rev-parse", "base")])[-1])
            case ["checkout", *options]:
                checkout("--keep" in options)
            case ["refresh"]:
                refresh()
            case ["list", *wanted]:
                patches = load(wanted)
                for commit, patch in zip(assemble(patches), patches):
                    print(commit, patch.topic, patch.file)
            case _:
                print(__doc__, file=sys.stderr)
                return 2
    except QueueError as error:
        print(f"offpath: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
