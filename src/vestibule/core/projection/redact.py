"""Personal data by kinds, replaced by typed placeholders such as `⟦email⟧`. Pure.

Rules it keeps:
1. A value is replaced when the name of its field says what it is, or when it looks like it. In doubt it is replaced.
2. A placeholder tells the kind and nothing of the value: no hash, no length, no part of it, the same for all.
3. Every expression is linear in the text, or bounded.

What it cannot do: find a name or an address in running text, or a value that is written in words, split or encoded.
For data that must not be seen, `schema` or `fields` is the view.

Sources: Luhn (ISO/IEC 7812-1 annex B), IBAN check digits (ISO 13616, ISO 7064 mod 97-10), RFC 4122.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection
from datetime import date, time
from functools import lru_cache
from itertools import pairwise

from vestibule.core.projection.base import Tree

KINDS = (
    "secret",
    "email",
    "ip",
    "mac",
    "uuid",
    "iban",
    "credit_card",
    "ssn",
    "phone",
    "date_of_birth",
    "person_id",
    "address",
    "name",
)
"""In the order in which a field's name is tried."""
LOOKED_FOR = ("email", "ip", "mac", "uuid", "iban", "credit_card", "ssn", "phone")
"""Kinds that a value shows by itself, in running text too."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORD = re.compile(r"[^\W_]+")
_PERSON = {"patient", "person", "customer", "employee", "member", "user", "client", "subject", "student", "citizen"}
_THING = {
    "file", "host", "class", "table", "column", "field", "function", "method", "module", "package", "type", "event",
    "key", "tag", "path", "domain", "region", "service", "image", "branch", "project", "schema", "database", "bucket",
    "queue", "topic", "role", "group", "metric", "variable", "attribute", "element", "node", "server", "cluster",
}  # fmt: skip
_WORDS: dict[str, set[str]] = {
    "secret": {"password", "passwd", "passphrase", "pwd", "secret", "secrets", "token", "apikey", "credential",
               "credentials", "authorization", "cookie", "pin"},
    "email": {"email", "emails", "mail"},
    "ip": {"ip", "ipv4", "ipv6", "ipaddress", "ipaddr"},
    "mac": {"mac", "macaddress"},
    "uuid": {"uuid", "guid"},
    "iban": {"iban", "bic", "swift"},
    "credit_card": {"creditcard", "pan", "cvv", "cvc", "cardnumber", "cc"},
    "ssn": {"ssn", "passport", "nino", "taxid", "socialsecurity"},
    "phone": {"phone", "phones", "mobile", "telephone", "tel", "fax", "cellphone", "phonenumber"},
    "date_of_birth": {"dob", "birth", "birthdate", "birthday", "birthdays", "born"},
    "person_id": {"mrn", "patientid", "personid", "customerid", "employeeid"},
    "address": {"address", "addresses", "street", "zip", "zipcode", "postcode", "postal", "city", "town"},
    "name": {"surname", "forename", "firstname", "lastname", "fullname", "nickname", "username", "givenname",
             "familyname", "middlename"},
}  # fmt: skip
_PAIRS: dict[tuple[str, str], str] = {
    ("api", "key"): "secret",
    ("access", "key"): "secret",
    ("private", "key"): "secret",
    ("e", "mail"): "email",
    ("credit", "card"): "credit_card",
    ("card", "number"): "credit_card",
    ("account", "number"): "iban",
    ("social", "security"): "ssn",
    ("national", "id"): "ssn",
    ("tax", "id"): "ssn",
    ("insurance", "number"): "ssn",
}


@lru_cache(maxsize=4096)
def by_name(field: str) -> tuple[str, ...]:
    """The kinds that a field of this name can be of."""
    if "⟦" in field:  # a key that was replaced
        return ()
    words = [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", field))]
    found = [kind for kind in KINDS if any(word in _WORDS[kind] for word in words)]
    found += [kind for pair, kind in _PAIRS.items() if pair in pairwise(words)]
    last = words[-1] if words else ""
    before = words[-2] if len(words) > 1 else ""
    if last in ("name", "names") and before not in _THING:
        found.append("name")
    if last in ("id", "ids", "number", "no") and before in _PERSON:
        found.append("person_id")
    return tuple(dict.fromkeys(found))


def placeholder(kind: str) -> str:
    return f"⟦{kind}⟧"


def redact(tree: Tree, kinds: Collection[str]) -> Tree:
    """The document with values of these kinds replaced, in keys too."""
    return _redact(tree, tuple(kind for kind in KINDS if kind in kinds), None)


@lru_cache(maxsize=4096)
def _key(key: str, kinds: tuple[str, ...]) -> tuple[str, str | None]:
    """How a key is shown, and the kind that it says its value is of."""
    return redact_text(key, kinds), next((kind for kind in by_name(key) if kind in kinds), None)


def _redact(tree: Tree, kinds: tuple[str, ...], named: str | None) -> Tree:
    if isinstance(tree, dict):
        found: dict[str, Tree] = {}
        numbers: dict[str, int] = {}  # where to go on: many keys may have one placeholder
        for key, value in tree.items():
            plain, own = _key(key, kinds)
            shown, number = plain, numbers.get(plain, 2)
            while shown in found:
                shown, number = f"{plain} {number}", number + 1
            numbers[plain] = number
            found[shown] = _redact(value, kinds, own or named)
        return found
    if isinstance(tree, list):
        return [_redact(item, kinds, named) for item in tree]
    if tree is None or tree == "":
        return tree
    if named is not None:
        return placeholder(named)
    if isinstance(tree, str):
        return redact_value(tree, kinds)
    if isinstance(tree, (bool, date, time)):
        return tree
    text = str(tree)
    return tree if redact_text(text, kinds) == text else redact_text(text, kinds)


_LINE = re.compile(
    r"^([ \t>*-]{0,16}[\"']?)([^\W\d][\w .-]{0,63}?)([\"']?[ \t]{0,8}[:=][ \t]{0,8})(\S.*)$", re.MULTILINE
)


_PAIR = re.compile(
    r"(?<![\w.-])([A-Za-z_][\w.-]{0,63})([\"']?[ \t]{0,4}[=:][ \t]{0,4})"
    r"((?:Bearer |Basic )?(?:\"[^\"\n]{0,512}\"|'[^'\n]{0,512}'|[^\s,;&\"']{1,512}))"
)


def redact_lines(text: str, kinds: Collection[str]) -> str:
    """Text without a structure of its own: what looks like a kind, and what stands behind `Name:` or `name=`.

    Behind a name that begins a line everything is replaced, elsewhere one word or what is quoted.
    """
    wanted = tuple(kind for kind in KINDS if kind in kinds)

    def replace(match: re.Match[str]) -> str:
        kind = next((kind for kind in by_name(match[2]) if kind in wanted), None)
        return f"{match[1]}{match[2]}{match[3]}{placeholder(kind)}" if kind else match[0]

    def within(match: re.Match[str]) -> str:
        kind = next((kind for kind in by_name(match[1]) if kind in wanted), None)
        return f"{match[1]}{match[2]}{placeholder(kind)}" if kind else match[0]

    for _ in range(_PASSES):
        shown = redact_text(_PAIR.sub(within, _LINE.sub(replace, text)), wanted)
        if shown == text:
            break
        text = shown
    return text


def redact_value(text: str, kinds: Collection[str]) -> str:
    """A text that is one value: it can hold lines or pairs of its own, as a message of a log does."""
    return redact_lines(text, kinds) if "=" in text or ":" in text else redact_text(text, kinds)


Put = Callable[[str, str], str]
"""Kind and value → what stands in its place."""


def redact_text(text: str, kinds: Collection[str], put: Put | None = None) -> str:
    """The text with everything that looks like one of these kinds replaced, by `put` if given."""
    put = put or _plain
    for _ in range(_PASSES):
        shown = _once(text, kinds, put)
        if shown == text:
            break
        text = shown
    return text


def _plain(kind: str, _value: str) -> str:
    return placeholder(kind)


def _once(text: str, kinds: Collection[str], put: Put) -> str:
    if "email" in kinds and "@" in text:
        text = _EMAIL.sub(lambda match: _if(match, "email", any(char.isalpha() for char in match[1]), put), text)
    if _DIGIT.search(text) or text.count(":") > 1:
        for kind, replace in _NUMBERS:
            if kind in kinds:
                text = replace(text, put)
    return text


def _if(match: re.Match[str], kind: str, really: bool, put: Put) -> str:
    return put(kind, match[0]) if really else match[0]


_PASSES = 8
"""What stood beside a value can look like one once that value is gone."""

_DIGIT = re.compile(r"\d")
_EMAIL = re.compile(r"(?<![\w.+%'!#$&*/=?^`{|}~-])[\w.+%'!#$&*/=?^`{|}~-]++@(\[?[\w.:-]++\]?)")
_UUID = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{8}(?:-?[0-9A-Fa-f]{4}){3}-?[0-9A-Fa-f]{12}(?![0-9A-Fa-f])")
_IPV4 = re.compile(r"(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]{2,39}(?:\d{1,3}(?:\.\d{1,3}){3})?(?![\w:])")
_MAC = re.compile(r"(?<![\w:-])(?:[0-9A-Fa-f]{2}([:-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![\w:-])")
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?:[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}|[A-Za-z]{2}\d{2}[A-Za-z0-9]{11,30})")
_DIGITS = re.compile(r"(?<!\d)\d{2,}(?:[ -]\d{2,})*")
_SSN = re.compile(r"(?<![\d-])\d{3}[- ]\d{2}[- ]\d{4}(?![\d-])")
_PHONE = re.compile(
    r"(?<![\w+])(?:\+|00)[1-9](?:[ ().\-/]{0,2}\d){6,14}(?!\d)"
    r"|(?<![\w.-])(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\d-])"
    r"|(?<![\w.-])0\d{2,4}[ /-]\d{3,8}(?:[ -]\d{2,4}){0,2}(?![\d-])"
)


def _ipv6(text: str) -> bool:
    if text.count(":") < 2 or not any(char.isalnum() for char in text):
        return False
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1: whether the check digit fits."""
    total = 0
    for at, char in enumerate(reversed(digits)):
        value = int(char) * (1 + at % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def _cards(text: str, put: Put) -> str:
    return _DIGITS.sub(lambda match: _cards_in(match[0], put), text)


def _cards_in(text: str, put: Put) -> str:
    """Every card number among groups of digits replaced; it begins and ends with a group."""
    groups = [(match.start(), match.end()) for match in re.finditer(r"\d+", text)]
    out, done = [], 0
    for at, (start, _) in enumerate(groups):
        if start < done or text[start] not in "23456":
            continue
        digits = ""
        for first, last in groups[at : at + 9]:
            digits += text[first:last]
            if len(digits) > 19:
                break
            if len(digits) >= 13 and luhn(digits):
                out += [text[done:start], put("credit_card", text[start:last])]
                done = last
                break
    return "".join([*out, text[done:]])


def _ibans(text: str, put: Put) -> str:
    return _IBAN.sub(lambda match: _iban(match, put), text)


def _iban(match: re.Match[str], put: Put) -> str:
    """The longest beginning whose check digits fit is replaced; a word that follows stays."""
    places = [at for at, char in enumerate(match[0]) if char not in " -"]
    for length in range(min(34, len(places)), 14, -1):
        code = "".join(match[0][at] for at in places[:length]).upper()
        if int("".join(str(int(char, 36)) for char in code[4:] + code[:4])) % 97 == 1:
            return put("iban", code) + match[0][places[length - 1] + 1 :]
    return match[0]


def _always(kind: str, pattern: re.Pattern[str]) -> Callable[[str, Put], str]:
    return lambda text, put: pattern.sub(lambda match: put(kind, match[0]), text)


_NUMBERS: tuple[tuple[str, Callable[[str, Put], str]], ...] = (
    ("uuid", _always("uuid", _UUID)),
    ("mac", _always("mac", _MAC)),
    ("ip", lambda text, put: _IPV6.sub(lambda match: _if(match, "ip", _ipv6(match[0]), put), text)),
    ("ip", _always("ip", _IPV4)),
    ("iban", _ibans),
    ("credit_card", _cards),
    ("ssn", _always("ssn", _SSN)),
    ("phone", _always("phone", _PHONE)),
)
