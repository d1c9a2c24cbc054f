"""Write a Towpath plugin in Python: one class, named in pyproject.toml. It runs outside of Towpath too, as in tests."""

from . import http, secrets, state, tcp
from .batch import Batch, Op, Record
from .connector import Assigned, Budget, Delivery, Polled, Position, Task, TopicPartition, Written
from .describe import Descriptor, Element, OptionSpec, PluginError, Problem, Rejection
from .host import Config, log, monotonic_ns, now_ms, random
from .output import Output, Rewrite
from .records import NewRecord, Records
from .row import ABSENT, Row, RowWriter
from .schema import Field, Schema, Schemas, SourceBlock

__all__ = [
    "ABSENT", "Assigned", "Batch", "Budget", "Config", "Delivery", "Descriptor", "Element", "Field", "NewRecord", "Op",
    "OptionSpec", "Output", "PluginError", "Polled", "Position", "Problem", "Record", "Records", "Rejection", "Rewrite", "Row",
    "RowWriter", "Schema", "Schemas", "SourceBlock", "Task", "TopicPartition", "Written", "http", "log", "monotonic_ns",
    "now_ms", "random", "secrets", "state", "tcp",
]
