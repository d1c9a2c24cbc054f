"""A source that does in one of its functions what it is told."""

from harm import act, describe
from towpath_sdk import Field, Schema


class Hostile:
    @staticmethod
    def descriptor():
        return describe("hostile_py")

    @staticmethod
    def check(config):
        return act("check_config")

    @staticmethod
    def probe(config):
        return act("check")

    @staticmethod
    def plan(config, tasks_max):
        return act("plan")

    @classmethod
    def open(cls, config, task, offsets):
        act("open")
        return cls()

    def poll(self, budget, out):
        said = act("poll")
        out.record(out.define(Schema("numbers", (Field("n", "int64"),)))).after([1]).finish()
        out.offset("numbers", 1)
        return said

    def commit(self, offsets):
        act("commit")

    def upstream_end(self):
        return act("upstream_end")

    def has_passed(self, durable, end):
        return act("has_passed")

    def status(self):
        return act("status") or "running"

    def close(self):
        act("close")
