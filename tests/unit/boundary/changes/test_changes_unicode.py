"""Hidden Unicode: what hides logic is refused, what scripts need passes."""

from __future__ import annotations

import pytest
from changes_helpers import added, findings, judge, rules_of

VS = "".join(chr(0xFE00 + (n % 16)) for n in range(24))


@pytest.mark.parametrize(
    ("path", "text", "verdict"),
    [
        ("src/a.py", 'if level != "user\u202e \u2066// admin\u2069 \u2066":\n', "deny"),
        ("src/a.py", 'x = "\u2067abc\u2069"\n', "deny"),
        ("src/a.js", f"eval(decode(`{VS}`))\n", "deny"),
        ("src/a.js", "const a\ufe01b\ufe02c = 1\n", "deny"),
        ("src/a.js", "x = `" + "".join("a" + chr(0xE0100 + n) for n in range(9)) + "`\n", "deny"),
        ("src/a.py", "x = 1 # \U000e0068\U000e0069\n", "deny"),
        ("README.md", "hello \U000e0068\U000e0069\n", "deny"),
        ("src/a.py", "is\u200badmin = True\n", "deny"),
        ("src/a.py", "x = '" + "\u200b\u200c\u200d\u2060" * 4 + "'\n", "deny"),
        ("src/a.js", "const \u3164 = 1\n", "deny"),
        ("src/a.py", "x = '" + "".join(chr(0xE000 + n) for n in range(20)) + "'\n", "deny"),
        ("src/a.py", "x = 'a\u200b '\n", "hold"),
        ("src/a.py", "x = '\x1b[31m'\n", "hold"),
        ("src/a.py", "a = 1\rb = 2\n", "hold"),
        ("locales/ar.json", '{"a": "x\u202e y"}\n', "deny"),
        ("locales/ar.json", '{"a": "\u2067x", "b": "y\u2069"}\n', "deny"),
        ("locales/he.po", 'msgstr "\u202babc\u202c"\n', "hold"),
        # passes
        ("locales/ar.json", '{"a": "\u200f\u2067مرحبا\u2069 \u200f"}\n', "allow"),
        ("locales/he.json", '{"a": "\u2068שלום\u2069"}\n', "allow"),
        ("i18n/fa.json", '{"a": "می\u200cخواهم"}\n', "allow"),
        ("src/fa.py", "x = 'می\u200cخواهم'\n", "allow"),
        ("docs/ar.md", "نص \u200f(x)\n", "allow"),
        ("src/a.cs", "\ufeffusing System;\n", "allow"),
        ("src/a.py", "flag = '\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f'\n", "allow"),
        ("src/a.py", "x = '\u2764\ufe0f 1\ufe0f\u20e3 \U0001f468\u200d\U0001f469\u200d\U0001f467'\n", "allow"),
        ("src/a.py", "x = '\U0001f3f3\ufe0f\u200d\U0001f308'\n", "allow"),
        ("src/a.py", "# 日本語のコメント、全角\u3000。 µ λ\n", "allow"),
        ("src/a.c", "\x0c\nint x;\n", "allow"),
        ("docs/th.md", "ภาษา\u200bไทย\n", "allow"),
        ("src/a.txt", b"caf\xe9 latin\n", "allow"),
    ],
)
def test_hidden_unicode(path: str, text: str | bytes, verdict: str) -> None:
    items = findings(added(path, text))
    assert judge(added(path, text)) == verdict, items


def test_a_byte_order_mark_is_at_home_only_at_the_start_of_the_file() -> None:
    assert judge(added("a.cs", "x\n\ufeffy\n")) == "hold"


def test_hidden_characters_that_were_there_before_are_no_news() -> None:
    old = "a\nx = '\u202e'\n"
    assert judge(added("src/a.py", old + "y = 1\n", old=old)) == "allow"
    assert judge(added("src/a.py", old.replace("x =", "z ="), old=old)) == "deny"


def test_many_findings_of_one_file_are_counted_not_lost() -> None:
    items = findings(added("src/a.py", "x = '\u202e'\n" * 100))
    assert len(items) == 21
    assert any("79 more" in item.message or "80 more" in item.message for item in items)
    assert rules_of(items) == {"change.unicode.bidi"}
