"""The sink `NAME`, in LANGUAGE."""

from towpath_sdk import (
    Config, Delivery, Descriptor, Element, OptionSpec, PluginError, Rejection, Written, http,
)


class TYPE:
    """Sends one field of each record to a URL, a line each."""

    @staticmethod
    def descriptor() -> Descriptor:
        return (
            Descriptor("NAME", "0.1.0", "Lines, sent to a URL")
            .option(OptionSpec("url", Element.non_empty_text(), "Where to; its host must be granted.", required=True))
            .option(OptionSpec("field", Element.non_empty_text(), "The field to send.", required=True))
        )

    @classmethod
    def open(cls, config: Config) -> "TYPE":
        return cls(config.text("url"), config.text("field"))

    def __init__(self, url: str, field: str):
        self.url, self.field = url, field

    def write(self, delivery: Delivery) -> Written:
        lines, rejected = [], []
        for record in delivery.batch:
            row = record.after()
            text = None if row is None else row.by_name(self.field)
            if isinstance(text, str):
                lines.append(f"{text}\n")
            else:
                rejected.append((record, Rejection("LINES_FIELD", "the record has no such text")))
        # Nothing of a delivery may count in which there is a record that cannot be taken: it comes again without.
        if rejected:
            return Written.rejected(rejected)
        if lines:
            answer = http.send(self.url, "POST", body="".join(lines))
            if not answer.ok:
                raise PluginError.retry("LINES_STATUS", f"the receiver answers with {answer.status}")
        return Written.durable()
