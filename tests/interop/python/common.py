"""What the scripts of the Python clients share: cases, deadlines and the records that have to come back unchanged."""

import os
import sys
import time
import traceback
import uuid

DEADLINE_S = 60
RUN = uuid.uuid4().hex[:8]


def name(what):
    """A name that no other run has used."""
    return f"{what}-{RUN}-{uuid.uuid4().hex[:6]}"


class Deadline:
    """Time that runs out: `while deadline.check("what we wait for")`."""

    def __init__(self, seconds=DEADLINE_S):
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def check(self, what):
        if time.monotonic() > self.end:
            raise AssertionError(f"not within {self.seconds} s: {what() if callable(what) else what}")
        return True


def equal(seen, expected, what):
    if seen != expected:
        raise AssertionError(f"{what}: {clip(seen)} instead of {clip(expected)}")


def eventually(ask, expected, what):
    """Asks until the answer is the expected one: metadata travels to the broker that answers."""
    deadline = Deadline()
    while (seen := ask()) != expected:
        deadline.check(lambda: f"{what}: {clip(seen)} instead of {clip(expected)}")
        time.sleep(0.01)


def clip(value, limit=600):
    text = repr(value)
    return text if len(text) <= limit else text[:limit] + "…"


def records(count=120, big=200_000):
    """(key, value, headers) with all that a log must keep apart: null and empty, twice the same header, every byte."""
    made = []
    for i in range(count):
        key = None if i % 7 == 3 else b"" if i % 7 == 5 else f"key-{i}".encode()
        value = b"" if i % 11 == 5 else None if i % 11 == 7 and key else bytes((i * 31 + j) % 256 for j in range(i * 3))
        headers = [] if i % 3 else [("h", b"1"), ("h", b"2"), ("bytes", bytes(range(256))), ("empty", b"")]
        if i % 9 == 0:
            headers = headers + [("null", None)]
        made.append((key, value, headers))
    made.append((b"big", bytes(i % 251 for i in range(big)), [("größe", b"200 kB")]))
    return made


def run(cases):
    """Runs the cases in order; ends the process with 1 at the first failure."""
    begin = time.monotonic()
    for case in cases:
        start = time.monotonic()
        title = case.__name__.removeprefix("case_")
        try:
            case()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the result of the case
            traceback.print_exc()
            print(f"FAILED {title}: {type(error).__name__}: {error}", flush=True)
            sys.exit(1)
        print(f"ok {title} ({time.monotonic() - start:.2f} s)", flush=True)
    print(f"{len(cases)} passed, 0 failed", flush=True)
    print(f"done in {time.monotonic() - begin:.1f} s", flush=True)


def with_transactions(*cases):
    """Cases that want a broker with transactions: INTEROP_WITH says whether it has them."""
    return cases if "transactions" in os.environ.get("INTEROP_WITH", "") else ()


def with_new_groups(*cases):
    """Cases that want a broker with the groups' new protocol (KIP-848)."""
    return cases if "groups" in os.environ.get("INTEROP_WITH", "") else ()


def bootstrap():
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} HOST:PORT")
    return sys.argv[1]
