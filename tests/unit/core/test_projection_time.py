"""What one file of the repository can cost whoever makes the view, and which files a rule names."""

from __future__ import annotations

import contextlib
import time

import pytest

from vestibule.core.model import ViewRule
from vestibule.core.projection import CannotProject, project, rules_for

MANY = 50_000


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("a.toml", "a." * MANY + "a = 1\n"),
        ("a.toml", "[" + "a ." * MANY + "a]\n"),
        ("a.toml", '"=".' + '"\\"".' * MANY + "a = 1\n"),
        ("a.toml", "'\"'." * MANY + "a = 1\n"),
        ("a.toml", 'x = "' + '\\"' * MANY + '"\n'),
        ("a.json", "{" + ",".join(f'"u{number}@example.com": 1' for number in range(MANY)) + "}"),
        ("a.json", "[" * MANY + "]" * MANY),
        ("a.json", "1" * MANY),
    ],
    ids=lambda value: value[:12],
)
@pytest.mark.parametrize("show", ["schema", "redacted"])
def test_a_hostile_file_costs_little(path: str, data: str, show: str) -> None:
    rule = ViewRule.model_validate({"paths": ("**",), "show": show})
    began = time.process_time()
    with contextlib.suppress(CannotProject):
        project(data.encode(), path, rule)
    assert time.process_time() - began < 4


def test_ordinary_dotted_keys_and_long_values_are_read() -> None:
    text = 'tool.a."b.c".d = "' + "1." * 200 + '"\nfloats = [' + "1.5, " * 300 + "]\n"
    shown = project(text.encode(), "a.toml", ViewRule(paths=("**",), show="fields", fields=("tool",)))
    assert b"1.1.1" in shown


def test_keys_with_one_placeholder_stay_apart() -> None:
    shown = project(
        b'{"a@example.com": 1, "b@example.com": 2, "c@example.com": 3}',
        "a.json",
        ViewRule(paths=("**",), show="redacted", redact=("email",)),
    )
    assert [b"email\xe2\x9f\xa7" + end in shown for end in (b'"', b' 2"', b' 3"')] == [True] * 3


@pytest.mark.parametrize("path", ["data/PATIENTS.CSV", "Data/patients.csv", "data/a.Csv"])
def test_a_view_holds_for_a_name_in_other_letters(path: str) -> None:
    rule = ViewRule(paths=("data/*.csv",), show="schema")
    assert rules_for(path, [rule]) == (rule,)
    assert rules_for("data/patients.csv.md", [rule]) == ()
    upper = ViewRule(paths=("DATA/**",), show="schema")
    assert rules_for(path, [upper]) == (upper,)


def test_a_rule_in_other_letters_takes_no_file_from_the_rule_that_names_it() -> None:
    loose, strict = ViewRule(paths=("DATA/**",), show="redacted"), ViewRule(paths=("data/**",), show="schema")
    assert rules_for("data/a.csv", [loose, strict]) == (strict,)
    assert rules_for("Data/a.csv", [loose, strict]) == (loose,)
