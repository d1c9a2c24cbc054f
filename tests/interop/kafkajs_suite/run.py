"""kafkajs's own specs of broker, admin, producer and consumer, against a broker that is there already.

    python run.py HOST:PORT SOURCES NODE

SOURCES is a clone of its repository, or its git directory alone: its specs import its sources. SUITE_CASES names a file
with the cases to run.
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

COMMIT = "v2.2.4"
NEEDED = ("execa", "glob", "jest", "jest-circus", "jest-extended", "jest-junit", "jsonwebtoken", "mockdate", "semver", "uuid")
FOLDERS = ("src/admin", "src/broker", "src/cluster", "src/consumer", "src/producer")
# They are all about users, rules of access and certificates, which wait ten seconds for each listener that is not there.
SECURITY = r"(Acls|reauthenticate|saslAuthenticator|__tests__/connection|broker/__tests__/(dis)?connect)"


def main():
    broker, clone, node = sys.argv[1:4]
    port = broker.split(":")[1]
    with tempfile.TemporaryDirectory(prefix="towpath-kafkajs-") as folder:
        folder = pathlib.Path(folder)
        node_suite.sources(clone, COMMIT, ["index.js", "jest.config.js", "package.json", "src", "testHelpers"], folder)
        found = json.loads((folder / "package.json").read_text())["devDependencies"]
        manifest = json.dumps({"name": "kafkajs-suite", "private": True,
                               "dependencies": {name: found[name] for name in NEEDED}}, indent=1)
        node_suite.packages("kafkajs-suite", manifest, folder)
        helpers = folder / "testHelpers/index.js"
        text = helpers.read_text()
        for old, new in (
            ("[`${host}:9092`, `${host}:9095`, `${host}:9098`]", f"['{broker}']"),
            ("() => 'localhost'", "() => '127.0.0.1'"),
            ("port: 9092,", f"port: {port},"),
            ("brokers: [`${getHost()}:9092`]", f"brokers: ['{broker}']"),
        ):
            if old not in text:
                sys.exit(f"the suite's helpers have changed: {old}")
            text = text.replace(old, new)
        helpers.write_text(text)
        # Two specs name the address that the suite's own brokers advertise.
        for name in ("findGroupCoordinator", "metadata"):
            spec = folder / f"src/broker/__tests__/{name}.spec.js"
            text = spec.read_text()
            if "host: 'localhost'," not in text:
                sys.exit(f"a spec of the suite has changed: {name}")
            spec.write_text(text.replace("host: 'localhost',", "host: '127.0.0.1',"))
        shutil.copy(HERE / "reporter.js", folder / "reporter.js")
        only = node_suite.wanted()
        targets = FOLDERS if only is None else sorted({name.split(" > ")[0] for name in only})
        # The folders stand before the options: the last one of those takes all that follows it.
        command = [node, "node_modules/jest/bin/jest.js", *targets, "--runInBand", "--forceExit", "--silent",
                   "--reporters=./reporter.js", f"--testPathIgnorePatterns={SECURITY}"]
        if only is not None:
            titles = "|".join(re.escape(name.split(" > ", 1)[1]) for name in only)
            command.append(f"--testNamePattern=^({titles})$")
        env = {"KAFKA_VERSION": "4.3", "NODE_ENV": "test", "KAFKAJS_DEBUG_PROTOCOL_BUFFERS": "1",
               "KAFKAJS_NO_PARTITIONER_WARNING": "1", "NODE_PATH": ""}
        node_suite.run(command, folder, env)


main()
