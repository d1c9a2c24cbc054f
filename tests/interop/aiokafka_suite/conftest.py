"""What aiokafka's tests take from their conftest.py, for a broker that somebody else started."""

import asyncio
import gc
import os

import pytest

VERSION = "4.3.0"


def pytest_addoption(parser):
    parser.addoption("--docker-image", action="store", default=f"kafka:{VERSION}")


class Missing:
    """Certificates, users and rules of access: nothing that the suite could set up from outside."""

    def __getattr__(self, name):
        pytest.skip("wants a broker that the suite sets up itself")

    __truediv__ = __getattr__


@pytest.fixture(scope="class")
def loop():
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield loop
    if not loop.is_closed():
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
    gc.collect()
    asyncio.set_event_loop(None)


@pytest.fixture(scope="class")
def setup_test_class_serverless(request, loop):
    request.cls.loop = loop


@pytest.fixture(scope="class")
def setup_test_class(request, loop):
    host, port = os.environ["TOWPATH_BROKER"].split(":")
    tested = request.cls
    tested.loop = loop
    tested.kafka_host, tested.kafka_port = host, int(port)
    tested.hosts = [f"{host}:{port}"]
    tested.kafka_ssl_port = tested.kafka_sasl_plain_port = tested.kafka_sasl_ssl_port = 1
    tested.ssl_folder = tested.acl_manager = tested.kerberos_utils = tested.kafka_config = Missing()
    tested.kafka_version = VERSION
