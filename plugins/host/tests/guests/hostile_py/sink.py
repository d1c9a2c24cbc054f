"""A sink that does in one of its functions what it is told."""

from harm import act, describe
from towpath_sdk import Written


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

    @classmethod
    def open(cls, config):
        act("open")
        return cls()

    def assign(self, added):
        return act("assign")

    def write(self, delivery):
        return act("write") or Written.accepted()

    def flush(self):
        act("flush")

    def revoke(self, removed):
        act("revoke")

    def close(self):
        act("close")
