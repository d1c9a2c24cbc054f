"""Between the contract and the author's class. The entry that the build writes hands both over."""

from __future__ import annotations

import importlib
import traceback
from typing import Any, Callable

from . import host
from .batch import Batch
from .connector import Assigned, Budget, Delivery, Polled, Position, Taken, Task, TopicPartition, polled
from .describe import OptionSpec, PluginError, Rejection
from .output import Output
from .records import Records
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


class _World:
    """What the worlds share. `plugin` gives the author's class, `bound` has the interfaces of the contract."""

    def __init__(self, plugin: Callable[[], Any], bound: Any):
        self.plugin, self.bound, self.types = plugin, bound, bound.types
        self.schemas = Schemas()
        self.opened: Any = None

    def told(self, run: Callable[[], Any], can_fail: bool = True) -> Any:
        """Runs, and tells what is raised that is no answer: the instance ends with it. What cannot fail has no other."""
        if host.bound() is None:
            host.bind(self.bound)
        try:
            return run()
        except self.bound.Err:
            raise
        except BaseException as error:
            if can_fail and isinstance(error, PluginError):
                raise self.bound.Err(_error(self.types, error)) from None
            # Without the lines of the source, which stand in no file here.
            host.log("error", "".join(traceback.format_exception(error)).strip())
            host.hush()
            raise

    def open(self) -> Any:
        if self.opened is None:
            raise PluginError.terminal("PLUGIN_NOT_OPEN", "the plugin has not been opened")
        return self.opened

    def optional(self, it: Any, name: str, *arguments: Any) -> Any:
        """Calls what the author may leave out."""
        function = getattr(it, name, None)
        return None if function is None else function(*arguments)

    def batch(self, data: bytes) -> Batch:
        try:
            return Batch(data, self.schemas)
        except ValueError as error:
            raise PluginError.terminal("PLUGIN_BATCH", f"the batch from the host cannot be read: {error}") from None

    def description(self) -> Any:
        it = self.plugin().descriptor()
        return self.types.Description(it.name, it.version, it.summary)

    def config_spec(self) -> list[Any]:
        return [_option(self.types, it) for it in self.plugin().descriptor().options]

    def check_config(self) -> list[Any]:
        found = self.optional(self.plugin(), "check", host.Config()) or []
        return [self.types.Problem(it.path, it.message, it.hint) for it in found]

    def promise(self) -> Any:
        return self.types.Guarantee[self.plugin().descriptor().guarantee]

    def probe(self) -> list[str]:
        try:
            return list(map(str, self.optional(self.plugin(), "probe", host.Config()) or []))
        except PluginError as error:
            raise self.bound.Err([_error(self.types, error)]) from None
        except ExceptionGroup as errors:
            if all(isinstance(it, PluginError) for it in errors.exceptions):
                raise self.bound.Err([_error(self.types, it) for it in errors.exceptions]) from None
            raise

    def rejections(self, rejected: Any) -> list[Any]:
        return [self.types.Rejection(index, _details(self.types, why)) for index, why in rejected]


def transform(plugin: Callable[[], Any], bound: Any) -> tuple[type, type]:
    """The classes that the world `transform` exports."""
    world = _World(plugin, bound)

    class Plugin:
        def descriptor(self) -> Any:
            return world.told(world.description, False)

        def config_spec(self) -> Any:
            return world.told(world.config_spec, False)

        def check_config(self) -> Any:
            return world.told(world.check_config, False)

    class Transforms:
        def open(self) -> None:
            def run() -> None:
                world.opened = plugin().open(host.Config())
            world.told(run)

        def process(self, data: bytes) -> Any:
            return world.told(lambda: process(data))

    def process(data: bytes) -> Any:
        opened = world.open()
        out = Output(world.batch(data))
        opened.process(out.batch, out)
        return bound.transforms.Outcome(out.finish(), world.rejections(out.rejected))

    return Plugin, Transforms


class _Connector:
    """The functions that sources and sinks have in common."""

    world: _World

    def descriptor(self) -> Any:
        return self.world.told(self.world.description, False)

    def config_spec(self) -> Any:
        return self.world.told(self.world.config_spec, False)

    def check_config(self) -> Any:
        return self.world.told(self.world.check_config, False)

    def promise(self) -> Any:
        return self.world.told(self.world.promise, False)

    def check(self) -> Any:
        return self.world.told(self.world.probe)


def _offsets_in(offsets: Any) -> dict[str, str]:
    return {it.partition: it.place for it in offsets if it.place is not None}


def source(plugin: Callable[[], Any], bound: Any) -> type:
    """The class that the world `source` exports."""
    wit = bound.sources
    its = _World(plugin, bound)

    def plan(tasks_max: int) -> Any:
        assignments = its.optional(plugin(), "plan", host.Config(), tasks_max)
        return [wit.Task(index, str(it)) for index, it in enumerate([""] if assignments is None else assignments)]

    def status() -> str:
        return str(its.optional(its.opened, "status") or "running")

    def open(task: Any, offsets: Any) -> str:
        its.opened = plugin().open(host.Config(), Task(task.index, task.assignment), _offsets_in(offsets))
        return status()

    def poll(budget: Any) -> Any:
        out = Records(its.schemas)
        said = polled(its.open(), Budget(budget.bytes, budget.records), out)
        offsets = [wit.Offset(partition, place) for partition, place in out.offsets.items()]
        if said is None:
            rejected = [wit.RejectedInput(it.position, it.data, _details(bound.types, it.why)) for it in out.rejected]
            found = wit.Found_Records(wit.Records(out.finish(), offsets, rejected))
        else:
            found = wit.Found_End() if said is Polled.END else wit.Found_Idle(offsets)
        return wit.Polled(found, status())

    def upstream_end() -> Any:
        end = its.optional(its.open(), "upstream_end")
        return None if end is None else wit.Position(str(end.document), str(end.text))

    def has_passed(durable: Any, end: Any) -> bool:
        position = Position(end.document, end.text)
        return bool(its.optional(its.opened, "has_passed", _offsets_in(durable), position))

    class Sources(_Connector):
        world = its

        def plan(self, tasks_max: int) -> Any:
            return its.told(lambda: plan(tasks_max))

        def open(self, task: Any, offsets: Any) -> str:
            return its.told(lambda: open(task, offsets))

        def poll(self, budget: Any) -> Any:
            return its.told(lambda: poll(budget))

        def commit(self, offsets: Any) -> None:
            its.told(lambda: its.optional(its.open(), "commit", _offsets_in(offsets)))

        def upstream_end(self) -> Any:
            return its.told(upstream_end)

        def has_passed(self, durable: Any, end: Any) -> bool:
            return its.told(lambda: has_passed(durable, end), False)

        def close(self) -> None:
            its.told(lambda: its.optional(its.open(), "close"))

    return Sources


def _partition_in(it: Any) -> TopicPartition:
    return TopicPartition(it.topic, it.partition)


def sink(plugin: Callable[[], Any], bound: Any) -> type:
    """The class that the world `sink` exports."""
    wit = bound.sinks
    its = _World(plugin, bound)

    def positions(of: Any) -> list[Any]:
        return [wit.Position(wit.TopicPartition(at.topic, at.partition), int(next)) for at, next in (of or {}).items()]

    def open() -> None:
        its.opened = Taken(plugin().open(host.Config()))

    def assign(added: Any) -> Any:
        all = [Assigned(_partition_in(it.partition), it.topic_id) for it in added]
        taken = its.open()
        taken.forget(it.partition for it in all)
        return positions(its.optional(taken.sink, "assign", all))

    def write(it: Any) -> Any:
        taken = its.open()
        partition = _partition_in(it.partition)
        delivery = Delivery(partition, it.topic_id, it.first_offset, it.next_offset, its.batch(it.batch))
        written = taken.write(delivery)
        durability = wit.Durability.DURABLE if written.is_durable else wit.Durability.ACCEPTED
        return wit.Written(durability, its.rejections(written.rejections))

    def revoke(removed: Any) -> None:
        all, taken = [_partition_in(it) for it in removed], its.open()
        its.optional(taken.sink, "revoke", all)
        taken.forget(all)

    class Sinks(_Connector):
        world = its

        def open(self) -> None:
            its.told(open)

        def assign(self, added: Any) -> Any:
            return its.told(lambda: assign(added))

        def write(self, delivery: Any) -> Any:
            return its.told(lambda: write(delivery))

        def flush(self) -> Any:
            return its.told(lambda: positions(its.open().flush()))

        def revoke(self, removed: Any) -> None:
            its.told(lambda: revoke(removed))

        def close(self) -> None:
            its.told(lambda: its.optional(its.open().sink, "close"))

    return Sinks
