"""Write a Towpath plugin in Python: one class, named in pyproject.toml. It runs outside of Towpath too, as in tests."""

from .batch import Batch, Op, Record
from .describe import Descriptor, Element, OptionSpec, PluginError, Problem, Rejection
from .host import Config, log, monotonic_ns, now_ms, random
from .output import Output, Rewrite
from .row import ABSENT, Row, RowWriter
from .schema import Field, Schema, Schemas, SourceBlock

__all__ = [
    "ABSENT", "Batch", "Config", "Descriptor", "Element", "Field", "Op", "OptionSpec", "Output", "PluginError", "Problem",
    "Record", "Rejection", "Rewrite", "Row", "RowWriter", "Schema", "Schemas", "SourceBlock", "log", "monotonic_ns",
    "now_ms", "random",
]
