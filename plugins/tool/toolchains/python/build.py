"""Makes a component of a plugin in Python: python build.py REQUEST, a JSON file.

Writes the entry between the contract and the plugin's class, and calls componentize-py, which stands beside this
interpreter.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ENTRY = """\
from types import SimpleNamespace

from componentize_py_types import Err
from wit_world.exports.transforms import Outcome
from wit_world.imports import clock, config, log, random, schemas, types

from towpath_sdk.component import exports
from {module} import {name}

Plugin, Transforms = exports(lambda: {name}, SimpleNamespace(
    Err=Err, Outcome=Outcome, clock=clock, config=config, log=log, random=random,
    schemas=schemas, types=types,
))
"""


def fail(message: str) -> None:
    sys.exit(message)


def plugin_of(project: Path) -> tuple[str, str, str, Path]:
    """The project's name, the module and the class of the plugin, and the folder they are in."""
    try:
        manifest = tomllib.loads((project / "pyproject.toml").read_text())
    except tomllib.TOMLDecodeError as error:
        fail(f"pyproject.toml: {error}")
    settings = manifest.get("tool", {}).get("towpath", {})
    module, colon, name = str(settings.get("plugin", "")).partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        fail('pyproject.toml does not name the plugin: write `plugin = "module:Class"` under `[tool.towpath]`')
    return str(manifest.get("project", {}).get("name", "")), module, name, project / str(settings.get("path", "src"))


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    project, work, output = (Path(request[name]) for name in ("project", "work", "output"))
    project_name, module, name, path = plugin_of(project)
    (work / "towpath_entry.py").write_text(ENTRY.format(module=module, name=name))
    command = [
        str(Path(sys.executable).with_name("componentize-py")), "-d", str(work / "wit"), "-w", request["world"], "componentize",
        # Nothing but the contract is imported (R11).
        "--stub-wasi", "-p", str(work), "-p", str(work / "sdk" / "python"), "-p", str(path),
    ]
    done = subprocess.run([*command, "-o", str(output), "towpath_entry"], cwd=work, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        fail(done.stdout.strip() or "componentize-py failed")
    print(json.dumps({"name": project_name}))


main()
