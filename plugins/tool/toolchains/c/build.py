"""Makes a core module of a plugin in C: python build.py REQUEST, a JSON file.

Calls Zig's C compiler, which stands in this interpreter's packages, for the files that towpath.toml names and those of the
SDK.
"""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

SDK = ("towpath.c", "output.c", "component.c", "transform.c")
KEYS = {"name": str, "language": str, "sources": list, "include": list, "flags": list}


def fail(message: str) -> None:
    sys.exit(message)


def manifest_of(project: Path) -> dict[str, Any]:
    """What towpath.toml says."""
    try:
        manifest = tomllib.loads((project / "towpath.toml").read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        fail(f"towpath.toml: {error}")
    for key, value in manifest.items():
        if key not in KEYS:
            fail(f"towpath.toml: there is no `{key}`: it has {', '.join(KEYS)}")
        if not isinstance(value, KEYS[key]) or isinstance(value, list) and not all(isinstance(it, str) for it in value):
            fail(f"towpath.toml: `{key}` is {'a list of texts' if KEYS[key] is list else 'a text'}")
    if manifest.get("language") != "c":
        fail('towpath.toml does not tell the language: write `language = "c"`')
    if not manifest.get("sources"):
        fail('towpath.toml names no sources: write `sources = ["plugin.c"]`')
    for source in manifest["sources"]:
        if not (project / source).is_file():
            fail(f"towpath.toml: {source} is not there")
    return manifest


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    project, work, output = (Path(request[name]) for name in ("project", "work", "output"))
    manifest = manifest_of(project)
    sdk = work / "sdk" / "c"
    command = [
        sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-wasi", "-mexec-model=reactor", "-std=c11", "-O2", "-flto", "-s",
        "-Wall", "-Wextra", "-fno-strict-aliasing",
        # It stands beneath everything else: one that is overrun traps. Without this it has 16 MiB.
        "-Wl,-z,stack-size=1048576",
        f"-I{sdk}", *(f"-I{project / it}" for it in manifest.get("include", [])), *manifest.get("flags", []),
    ]
    sources = [str(project / it) for it in manifest["sources"]] + [str(sdk / it) for it in SDK]
    # The libraries are compiled once, beside the compiler.
    caches = {"ZIG_GLOBAL_CACHE_DIR": str(Path(__file__).parent / "zig"), "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    done = subprocess.run([*command, *sources, "-o", str(output)], cwd=project, env={**os.environ, **caches},
                          stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode != 0:
        fail("the C compiler failed")
    print(json.dumps({"name": manifest.get("name", "")}))


main()
