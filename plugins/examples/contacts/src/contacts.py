"""Brings e-mail addresses, phone numbers and names into one form, so that the same person is the same text everywhere."""

import re
import unicodedata

from towpath_sdk import Descriptor, Element, OptionSpec, Problem, Rejection

WHITESPACE = re.compile(r"\s+")
LOCAL = re.compile(r"[^\s@\"(),:;<>\[\]\\]{1,64}")
# What people put between the digits of a phone number.
SEPARATORS = re.compile(r"[\s\-./()\u2010-\u2015]+")


class Unusable(Exception):
    """A text that is none of what it should be."""


def name(text: str) -> str:
    """One form of the letters, single spaces, none around."""
    return WHITESPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip()


def email(text: str, tags: bool) -> str:
    """The domain in lower case and in the letters of the net; without the tag behind `+` if that is wished."""
    local, at, domain = unicodedata.normalize("NFKC", text).strip().rpartition("@")
    if not at or not LOCAL.fullmatch(local):
        raise Unusable(f"`{text[:80]}` is no e-mail address")
    try:
        domain = domain.lower().encode("idna").decode("ascii")
    except UnicodeError:
        raise Unusable(f"`{text[:80]}` has no domain that can be") from None
    if "." not in domain:
        raise Unusable(f"`{text[:80]}` has no whole domain")
    local = local.lower() if tags else local.lower().partition("+")[0]
    return f"{local}@{domain}"


def phone(text: str, country: str) -> str:
    """E.164: `+`, the country's digits and the others."""
    digits = SEPARATORS.sub("", unicodedata.normalize("NFKC", text.replace("(0)", "")))
    if digits.startswith("+"):
        digits = digits[1:]
    elif digits.startswith("00"):
        digits = digits[2:]
    elif digits.startswith("0"):
        digits = country + digits[1:]
    else:
        digits = country + digits
    if not (digits.isascii() and digits.isdigit() and 8 <= len(digits) <= 15 and digits[0] != "0"):
        raise Unusable(f"`{text[:80]}` is no phone number")
    return f"+{digits}"


class Contacts:
    """The transform."""

    @staticmethod
    def descriptor() -> Descriptor:
        def of(option: str, doc: str) -> OptionSpec:
            return OptionSpec(option, Element.non_empty_text(), doc).many().with_default([])

        summary = "Brings e-mail addresses, phone numbers and names into one form"
        return (
            Descriptor("contacts", "0.1.0", summary)
            .option(of("emails", "The fields that hold an e-mail address."))
            .option(of("phones", "The fields that hold a phone number; they become `+491711234567`."))
            .option(of("names", "The fields that hold a name, or any other text."))
            .option(OptionSpec("country", Element.integer(1, 999), "The country of numbers that do not name theirs.")
                    .with_default(1))
            .option(OptionSpec("tags", Element.boolean(), "Whether `zoe+shop@example.org` keeps its `+shop`.")
                    .with_default(True))
            .option(OptionSpec("unusable", Element.one_of({
                "reject": "The record goes to the dead-letter topic.",
                "clear": "The field becomes null.",
                "keep": "The field stays as it is.",
            }), "What becomes of a text that is none of what it should be.").with_default("reject"))
        )

    @staticmethod
    def check(config) -> list[Problem]:
        problems, seen = [], set()
        for option in ("emails", "phones", "names"):
            for index, field in enumerate(config.texts(option)):
                if field in seen:
                    problems.append(Problem(f"{option}[{index}]", f"`{field}` is named twice"))
                seen.add(field)
        if not seen:
            problems.append(Problem("", "there is nothing to do", "name fields: `emails`, `phones`, `names`"))
        return problems

    @classmethod
    def open(cls, config):
        return cls(config)

    def __init__(self, config):
        tags, country = config.flag("tags"), str(config.integer("country"))
        self._unusable = config.text("unusable")
        self._forms = {}
        self._forms.update({field: lambda text: email(text, tags) for field in config.texts("emails")})
        self._forms.update({field: lambda text: phone(text, country) for field in config.texts("phones")})
        self._forms.update({field: name for field in config.texts("names")})

    def process(self, batch, out) -> None:
        for record in batch:
            row = record.after()
            if row is None:
                out.keep(record)
                continue
            try:
                changes = self._changes(row)
            except Unusable as why:
                out.reject(record, Rejection("CONTACTS_FORM", str(why)))
                continue
            if changes:
                out.rewrite(record).set(changes).finish()
            else:
                out.keep(record)

    def _changes(self, row) -> dict:
        changes = {}
        for field, form in self._forms.items():
            text = row.by_name(field)
            # Null, absent, not there, or no text at all.
            if not isinstance(text, str):
                continue
            try:
                formed = form(text)
            except Unusable:
                if self._unusable == "keep":
                    continue
                if self._unusable == "reject":
                    raise
                formed = None
            if formed != text:
                changes[field] = formed
        return changes
