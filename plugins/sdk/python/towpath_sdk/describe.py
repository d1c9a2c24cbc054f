"""What a plugin says of itself and of its failures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Iterable, Mapping, Optional


@dataclass(frozen=True)
class Rejection:
    """Why a record cannot be handled, now or ever."""

    code: str
    message: str
    hint: Optional[str] = None
    path: Optional[str] = None


class PluginError(Exception):
    """A failure of the plugin itself. Any other exception ends the instance, as a crash does."""

    def __init__(self, kind: str, why: Rejection, delay_ms: int = 0):
        super().__init__(why.message)
        self.kind, self.why, self.delay_ms = kind, why, delay_ms

    @classmethod
    def retry(cls, code: str, message: str, hint: Optional[str] = None, delay_ms: int = 1000) -> PluginError:
        """The world may heal by itself."""
        return cls("retry_after", Rejection(code, message, hint), delay_ms)

    @classmethod
    def needs_operator(cls, code: str, message: str, hint: Optional[str] = None) -> PluginError:
        """Somebody has to change something outside."""
        return cls("needs_operator", Rejection(code, message, hint))

    @classmethod
    def terminal(cls, code: str, message: str, hint: Optional[str] = None) -> PluginError:
        """Going on would lose or falsify data, or can never work."""
        return cls("terminal", Rejection(code, message, hint))


@dataclass(frozen=True)
class Element:
    """What a single value of an option is; `value` is what the contract's variant carries."""

    kind: str
    value: Any = None

    @classmethod
    def boolean(cls) -> Element:
        return cls("Boolean")

    @classmethod
    def integer(cls, least: int, most: int) -> Element:
        """Whole numbers from `least` to `most`, both included."""
        return cls("Integer", (least, most))

    @classmethod
    def text(cls) -> Element:
        return cls("Text")

    @classmethod
    def non_empty_text(cls) -> Element:
        return cls("NonEmptyText")

    @classmethod
    def url(cls, schemes: Iterable[str]) -> Element:
        """A URL with one of these schemes, each without `://`."""
        return cls("Url", tuple(schemes))

    @classmethod
    def path(cls) -> Element:
        return cls("Path")

    @classmethod
    def duration(cls) -> Element:
        """`10s`; read as milliseconds."""
        return cls("Duration")

    @classmethod
    def byte_size(cls) -> Element:
        """`64KiB`; read as bytes."""
        return cls("ByteSize")

    @classmethod
    def one_of(cls, words: Mapping[str, str]) -> Element:
        """One of these words, each with what it means."""
        return cls("OneOf", tuple(words.items()))

    @classmethod
    def scalar(cls) -> Element:
        """Text, number, boolean or null."""
        return cls("Scalar")

    @classmethod
    def any(cls) -> Element:
        """Any YAML."""
        return cls("Any")


@dataclass(frozen=True)
class OptionSpec:
    """One option in the YAML."""

    name: str
    element: Element
    doc: str
    required: bool = False
    shape: str = "ONE"
    default: Optional[str] = None
    secret: bool = False

    def many(self) -> OptionSpec:
        """It takes a list."""
        return replace(self, shape="MANY")

    def by_key(self) -> OptionSpec:
        """It takes several by name."""
        return replace(self, shape="BY_KEY")

    def with_default(self, value: Any) -> OptionSpec:
        """What counts when it is not given: a value in normal form (milliseconds, bytes)."""
        return replace(self, default=json.dumps(value))

    def as_secret(self) -> OptionSpec:
        """It is never shown."""
        return replace(self, secret=True)


@dataclass
class Descriptor:
    """What a plugin says of itself."""

    name: str
    version: str
    summary: str
    options: list[OptionSpec] = field(default_factory=list)
    guarantee: str = "AT_LEAST_ONCE"

    def exactly_once(self) -> Descriptor:
        """Promises that nothing comes twice, of a source or a sink."""
        self.guarantee = "EXACTLY_ONCE"
        return self

    def option(self, option: OptionSpec) -> Descriptor:
        """Adds an option."""
        self.options.append(option)
        return self


@dataclass(frozen=True)
class Problem:
    """Something wrong with the options that their types do not show: `path` is the option (`fields[1]`)."""

    path: str
    message: str
    hint: Optional[str] = None
