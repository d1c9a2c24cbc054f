"""franz-go's own tests of its client, against a broker that is there already.

    python run.py HOST:PORT BINARY

BINARY is its compiled test program (`go test -c github.com/twmb/franz-go/pkg/kgo`). A case is a test of the outermost
level; those that need no broker are left out, since they say nothing of one. SUITE_CASES names a file with those to run.
"""

import os
import re
import subprocess
import sys
import tempfile

# How much the tests of whole flows (produce, consume, transact) move; they are made for half a million records.
RECORDS = "2000"
PARTITIONS_MAX = "7"
TIMEOUT_S = 1_500
ALONE_TIMEOUT_S = 120
HERE = os.path.dirname(os.path.abspath(__file__))
OUTERMOST = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \(([\d.]+)s\)")


def run(binary, env, tests, timeout_s):
    """One run of the program; how many passed and failed."""
    command = [binary, "-test.v", f"-test.timeout={timeout_s}s", f"-test.run=^({'|'.join(tests)})$"]
    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    with tempfile.TemporaryDirectory(prefix="towpath-franz-go-") as folder:
        process = subprocess.Popen(command, env=env, cwd=folder, text=True, errors="replace",
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last, told = [], set()
        for line in process.stdout:
            last = [*last[-30:], line]
            found = OUTERMOST.match(line)
            if not found:
                continue
            outcome, name, seconds = found.groups()
            told.add(name)
            counts[outcome] += 1
            word = {"PASS": "ok", "SKIP": "skipped", "FAIL": "FAILED"}[outcome]
            print(f"{word} {name} ({seconds} s)" + (": see above" if outcome == "FAIL" else ""), flush=True)
            if outcome == "FAIL":
                sys.stderr.writelines(last)
        if process.wait() not in (0, 1):
            sys.stderr.writelines(last)
            for name in set(tests) - told:
                counts["FAIL"] += 1
                print(f"FAILED {name} ({timeout_s} s): did not end", flush=True)
    return counts


def listed(name):
    with open(os.path.join(HERE, name)) as lines:
        return [line.split(" # ")[0].strip() for line in lines if line.strip() and not line.startswith("#")]


def main():
    broker, binary = sys.argv[1:3]
    env = dict(os.environ, KGO_SEEDS=broker, KGO_TEST_RF="1", KGO_TEST_RECORDS=RECORDS,
               KGO_TEST_MAX_TOPIC_PARTS=PARTITIONS_MAX, KGO_LOG_LEVEL="none")
    if "SUITE_CASES" in os.environ:
        with open(os.environ["SUITE_CASES"]) as lines:
            parts = [[line.strip() for line in lines if line.strip()]]
    else:
        # Those that may not pass run alone: one that never ends takes the others with it.
        parts = [listed("tests.allow"), *([test] for test in listed("tests.missing"))]
    passed = failed = 0
    for tests in filter(None, parts):
        counts = run(binary, env, tests, TIMEOUT_S if len(tests) > 1 else ALONE_TIMEOUT_S)
        passed, failed = passed + counts["PASS"], failed + counts["FAIL"]
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
