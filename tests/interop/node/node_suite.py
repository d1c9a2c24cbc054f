"""What the suites of Node clients share: sources from a clone, packages from npm, and a line for each case."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

LINE = re.compile(r"^(ok|skipped|FAILED) (.*) \([\d.]+ s\)")


def wanted():
    """The cases to run; None for all."""
    if "SUITE_CASES" not in os.environ:
        return None
    with open(os.environ["SUITE_CASES"]) as lines:
        return [line.strip() for line in lines if line.strip()]


def sources(clone, commit, paths, folder):
    """Those paths of a clone (or of its git directory alone), as that commit has them."""
    clone = pathlib.Path(clone)
    git = clone / ".git" if (clone / ".git").exists() else clone
    archive = subprocess.run(["git", f"--git-dir={git}", "archive", commit, *paths], check=True, stdout=subprocess.PIPE)
    subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)


def packages(name, manifest, folder):
    """node_modules with a manifest's packages, installed once for each manifest and kept."""
    cache = pathlib.Path(os.environ.get("SUITE_CACHE", tempfile.gettempdir())) / name
    kept = cache / "package.json"
    if not kept.exists() or kept.read_text() != manifest:
        subprocess.run(["rm", "-rf", str(cache)], check=True)
        cache.mkdir(parents=True)
        (cache / "package.json.new").write_text(manifest)
        os.rename(cache / "package.json.new", cache / "package.json")
        install = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--engine-strict=false"]
        if subprocess.run(install, cwd=cache, stdin=subprocess.DEVNULL, check=False).returncode != 0:
            kept.unlink(missing_ok=True)
            sys.exit("npm could not install the suite's packages")
    os.symlink(cache / "node_modules", pathlib.Path(folder) / "node_modules")


def run(command, folder, env):
    """Passes the lines of the cases on. Ends the process."""
    process = subprocess.Popen(command, cwd=folder, env=dict(os.environ, **env), stdin=subprocess.DEVNULL, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, errors="replace")
    only = wanted()
    counts, told, rest = {"ok": 0, "skipped": 0, "FAILED": 0}, set(), []
    for line in process.stdout:
        found = LINE.match(line)
        if not found:
            rest.append(line)
            continue
        word, name = found[1], found[2].rstrip()
        # Two tests of one name are one case: a later failure of it would be hidden by an earlier success.
        if (only is not None and name not in only) or (name in told and word != "FAILED"):
            continue
        told.add(name)
        counts[word] += 1
        sys.stdout.write(line)
        sys.stdout.flush()
    errors = process.stderr.read()
    process.wait()
    if counts["FAILED"] or not counts["ok"]:
        sys.stderr.writelines(rest[-500:])
        sys.stderr.write(errors[-100_000:])
    print(f"{counts['ok']} passed, {counts['FAILED']} failed")
    sys.exit(1 if counts["FAILED"] or not counts["ok"] else 0)
