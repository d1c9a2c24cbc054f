"""Stands in for the helper module of kafka-python's suite that its source archive does not hold.

The suite runs against a broker that is there already, so nothing has to be started."""


class ExternalService:
    """A broker that somebody else started."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def stop(self):
        pass


class SpawnedService:
    """A test that wants to start a broker of its own cannot run from outside."""

    def __init__(self, *_):
        raise RuntimeError("this suite runs against a broker from outside and starts none")
