#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The series as files, and as git commits on the base.

As files: patches/series names the topics, patches/<topic>/NNNN-*.patch is
one commit each (message, "---", "Adds:" lines, hunks for files that the base
has), and every file that a commit adds stands whole at its in-tree path in
this repository. A line "prerequisite NAME" in patches/series names patches
that all topics after it need: their folder is like a topic's, but they have
no tests and no results. As commits: the branch "offpath" of the repository
build/stock, checked out in build/tree.

  patchqueue.py assemble [TOPIC...]  print the commit of the series (or of
                                     these topics alone, after their
                                     prerequisites) on the base
  patchqueue.py checkout [--keep]    bring build/tree to the assembled series;
                                     refuses to drop edits, or keeps them
  patchqueue.py refresh [COMMIT]     write the commits of build/tree (or those
                                     up to COMMIT) back
  patchqueue.py list [TOPIC...]      print "commit topic file" a patch, in order
  patchqueue.py edited               print what build/tree has and patches/ lack

OFFPATH_ROOT and OFFPATH_STOCK name another repository and another base.
"""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(os.environ.get("OFFPATH_ROOT") or Path(__file__).resolve().parent.parent)
PATCHES = ROOT / "patches"
STOCK = Path(os.environ.get("OFFPATH_STOCK") or ROOT / "build/stock")
TREE = ROOT / "build/tree"
BRANCH = "refs/heads/offpath"
ASSEMBLED = "refs/offpath/assembled"	# what checkout last wrote to build/tree

IDENTITY = {f"GIT_{who}_{what}": value
            for who in ("AUTHOR", "COMMITTER")
            for what, value in (("NAME", "offpath"), ("EMAIL", "offpath@localhost"),
                                ("DATE", "2026-01-01 00:00 +0000"))}


# Not from a hook that runs us, nor from anybody's settings: the same commits
# give the same patches everywhere.
ENVIRONMENT = {name: value for name, value in os.environ.items()
               if name not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX")}
SETTINGS = ["-c", "core.autocrlf=false", "-c", "core.quotePath=false", "-c", "diff.suppressBlankEmpty=false",
            "-c", "advice.detachedHead=false", "-c", "gc.auto=0"]
DIFF = ["-p", "-U3", "--binary", "--full-index", "--no-renames", "--no-ext-diff", "--no-textconv", "--no-color",
        "--inter-hunk-context=0", "--indent-heuristic", "--diff-algorithm=myers",
        "--src-prefix=a/", "--dst-prefix=b/", "--no-commit-id"]


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
        adds = re.findall(r"^Adds: (.+)$", head.decode(), re.M)
        if b"\nnew file mode " in hunks:
            raise QueueError(f"{path.relative_to(ROOT)} adds a file by a hunk: put the file at its path in this "
                             "repository and name it in an 'Adds:' line")
        return Patch(topic, path.name, message.decode().strip() + "\n", adds, hunks)

    def text(self) -> bytes:
        adds = "".join(f"Adds: {name}\n" for name in self.adds)
        return f"{self.message.strip()}\n---\n{adds}\n".encode() + self.hunks


def git(*args: str, cwd: Path = STOCK, stdin: bytes | None = None, **env: str) -> bytes:
    done = subprocess.run(["git", *SETTINGS, *args], cwd=cwd, input=stdin,
                          env={**ENVIRONMENT, **IDENTITY, **env}, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"exit status {done.returncode}"]
        raise QueueError(f"git {args[0]}: {said[0].removeprefix('error: ').removeprefix('fatal: ')}")
    return done.stdout


def line(*args: str, **kwargs) -> str:
    return git(*args, **kwargs).decode().strip()


def series() -> dict[str, bool]:
    """Each topic and prerequisite in order, and whether it is a prerequisite."""
    lines = [re.sub(r"#.*", "", text).split() for text in (PATCHES / "series").read_text().splitlines()]
    return {words[-1]: words[0] == "prerequisite" for words in lines if words}


def prerequisites(topic: str) -> list[str]:
    """The series that TOPIC needs: all prerequisites before it."""
    known = series()
    names = list(known)
    return [name for name in names[:names.index(topic)] if known[name]]


def load(wanted: list[str] | None = None) -> list[Patch]:
    for topic in wanted or []:
        if topic not in series():
            raise QueueError(f"no topic '{topic}'; there are: {' '.join(series())}")
    needed = {name for topic in wanted or series() for name in [topic, *prerequisites(topic)]}
    return [Patch.parse(topic, path) for topic in series() if topic in needed
            for path in sorted((PATCHES / topic).glob("[0-9]*.patch"))]


def add_files(patch: Patch, index: dict[str, str], known: dict[str, str]) -> None:
    sources = [ROOT / name for name in patch.adds]
    for name, source in zip(patch.adds, sources):
        if not source.is_file():
            raise QueueError(f"{patch.path.relative_to(ROOT)}: 'Adds: {name}', but there is no {name} in this repository")
        if name in known:
            raise QueueError(f"{patch.path.relative_to(ROOT)}: 'Adds: {name}', but the tree has that file already")
    if sources:
        blobs = line("hash-object", "-w", "--no-filters", "--stdin-paths",
                     stdin="".join(f"{source}\n" for source in sources).encode()).split()
        entries = "".join(f"{'100755' if os.access(source, os.X_OK) else '100644'} {blob}\t{name}\0"
                          for name, source, blob in zip(patch.adds, sources, blobs))
        git("update-index", "-z", "--index-info", stdin=entries.encode(), **index)


def in_index(index: dict[str, str]) -> dict[str, str]:
    """Each file's mode and blob."""
    entries = [entry.partition("\t") for entry in git("ls-files", "-s", "-z", **index).decode().split("\0")[:-1]]
    return {name: meta.rpartition(" ")[0] for meta, _, name in entries}


def failed_hunk(patch: Patch, error: QueueError) -> str:
    """What git apply said, and the header of the hunk that it means."""
    where = re.search(r"patch failed: (\S+):(\d+)", str(error))
    header = where and re.search(rf"^diff --git a/{re.escape(where[1])} (?s:.*?)^(@@ -{where[2]}[, ].*)$",
                                 patch.hunks.decode(errors="replace"), re.M)
    return f"{error}: {header[1]}" if header else str(error)


def with_topic(patch: Patch) -> str:
    return f"{patch.message}\nTopic: {patch.topic}\n"


def assemble(patches: list[Patch], message: Callable[[Patch], str] = with_topic, **author: str) -> list[str]:
    """Commit PATCHES on the base, touching no work tree; returns their ids.

    The index has only the files of the patches, and fast-import makes the trees:
    each git command on an index of the whole kernel takes a quarter of a second."""
    base = line("rev-parse", "base")
    who = {role: line("var", f"GIT_{role.upper()}_IDENT", **author) for role in ("author", "committer")}
    files = {name for patch in patches for name in patch.adds}
    files.update(*(re.findall(r"^diff --git a/\S+ b/(\S+)$", patch.hunks.decode(errors="replace"), re.M) for patch in patches))
    branch, stream = f"refs/offpath/assemble-{os.getpid()}", []
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": f"{scratch}/index", "GIT_WORK_TREE": str(STOCK)}
        git("update-index", "-z", "--index-info", stdin=git("ls-tree", "-r", "-z", base, "--", *sorted(files)) if files else b"",
            **index)
        known = in_index(index)
        for number, patch in enumerate(patches, 1):
            add_files(patch, index, known)
            if patch.hunks:
                try:
                    git("apply", "--cached", "--whitespace=nowarn", "-", stdin=patch.hunks, **index)
                except QueueError as error:
                    raise QueueError(f"{patch.path.relative_to(ROOT)} no longer applies ({failed_hunk(patch, error)}): mend its hunks, "
                                     "or use the base that BASE pins") from None
            now, text = in_index(index), message(patch).encode()
            stream += [f"commit {branch}\nmark :{number}\nauthor {who['author']}\ncommitter {who['committer']}\n"
                       f"data {len(text)}\n".encode(), text, b"\n"]
            stream += [f"from {base}\n".encode()] if number == 1 else []
            stream += [f"D {name}\n".encode() for name in known if name not in now]
            stream += [f"M {entry} {name}\n".encode() for name, entry in now.items() if known.get(name) != entry]
            known = now
        if not patches:
            return []
        git("-c", "fastimport.unpackLimit=100000", "fast-import", "--quiet", f"--export-marks={scratch}/marks",
            stdin=b"".join(stream))
        marks = dict(text.split() for text in Path(f"{scratch}/marks").read_text().splitlines())
        git("update-ref", "-d", branch)
    return [marks[f":{number}"] for number in range(1, len(patches) + 1)]


def ref(name: str) -> str:
    try:
        return line("rev-parse", "--verify", "-q", name)
    except QueueError:
        return ""


def uncommitted() -> str:
    """What build/tree holds that is in no commit. Not by git status alone:
    Debian's .gitignore hides every new file."""
    if git("status", "--porcelain", "--untracked-files=no", cwd=TREE):
        return "uncommitted changes"
    hidden = [option for pattern in ("/o-*/", "/linux-*", ".*", "*.o", "local_config.*", "*.orig", "*.rej", "*~", "__pycache__/")
              for option in ("-x", pattern)]
    new = line("ls-files", "--others", *hidden, cwd=TREE).splitlines()
    return f"a file in no commit ({new[0]})" if new else ""


def edited() -> str:
    """What build/tree holds that the last checkout did not put there."""
    if not (TREE / ".git").exists():
        return ""
    what = uncommitted()
    if not what and line("rev-parse", "HEAD", cwd=TREE) != ref(ASSEMBLED):
        what = "commits of its own"
    return what


def checkout(keep: bool) -> None:
    what = edited()
    if what and not os.environ.get("FORCE"):
        if keep:
            print(f"build/tree has {what}; using it as it is", file=sys.stderr)
            return
        raise QueueError(f"build/tree has {what} that patches/ lacks: commit there (git add -f a new file) and "
                         "'make refresh' to keep it, 'make tree FORCE=1' to drop it")
    tip = (assemble(load()) or [line("rev-parse", "base")])[-1]
    if not (TREE / ".git").exists():
        git("worktree", "prune")
        git("worktree", "add", "-q", "--force", "-B", "offpath", str(TREE), tip)
    elif what or line("rev-parse", "HEAD", cwd=TREE) != tip:
        git("checkout", "-q", "--force", "-B", "offpath", tip, cwd=TREE)
    git("update-ref", ASSEMBLED, tip)


def hunks(commit: str, names: list[str]) -> bytes:
    """The diff of NAMES alone, less the index lines that text does not need."""
    diff = git("diff-tree", "-r", *DIFF, commit, "--", *names) if names else b""
    return re.sub(rb"^index [0-9a-f]+\.\.[0-9a-f]+(?: \d+)?\n(?!GIT binary patch)", b"", diff, flags=re.M)


def commits_to_patches(tip: str) -> list[Patch]:
    known, topic, number = list(series()), "", 0
    added: dict[str, str] = {}
    patches = []
    if line("rev-list", "--merges", f"base..{tip}"):
        raise QueueError("build/tree has a merge commit: rebase it, the series is a straight line")
    for commit in line("rev-list", "--reverse", f"base..{tip}").split():
        message = line("log", "-1", "--format=%B", commit)
        trailer = re.search(r"^Topic: (\S+)$", message, re.M)
        this = trailer.group(1) if trailer else topic or known[0]
        short = f"commit {commit[:12]} ({message.splitlines()[0] if message else 'no message'})"
        if this not in known:
            raise QueueError(f"{short} names topic '{this}': not one of patches/series")
        if topic and known.index(this) < known.index(topic):
            raise QueueError(f"{short} of {this} comes after {topic}: order them as patches/series does")
        message = re.sub(r"^Topic: \S+\n?", "", message, flags=re.M).strip() + "\n"
        if re.search(r"^(---|diff |Index: )", message, re.M):
            raise QueueError(f"{short}: a line of the message starts with '---' or 'diff', where git am "
                             "takes the message to end: reword it")
        number = number + 1 if this == topic else 1
        topic = this
        subject = line("log", "-1", "--format=%f", commit)[:52].rstrip("-.")
        patch = Patch(topic, f"{number:04d}-{subject}.patch", message)
        touched = []
        raw = git("diff-tree", "-r", "--no-renames", "--no-commit-id", "--name-status", "-z", commit).decode()
        for status, name in zip(*[iter(raw.split("\0")[:-1])] * 2):
            if status == "A":
                patch.adds.append(name)
                added[name] = commit
            elif name in added:
                raise QueueError(f"{short} edits {name}, which {added[name][:12]} adds: a new file enters whole, "
                                 "so fold the edit into that commit (git rebase -i) or make it a file of its own")
            else:
                touched.append(name)
        if not patch.adds and not touched:
            raise QueueError(f"{short} changes nothing: drop it (git rebase -i)")
        patch.hunks = hunks(commit, touched)
        patches.append(patch)
    return patches


def write(path: Path, data: bytes, executable: bool = False) -> None:
    if not path.exists() or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"wrote {path.relative_to(ROOT)}")
    path.chmod(0o755 if executable else 0o644)


def edited_by_hand() -> bool:
    """Whether the files have changed since build/tree was made of them."""
    try:
        return (assemble(load()) or [line("rev-parse", "base")])[-1] not in (ref(ASSEMBLED), ref(BRANCH))
    except QueueError:
        return True


def refresh() -> None:
    if not (TREE / ".git").exists():
        raise QueueError("there is no build/tree to read: 'make tree' makes it")
    if git("rev-parse", "--symbolic-full-name", "HEAD", cwd=TREE).decode().strip() != BRANCH:
        raise QueueError("build/tree is not on its branch: finish the rebase there, or 'git checkout offpath'")
    what = uncommitted()
    if what:
        raise QueueError(f"build/tree has {what}: commit it there (git add -f a new file) or remove it")
    if not os.environ.get("FORCE") and edited_by_hand():
        raise QueueError("patches/ or a new file has been edited here since 'make tree': 'make tree' takes that "
                         "over, 'make refresh FORCE=1' writes over it")
    write_back(BRANCH)
    # Read it back: the same trees, now under the commits that everyone gets.
    commits = assemble(load())
    wrote, read = ([line("rev-parse", f"{commit}^{{tree}}") for commit in series] for series in
                   (line("rev-list", "--reverse", f"base..{BRANCH}").split(), commits))
    if wrote != read:
        raise QueueError("what was written does not give the trees of build/tree: an error in patchqueue.py")
    tip = (commits or [line("rev-parse", "base")])[-1]
    git("update-ref", "-m", "refresh", BRANCH, tip)
    git("update-ref", ASSEMBLED, tip)


def write_back(tip: str) -> None:
    old, new = load(), commits_to_patches(tip)
    for patch in new:
        for name in patch.adds:
            mode = line("ls-tree", tip, "--", name).split()[0]
            if mode not in ("100644", "100755"):
                raise QueueError(f"{patch.file} adds {name}, which is no plain file: the layout cannot hold it")
    for patch in new:
        for name in patch.adds:
            mode = line("ls-tree", tip, "--", name).split()[0]
            write(ROOT / name, git("cat-file", "blob", f"{tip}:{name}"), mode == "100755")
        write(patch.path, patch.text())
    kept = {patch.path for patch in new} | {ROOT / name for patch in new for name in patch.adds}
    for path in [patch.path for patch in old] + [ROOT / name for patch in old for name in patch.adds]:
        if path not in kept and path.exists():
            path.unlink()
            print(f"removed {path.relative_to(ROOT)}")


def main(argv: list[str]) -> int:
    try:
        match argv:
            case ["assemble", *wanted]:
                print((assemble(load(wanted)) or [line("rev-parse", "base")])[-1])
            case ["checkout", *options]:
                checkout("--keep" in options)
            case ["refresh"]:
                refresh()
            case ["refresh", commit]:
                write_back(commit)
            case ["edited"]:
                print(edited())
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
