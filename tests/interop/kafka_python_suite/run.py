"""kafka-python's own integration suite against a broker from outside, held by a ratchet.

    python run.py HOST:PORT SDIST [--list FILE] [--all] [--write FILE]

SDIST is kafka-python's unpacked source archive (the pinned version's). Every test in the list (tests.allow, unless
--list says otherwise) has to pass. With --all the rest of the suite runs too (minutes: some of it waits for what does
not come), and a test that passes and is not listed is told, so that it can be added. `--write FILE` writes what passed.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml

HERE = pathlib.Path(__file__).resolve().parent
# What the suite believes to talk to: it decides which of its tests apply.
KAFKA_VERSION = "4.3.0"
# How often a test runs again that the client's own race may fail (FINDINGS.md).
AGAIN = 3


def listed(path):
    """{test: whether a fault of the client's own may fail it} of a list: such a line ends in `# again`."""
    found = {}
    for line in path.read_text().splitlines():
        test, _, comment = line.partition("#")
        if test.strip():
            found[test.strip()] = comment.strip() == "again"
    return found


def prepare(sdist, folder):
    """The suite without the package beside it: the installed one is tested."""
    shutil.copytree(sdist / "test", folder / "test")
    (folder / "test/__init__.py").touch()
    if not (folder / "test/service.py").exists():
        shutil.copy(HERE / "service.py", folder / "test/service.py")


def results(report):
    """{test id: (outcome, message)} of a JUnit report."""
    found = {}
    for case in xml.parse(report).getroot().iter("testcase"):
        parts = case.get("classname").split(".")
        module = [f"{p}.py" for p in parts if p.startswith("test_")]
        inner = [p for p in parts if p[:1].isupper()]
        test = "::".join([*module, *inner, case.get("name")])
        outcome, message = "passed", ""
        for tag in ("failure", "error", "skipped"):
            node = case.find(tag)
            if node is not None:
                outcome, message = tag, (node.get("message") or "").splitlines()[:1]
                message = message[0] if message else ""
                break
        found[test] = (outcome, message, float(case.get("time") or 0))
    return found


def pytest(bootstrap, folder, targets):
    """Runs tests; their results, and what pytest printed."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    env = dict(os.environ, KAFKA_VERSION=KAFKA_VERSION, KAFKA_URI=f"kafka://{bootstrap}",
               PYTHONPATH=str(folder), KAFKA_ROOT=str(folder))
    command = [sys.executable, "-m", "pytest", *targets, "-q", "-p", "no:cacheprovider", "--timeout=90",
               "--tb=short", f"--junitxml={report}"]
    ended = subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, timeout=1_500,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if not report.exists():
        sys.exit(f"pytest made no report:\n{ended.stdout}")
    return results(report), ended.stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bootstrap")
    parser.add_argument("sdist", type=pathlib.Path)
    parser.add_argument("--list", type=pathlib.Path, default=HERE / "tests.allow")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="towpath-kafka-python-") as folder:
        folder = pathlib.Path(folder)
        prepare(options.sdist, folder)
        tests = listed(options.list)
        must = set(tests)
        targets = ["test/integration"] if options.all else [f"test/integration/{test}" for test in sorted(must)]
        found, output = pytest(options.bootstrap, folder, targets)
        for _ in range(AGAIN):
            failed = [test for test, excused in tests.items() if excused and found.get(test, ("",))[0] != "passed"]
            if not failed:
                break
            print(f"again: {failed}")
            found.update(pytest(options.bootstrap, folder, [f"test/integration/{test}" for test in failed])[0])
    passed = {test for test, (outcome, *_) in found.items() if outcome == "passed"}
    if options.write:
        options.write.write_text("".join(f"{test}\n" for test in sorted(passed)))
    broken = sorted(must - passed)
    for test in sorted(found):
        outcome, message, seconds = found[test]
        if outcome != "passed" or seconds > 5:
            print(f"{outcome:8} {seconds:6.1f} s  {test}  {message[:300]}")
    for test in sorted(passed - must - set(broken)):
        print(f"ratchet: add {test}")
    if broken:
        print(output[-20_000:])
        for test in broken:
            print(f"FAILED {test}: {found.get(test, ('not run', '', 0))[0:2]}")
    print(f"{len(must & passed)} passed, {len(broken)} failed")
    print(f"done in {time.monotonic() - begin:.1f} s; {len(passed)} of {len(found)} tests of the suite passed")
    sys.exit(1 if broken else 0)


main()
