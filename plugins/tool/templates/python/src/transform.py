"""The transform `NAME`, in LANGUAGE."""

from towpath_sdk import Batch, Config, Descriptor, Element, OptionSpec, Output


class TYPE:
    """Drops records whose field holds a certain text."""

    @staticmethod
    def descriptor() -> Descriptor:
        return (
            Descriptor("NAME", "0.1.0", "Drops records whose field holds a certain text")
            .option(OptionSpec("field", Element.non_empty_text(), "The field to look at.", required=True))
            .option(OptionSpec("text", Element.text(), "Records that hold this text are dropped.", required=True))
        )

    @classmethod
    def open(cls, config: Config) -> "TYPE":
        return cls(config.text("field"), config.text("text"))

    def __init__(self, field: str, text: str):
        self.field, self.text = field, text

    def process(self, batch: Batch, out: Output) -> None:
        for record in batch:
            row = record.after()
            if row is None or row.by_name(self.field) != self.text:
                out.keep(record)
