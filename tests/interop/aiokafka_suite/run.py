"""aiokafka's own integration tests against a broker that is there already.

    python run.py HOST:PORT SOURCES

SOURCES is a clone of its repository, or its git directory alone; the installed package is tested, not the clone's. Only
tests that talk to a broker are run. SUITE_CASES names a file with those to run.
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "python"))
import pytest_suite  # noqa: E402

# The commit that became the installed release: the repository's tags may be missing in a clone.
COMMIT = "672947af"


def main():
    broker, sources = sys.argv[1], pathlib.Path(sys.argv[2])
    git = sources / ".git" if (sources / ".git").exists() else sources
    with tempfile.TemporaryDirectory(prefix="towpath-aiokafka-") as folder:
        folder = pathlib.Path(folder)
        archive = subprocess.run(["git", f"--git-dir={git}", "archive", COMMIT, "tests"], check=True,
                                 stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "x", "-C", folder], input=archive, check=True)
        shutil.copy(HERE / "conftest.py", folder / "tests/conftest.py")
        # Its helpers import the client of docker, which starts nothing here.
        (folder / "docker.py").write_text("class models:\n    class containers:\n        Container = object\n")
        files = sorted(
            f"tests/{path.name}" for path in (folder / "tests").glob("test_*.py")
            if "KafkaIntegrationTestCase" in path.read_text() or "setup_test_class\"" in path.read_text()
        )
        more = ["-o", "asyncio_mode=auto", "-o", "markers=ssl: with certificates", "-W", "ignore"]
        pytest_suite.run(folder, files, {"TOWPATH_BROKER": broker, "PYTHONPATH": str(folder)}, more, 100)


main()
