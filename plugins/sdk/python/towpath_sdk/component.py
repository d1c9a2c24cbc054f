"""Between the contract and the author's class. The entry that the build writes hands both over."""

from __future__ import annotations

import importlib
import traceback
from typing import Any, Callable

from . import host
from .batch import Batch
from .describe import OptionSpec, PluginError, Rejection
from .output import Output
from .schema import Schemas

# What the standard library imports when it is first used: here that has to be when the component is built.
for _module in (
    "_strptime", "calendar", "locale", "stringprep", "encodings.ascii", "encodings.cp1252", "encodings.idna", "encodings.latin_1",
    "encodings.punycode", "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le", "encodings.utf_32",
    "encodings.utf_8_sig",
):
    importlib.import_module(_module)


def _details(types: Any, why: Rejection) -> Any:
    return types.Details(str(why.code), str(why.message), why.hint, why.path)


def _error(types: Any, error: PluginError) -> Any:
    details = _details(types, error.why)
    if error.kind == "retry_after":
        return types.Error_RetryAfter(types.Retry(error.delay_ms, details))
    return (types.Error_NeedsOperator if error.kind == "needs_operator" else types.Error_Terminal)(details)


def _option(types: Any, it: OptionSpec) -> Any:
    element = getattr(types, f"Element_{it.element.kind}")
    value = it.element.value
    if it.element.kind == "Integer":
        made = element(types.Bounds(*value))
    elif it.element.kind == "OneOf":
        made = element([types.Choice(name, doc) for name, doc in value])
    else:
        made = element() if value is None else element(list(value))
    return types.OptionSpec(it.name, it.doc, types.Shape[it.shape], made, it.required, it.default, it.secret)


def exports(plugin: Callable[[], Any], bound: Any) -> tuple[type, type]:
    """The classes that the world `transform` exports. `plugin` gives the author's class, `bound` has the interfaces of
    the contract."""
    types = bound.types

    def told(run: Callable[[], Any]) -> Any:
        """Runs, and tells what is raised that is no answer: the instance ends with it."""
        if host.bound() is None:
            host.bind(bound)
        try:
            return run()
        except PluginError as error:
            raise bound.Err(_error(types, error)) from None
        except BaseException as error:
            # Without the lines of the source, which stand in no file here.
            host.log("error", "".join(traceback.format_exception(error)).strip())
            host.hush()
            raise

    class Plugin:
        def descriptor(self) -> Any:
            def run() -> Any:
                it = plugin().descriptor()
                return types.Description(it.name, it.version, it.summary)
            return told(run)

        def config_spec(self) -> Any:
            return told(lambda: [_option(types, it) for it in plugin().descriptor().options])

        def check_config(self) -> Any:
            check = getattr(plugin(), "check", lambda _: [])
            return told(lambda: [types.Problem(it.path, it.message, it.hint) for it in check(host.Config())])

    schemas = Schemas()
    opened: list[Any] = []

    class Transforms:
        def open(self) -> None:
            told(lambda: opened.append(plugin().open(host.Config())))

        def process(self, data: bytes) -> Any:
            return told(lambda: run(data))

    def run(data: bytes) -> Any:
        if not opened:
            raise PluginError.terminal("PLUGIN_NOT_OPEN", "the plugin has not been opened")
        try:
            batch = Batch(data, schemas)
        except ValueError as error:
            raise PluginError.terminal("PLUGIN_BATCH", f"the batch from the host cannot be read: {error}") from None
        out = Output(batch)
        opened[-1].process(batch, out)
        rejected = [types.Rejection(index, _details(types, why)) for index, why in out.rejected]
        return bound.Outcome(out.finish(), rejected)

    return Plugin, Transforms
