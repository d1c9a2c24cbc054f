"""The source `NAME`, in LANGUAGE."""

from towpath_sdk import (
    Budget, Config, Descriptor, Element, Field, OptionSpec, PluginError, Records, Schema, Task, http,
)

LINES = Schema("lines", (Field("line", "text"),))


class TYPE:
    """Reads the lines of a page on the web, which gets longer."""

    @staticmethod
    def descriptor() -> Descriptor:
        return (
            Descriptor("NAME", "0.1.0", "Lines of a page on the web")
            .exactly_once()
            .option(OptionSpec("url", Element.non_empty_text(), "The page; its host must be granted.", required=True))
        )

    @classmethod
    def open(cls, config: Config, task: Task, offsets: dict[str, str]) -> "TYPE":
        # Where the last batch ended whose records are durable; nothing is stored before the first.
        read = offsets.get("lines", "0")
        if not read.isdecimal():
            raise PluginError.terminal("PAGE_OFFSET", "the stored number of lines cannot be read")
        return cls(config.text("url"), int(read))

    def __init__(self, url: str, read: int):
        self.url = url
        # Lines that have been read.
        self.read = read
        # Polls to sit out before the page is asked for again.
        self.rest = 0

    def poll(self, budget: Budget, out: Records) -> None:
        if self.rest > 0:
            self.rest -= 1
            return
        answer = http.send(self.url)
        if answer.status != 200:
            raise PluginError.retry("PAGE_STATUS", f"the page answers with {answer.status}")
        number = out.define(LINES)
        # A last line without its end is still being written.
        lines = answer.text().split("\n")[:-1]
        while self.read < len(lines) and len(out) < budget.records and out.bytes < budget.bytes:
            # The place of the record: by it a restarted task knows what its topic holds already.
            out.record(number).position(0, self.read).after({"line": lines[self.read]}).finish()
            self.read += 1
        if len(out) > 0:
            out.offset("lines", self.read)
        else:
            self.rest = 50

    def status(self) -> str:
        return f"{self.read} lines"
