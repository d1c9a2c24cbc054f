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


def main():
    broker, binary = sys.argv[1:3]
    here = os.path.dirname(os.path.abspath(__file__))
    known = []
    for name in ("tests.allow", "tests.missing"):
        with open(os.path.join(here, name)) as lines:
            known += [line.split(" # ")[0].strip() for line in lines if not line.startswith("#")]
    wanted = [name for name in known if name]
    if "SUITE_CASES" in os.environ:
        with open(os.environ["SUITE_CASES"]) as lines:
            wanted = [line.strip() for line in lines if line.strip()]
    elif os.environ.get("SUITE_ALL"):
        wanted = [".*"]
    env = dict(os.environ, KGO_SEEDS=broker, KGO_TEST_RF="1", KGO_TEST_RECORDS=RECORDS,
               KGO_TEST_MAX_TOPIC_PARTS=PARTITIONS_MAX, KGO_LOG_LEVEL="none")
    command = [binary, "-test.v", f"-test.timeout={TIMEOUT_S}s", f"-test.run=^({'|'.join(wanted)})$"]
    passed = failed = 0
    outermost = re.compile(r"--- (PASS|FAIL|SKIP): (\S+) \(([\d.]+)s\)")
    with tempfile.TemporaryDirectory(prefix="towpath-franz-go-") as folder:
        process = subprocess.Popen(command, env=env, cwd=folder, text=True, errors="replace",
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last = []
        for line in process.stdout:
            last = [*last[-30:], line]
            found = outermost.match(line)
            if not found:
                continue
            outcome, name, seconds = found.groups()
            if outcome == "FAIL":
                failed += 1
                sys.stderr.writelines(last)
                print(f"FAILED {name} ({seconds} s): see above", flush=True)
            else:
                passed += outcome == "PASS"
                print(f"{'ok' if outcome == 'PASS' else 'skipped'} {name} ({seconds} s)", flush=True)
        if process.wait() not in (0, 1):
            sys.stderr.writelines(last)
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


main()
