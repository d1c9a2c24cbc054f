"""Makes a component of a plugin in Python: python build.py REQUEST, a JSON file.

Writes the entry between the contract and the plugin's class, and calls componentize-py, which stands beside this
interpreter.
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

# What each world imports, what it exports, and the classes that the SDK makes for it.
COMMON = "clock config log random schemas types"
WORLDS = {
    "transform": (COMMON, "transforms", "Plugin, Transforms"),
    "source": (f"{COMMON} http secrets state tcp", "sources", "Sources"),
    "sink": (f"{COMMON} http secrets tcp", "sinks", "Sinks"),
}
ENTRY = """\
from types import SimpleNamespace

from componentize_py_types import Err
from wit_world.exports import {exports}
from wit_world.imports import {imports}

from towpath_sdk.component import {world}
from {module} import {name}

{classes} = {world}(lambda: {name}, SimpleNamespace({bound}))
"""


def entry(world: str, module: str, name: str) -> str:
    """Between the contract and the plugin's class."""
    imports, exports, classes = WORLDS[world]
    bound = ", ".join(f"{it}={it}" for it in ["Err", exports, *imports.split()])
    imports = ", ".join(imports.split())
    return ENTRY.format(world=world, module=module, name=name, imports=imports, exports=exports, classes=classes, bound=bound)


def fail(message: str) -> None:
    sys.exit(message)


def plugin_of(project: Path, world: str) -> tuple[str, str, str, str, Path]:
    """The project's name, what the plugin is, its module and class, and the folder they are in."""
    try:
        manifest = tomllib.loads((project / "pyproject.toml").read_text())
    except tomllib.TOMLDecodeError as error:
        fail(f"pyproject.toml: {error}")
    settings = manifest.get("tool", {}).get("towpath", {})
    module, colon, name = str(settings.get("plugin", "")).partition(":")
    if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        fail('pyproject.toml does not name the plugin: write `plugin = "module:Class"` under `[tool.towpath]`')
    world = settings.get("kind", world)
    if world not in WORLDS:
        fail('pyproject.toml does not say what the plugin is: write `kind = "source"`, "sink" or "transform" under `[tool.towpath]`')
    path = project / str(settings.get("path", "src"))
    return str(manifest.get("project", {}).get("name", "")), world, module, name, path


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    project, work, output = (Path(request[name]) for name in ("project", "work", "output"))
    project_name, world, module, name, path = plugin_of(project, request["world"])
    (work / "towpath_entry.py").write_text(entry(world, module, name))
    command = [
        str(Path(sys.executable).with_name("componentize-py")), "-d", str(work / "wit"), "-w", world, "componentize",
        # Nothing but the contract is imported (R11).
        "--stub-wasi", "-p", str(work), "-p", str(work / "sdk" / "python"), "-p", str(path),
    ]
    done = subprocess.run([*command, "-o", str(output), "towpath_entry"], cwd=work, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        fail(done.stdout.strip() or "componentize-py failed")
    print(json.dumps({"name": project_name}))


main()
