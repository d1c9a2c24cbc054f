"""@platformatic/kafka's own tests of its clients, against a broker that is there already.

    python run.py HOST:PORT SOURCES NODE

SOURCES is a clone of its repository, or its git directory alone: its tests import its sources. NODE is a Node of 22.18
or later, which takes TypeScript. SUITE_CASES names a file with the cases to run.
"""

import json
import pathlib
import re
import shutil
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "node"))
import node_suite  # noqa: E402

COMMIT = "f84b496"
# What its tests import beside what its sources do.
NEEDED = ("prom-client", "@watchable/unpromise", "fast-jwt", "lz4-napi", "snappy", "protobufjs")
FOLDERS = ("admin", "base", "consumer", "producer")


def main():
    broker, clone, node = sys.argv[1:4]
    with tempfile.TemporaryDirectory(prefix="towpath-platformatic-") as folder:
        folder = pathlib.Path(folder)
        node_suite.sources(clone, COMMIT, ["package.json", "src", "test"], folder)
        package = json.loads((folder / "package.json").read_text())
        found = {**package["devDependencies"], **package["optionalDependencies"]}
        needed = {**package["dependencies"], **{name: found[name] for name in NEEDED}}
        manifest = json.dumps({"name": "platformatic-suite", "private": True, "dependencies": needed}, indent=1)
        node_suite.packages("platformatic-suite", manifest, folder)
        helpers = folder / "test/helpers.ts"
        text, count = re.subn(r"\['localhost:90[01]1'\]", f"['{broker}']", helpers.read_text())
        if count != 2:
            sys.exit("the suite's helpers name their brokers otherwise")
        helpers.write_text(text)
        shutil.copy(HERE / "reporter.mjs", folder / "reporter.mjs")
        only = node_suite.wanted()
        files = sorted(str(path.relative_to(folder)) for each in FOLDERS
                       for path in (folder / "test/clients" / each).glob("*.test.ts") if "sasl" not in path.name)
        command = [node, "--test", "--test-concurrency=1", "--test-timeout=1500000", "--test-reporter=./reporter.mjs"]
        if only is not None:
            files = sorted({name.split(" > ")[0] for name in only})
            titles = {name.split(" > ", 1)[1] for name in only}
            command += [f"--test-name-pattern=/^{re.escape(title)} ?$/" for title in sorted(titles)]
        node_suite.run([*command, *files], folder, {"KAFKA_VERSION": "4.3.0"})


main()
