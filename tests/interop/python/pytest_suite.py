"""Runs tests of pytest as cases of a suite: a line for each as soon as it has ended."""

import os
import re
import subprocess
import sys
import time

ENDED = re.compile(r"^(\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b")
WORDS = {"PASSED": "ok", "XPASS": "ok", "SKIPPED": "skipped", "XFAIL": "skipped"}


def run(folder, files, env, more=(), timeout_s=120):
    """The files below folder hold the tests; SUITE_CASES names a file with those to run. Ends the process."""
    targets = files
    if "SUITE_CASES" in os.environ:
        with open(os.environ["SUITE_CASES"]) as lines:
            targets = [line.strip() for line in lines if line.strip()]
    command = [sys.executable, "-u", "-m", "pytest", *targets, "-v", "-p", "no:cacheprovider", "--tb=short", "--no-header",
               "--color=no", f"--timeout={timeout_s}", *more]
    process = subprocess.Popen(command, cwd=folder, env=dict(os.environ, **env), stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    outcomes, rest, begin = {}, [], time.monotonic()
    for line in process.stdout:
        ended = ENDED.match(line)
        if not ended or ended[1] in outcomes:
            rest.append(line)
            continue
        name, outcome = ended.groups()
        outcomes[name] = word = WORDS.get(outcome, "FAILED")
        print(f"{word} {name} ({time.monotonic() - begin:.2f} s)" + (": see above" if word == "FAILED" else ""), flush=True)
        begin = time.monotonic()
    process.wait()
    failed, passed = (sum(word == each for word in outcomes.values()) for each in ("FAILED", "ok"))
    if failed or not passed:
        sys.stderr.writelines(rest[-4000:])
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)
