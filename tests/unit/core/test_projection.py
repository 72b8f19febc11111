"""What a view rule does not show is in no byte of what it shows; a file that cannot be read strictly is not shown."""

from __future__ import annotations

import csv
import io
import json
import re
import struct
import tomllib
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.core.model import ViewRule
from vestibule.core.projection import KINDS, MAX_BYTES, CannotProject, project, rules_for
from vestibule.core.projection import redact as redaction

SECRET = "zzSENTINELzz"


def rule(show: Any, *fields: str, redact: tuple[str, ...] = (), by: Any = "repository") -> ViewRule:
    return ViewRule(paths=("**",), show=show, fields=fields, redact=redact, by=by)


def shown(path: str, text: str | bytes, *rules: ViewRule) -> str:
    return project(text.encode() if isinstance(text, str) else text, path, rules).decode()


PATIENTS = {
    "records": [
        {"id": 7, "name": "Ada Lovelace", "visits": [{"date": "2024-01-01", "note": "cough"}]},
        {"id": 8, "name": "Alan Turing", "visits": [], "extra": {"x": 1.5}},
    ],
    "total": 2,
}


# --- fields -------------------------------------------------------------------------------------------------


def test_only_the_fields_that_are_named_are_shown_in_the_files_own_format() -> None:
    paths = ("records.id", "records.visits.date")
    want = {"records": [{"id": 7, "visits": [{"date": "2024-01-01"}]}, {"id": 8}]}
    assert json.loads(shown("a.json", json.dumps(PATIENTS), rule("fields", *paths))) == want
    assert yaml.safe_load(shown("a.yaml", yaml.safe_dump(PATIENTS), rule("fields", *paths))) == want


def test_a_star_is_any_one_name_and_never_two() -> None:
    data = {"a": {"id": 1, "deep": {"id": 2}}, "b": {"id": 3}}
    assert json.loads(shown("a.json", json.dumps(data), rule("fields", "*.id"))) == {"a": {"id": 1}, "b": {"id": 3}}


def test_names_that_nothing_has_show_nothing() -> None:
    assert json.loads(shown("a.json", json.dumps(PATIENTS), rule("fields", "none", "records.none", "total.x"))) == {}
    assert json.loads(shown("a.json", json.dumps([PATIENTS]), rule("fields", "none"))) == []


def test_json_lines_stay_lines() -> None:
    text = '{"id": 1, "name": "x"}\n\n{"id": 2}\n{"name": "y"}\n'
    assert shown("log.jsonl", text, rule("fields", "id")) == '{"id": 1}\n{"id": 2}\n'


def test_columns_of_tables() -> None:
    text = 'id,name,"note"\r\n1,"Ada, L.",a\r\n\r\n2,Alan,"b\nc"\r\n'
    assert shown("t.csv", text, rule("fields", "id", "note")) == 'id,note\n1,a\n2,"b\nc"\n'
    assert shown("t.csv", "id;name\n1;Ada\n", rule("fields", "name")) == "name\nAda\n"
    assert shown("t.tsv", "id\tname\n1\tAda\n", rule("fields", "name")) == "name\nAda\n"
    assert shown("t.csv", text, rule("header", "*")) == "id,name,note\n"


def test_toml_ini_and_environment_files() -> None:
    server = '[server]\nhost = "a"\npassword = "p"\nports = [1, 2]\nwhen = 2024-01-01\n'
    toml = f'title = "x"\n{server}[[users]]\nname = "u"\nid = 1\n'
    found = tomllib.loads(shown("a.toml", toml, rule("fields", "server.host", "server.when", "users.id")))
    assert found["server"]["host"] == "a"
    assert str(found["server"]["when"]) == "2024-01-01"
    assert found["users"] == [{"id": 1}]
    assert set(found) == {"server", "users"}
    assert shown("a.ini", "[db]\nhost = h\npassword = p\n", rule("fields", "db.host")) == "[db]\nhost = h\n"
    assert shown(".env", "# c\nexport HOST=h\nKEY='k k'\n", rule("fields", "KEY")) == 'KEY="k k"\n'
    assert shown("prod.env", "A=1\nB=2\n", rule("fields", "A")) == "A=1\n"


def test_comments_and_anchors_never_pass() -> None:
    text = f"a: &x 1 # {SECRET}\nb: {{c: *x}}\n# {SECRET}\n"
    assert yaml.safe_load(shown("a.yaml", text, rule("fields", "b"))) == {"b": {"c": 1}}
    assert SECRET not in shown("a.yaml", f"m: a@example.com\n{text}", rule("redacted"))
    assert SECRET not in shown("a.toml", f"m = 'a@example.com' # {SECRET}\n", rule("redacted"))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.json", '{ "a":1 }'),
        ("a.yaml", "a: 1 # why\n"),
        ("a.csv", "a, b\n1,2\n"),
        ("a.py", "x = 1\n"),
        (".env", "#c\nA=1\n"),
    ],
)
def test_a_redacted_view_with_nothing_to_replace_is_the_file_itself(path: str, text: str) -> None:
    assert shown(path, text, rule("redacted")) == text
    if path in ("a.yaml", ".env", "a.py"):
        assert "example.com" not in shown(path, f"{text}# ask ada@example.com\n", rule("redacted"))


LEAVES = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.text(max_size=8)
KEYS = st.sampled_from(["id", "name", "open", "deep", "x y"])
PATHS_OF_FIELDS = st.lists(st.lists(KEYS | st.just("*"), min_size=1, max_size=3).map(".".join), min_size=1, max_size=4)


def _documents(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=12,
    )


def _marked(tree: Any, at: tuple[str, ...], found: dict[str, tuple[str, ...]]) -> Any:
    """The document with every value replaced by a mark of its own, and where each mark stands."""
    if isinstance(tree, dict):
        return {key: _marked(value, (*at, key), found) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_marked(item, at, found) for item in tree]
    mark = f"zz{len(found)}zz"
    found[mark] = at
    return mark


def _named(at: tuple[str, ...], paths: list[str]) -> bool:
    return any(
        len(at) >= len(parts) and all(part in ("*", name) for part, name in zip(parts, at, strict=False))
        for parts in (path.split(".") for path in paths)
    )


@settings(max_examples=200, deadline=None)
@given(_documents(st.just(0)), PATHS_OF_FIELDS, st.sampled_from(["json", "yaml", "jsonl"]))
def test_a_value_is_shown_exactly_when_its_field_is_named(tree: Any, paths: list[str], suffix: str) -> None:
    marks: dict[str, tuple[str, ...]] = {}
    tree = _marked(tree, (), marks)
    data = yaml.safe_dump(tree) if suffix == "yaml" else json.dumps(tree)
    found = shown(f"f.{suffix}", data, rule("fields", *paths))
    for mark, at in marks.items():
        assert (mark in found) == _named(at, paths)
    assert shown(f"f.{suffix}", found, rule("fields", *paths)) == found


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["a", "b", "c"]),
            st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
            min_size=3,
            max_size=3,
        ),
        max_size=5,
    )
)
def test_no_cell_outside_the_named_columns_is_shown(rows: list[dict[str, str]]) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(["a", "b", "c"])
    writer.writerows([f"{SECRET}{row['a']}", row["b"], f"{SECRET}\n{row['c']}"] for row in rows)
    try:
        found = shown("t.csv", out.getvalue(), rule("fields", "b"))
    except CannotProject:
        return
    assert SECRET not in found
    assert [row["b"] for row in csv.DictReader(io.StringIO(found, newline=""))] == [row["b"] for row in rows]


# --- schema -------------------------------------------------------------------------------------------------


def test_a_schema_has_names_and_types_joined_over_all_records() -> None:
    found = json.loads(shown("a.json", json.dumps(PATIENTS), rule("schema")))
    item = found["properties"]["records"]["items"]
    assert item["properties"]["id"] == {"type": "integer"}
    assert item["properties"]["visits"]["items"]["properties"]["date"] == {"type": "string", "format": "date"}
    assert item["required"] == ["id", "name", "visits"]
    assert item["properties"]["extra"]["properties"]["x"] == {"type": "number"}


def test_a_schema_does_not_tell_how_many_records_there_are() -> None:
    some, many = [{"a": 1, "b": None}, {"a": "x"}], [{"a": 1, "b": None}, {"a": "x"}] * 50
    assert shown("a.json", json.dumps(some), rule("schema")) == shown("a.json", json.dumps(many), rule("schema"))
    assert shown("t.csv", "a,b\n1,\n", rule("schema")) == shown("t.csv", "a,b\n" + "7,\n" * 9, rule("schema"))
    assert json.loads(shown("a.json", json.dumps(some), rule("schema")))["items"]["properties"] == {
        "a": {"type": ["integer", "string"]},
        "b": {"type": "null"},
    }


@pytest.mark.parametrize(
    "keys",
    [
        ["ada@example.com", "x"],
        ["192.0.2.1", "x"],
        ["7f3c2a9e-1111-4222-8333-444455556666", "x"],
        ["20240101123", "x"],
        ["0123456789abcdef0123", "x"],
        [f"person {number}" for number in range(300)],
    ],
)
def test_keys_that_are_data_are_not_in_a_schema(keys: list[str]) -> None:
    found = shown("a.json", json.dumps(dict.fromkeys(keys, 1)), rule("schema"))
    assert not any(key in found for key in keys if key != "x")
    assert json.loads(found)["additionalProperties"] == {"type": "integer"}


def test_records_by_key_do_not_show_their_keys() -> None:
    people = {"ada": {"age": 36, "city": "x"}, "alan": {"age": 41}}
    found = json.loads(shown("a.json", json.dumps({"people": people}), rule("schema")))
    assert found["properties"]["people"]["properties"] == {}
    assert set(found["properties"]["people"]["additionalProperties"]["properties"]) == {"age", "city"}
    assert "ada" not in json.dumps(found)


@settings(max_examples=150, deadline=None)
@given(_documents(st.just(SECRET) | st.just(987654321) | st.just(9876.54321) | st.none()))
def test_no_value_is_in_a_schema(tree: Any) -> None:
    for path, data in (("a.json", json.dumps(tree)), ("a.yaml", yaml.safe_dump(tree)), ("a.jsonl", json.dumps(tree))):
        found = shown(path, data, rule("schema"))
        assert SECRET not in found
        assert "98765" not in found
        assert json.loads(found)["$schema"].startswith("https://json-schema.org/")


def test_a_schema_of_a_table_needs_a_row_of_names() -> None:
    assert json.loads(shown("t.csv", "id,ok,when\n1,true,2024-01-01\n,false,\n", rule("schema")))["items"][
        "properties"
    ] == {
        "id": {"type": ["null", "integer"]},
        "ok": {"type": "boolean"},
        "when": {"type": ["null", "string"], "format": "date"},
    }
    for text in ("1,2,3\n4,5,6\n", "Ada,ada@example.com\n", "a,a\n1,2\n", ",b\n1,2\n", "2024-01-01,x\n"):
        with pytest.raises(CannotProject):
            shown("t.csv", text, rule("schema"))


# --- redacted -----------------------------------------------------------------------------------------------

VALUES = {
    "email": ["ada@example.com", "a.b+c@mail.example.co.uk", '"<ada@example.com>"'],
    "ip": ["192.0.2.17", "2001:db8::8a2e:370:7334", "::ffff:192.0.2.1"],
    "mac": ["00:1A:2b:3c:4D:5e", "00-1A-2B-3C-4D-5E"],
    "uuid": ["123e4567-e89b-12d3-a456-426614174000"],
    "iban": ["DE89370400440532013000", "GB29 NWBK 6016 1331 9268 19", "DE89 3704 0044 0532 0130 00 and more"],
    "credit_card": [
        "4111111111111111",
        "4111 1111 1111 1111",
        "5500-0000-0000-0004 12/27",
        "id 77 4111 1111 1111 1111",
    ],
    "ssn": ["078-05-1120"],
    "phone": ["+49 30 1234567", "(555) 123-4567", "555-123-4567", "+1 (555) 123-4567", "030 1234567"],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in VALUES.items() for value in values])
@pytest.mark.parametrize("path", ["a.json", "a.yaml", "a.csv", "notes.txt", "a.toml"])
def test_values_that_look_like_personal_data_are_replaced(kind: str, value: str, path: str) -> None:
    text = f"before {value} after"
    data = {
        "a.json": json.dumps([{"x": text, value: 1}]),
        "a.yaml": yaml.safe_dump({"x": [text]}),
        "a.csv": f'x,y\n1,"{text.replace(chr(34), "")}"\n',
        "a.toml": "x = " + json.dumps(text),
        "notes.txt": f"{text}\n",
    }[path]
    digits = re.sub(r"[^0-9A-Za-z]", "", value)[-6:]
    found = shown(path, data, rule("redacted"))
    assert "⟦" in found
    assert value.strip('"<>') not in found
    assert digits not in re.sub(r"[^0-9A-Za-z]", "", found.replace("more", "")) or "more" in value
    assert shown(path, found, rule("redacted")) == found
    only = shown(path, data, rule("redacted", redact=(kind,)))
    assert f"⟦{kind}⟧" in only


def test_fields_are_replaced_by_their_names() -> None:
    person = {
        "firstName": "Ada",
        "last_name": "L",
        "dateOfBirth": "1815-12-10",
        "address": {"street": "x", "geo": [1.5, 2]},
        "Telephone": 12345,
        "api_key": "k",
        "customer_id": 17,
        "fileName": "kept.txt",
        "id": 5,
        "active": True,
        "nothing": None,
        "email": "",
    }
    assert json.loads(shown("a.json", json.dumps(person), rule("redacted"))) == {
        "firstName": "⟦name⟧",
        "last_name": "⟦name⟧",
        "dateOfBirth": "⟦date_of_birth⟧",
        "address": {"street": "⟦address⟧", "geo": ["⟦address⟧", "⟦address⟧"]},
        "Telephone": "⟦phone⟧",
        "api_key": "⟦secret⟧",
        "customer_id": "⟦person_id⟧",
        "fileName": "kept.txt",
        "id": 5,
        "active": True,
        "nothing": None,
        "email": "",
    }


def test_a_card_number_stored_as_a_number_is_replaced() -> None:
    assert json.loads(shown("a.json", '{"x": 4111111111111111, "y": 41}', rule("redacted"))) == {
        "x": "⟦credit_card⟧",
        "y": 41,
    }


def test_lines_of_text_are_replaced_by_their_names() -> None:
    text = "Name: Ada Lovelace\nstate = ok\npassword=hunter2\n- Date of birth: 10 Dec 1815\nError: none\n"
    assert shown("a.txt", text, rule("redacted")) == (
        "Name: ⟦name⟧\nstate = ok\npassword=⟦secret⟧\n- Date of birth: ⟦date_of_birth⟧\nError: none\n"
    )


def test_pairs_within_a_line_are_replaced_by_their_names() -> None:
    text = "12:00 INFO user=bob password=hunter2, phone='030 12' Authorization: Bearer abc.def retries=3\n"
    assert shown("a.log", text, rule("redacted", redact=("secret", "phone"))) == (
        "12:00 INFO user=bob password=⟦secret⟧, phone=⟦phone⟧ Authorization: ⟦secret⟧ retries=3\n"
    )


def test_pairs_within_a_value_are_replaced_too() -> None:
    text = json.dumps({"message": "login user=7 password=hunter2", "note": "Name: Ada Lovelace\nok"})
    found = json.loads(shown("a.json", text, rule("redacted")))
    assert found == {"message": "login user=7 password=⟦secret⟧", "note": "Name: ⟦name⟧\nok"}


def test_a_placeholder_is_the_same_for_every_value() -> None:
    found = {
        shown("a.json", json.dumps({"x": value}), rule("redacted")) for value in ("a@example.com", "bob.b@example.org")
    }
    assert found == {'{"x": "⟦email⟧"}\n'}


def test_ordinary_text_stays() -> None:
    text = "Version 1.2.3 of 2024-01-01 at 12:30:45 has 1000000 lines, see section 4.5.\n"
    assert shown("a.txt", text, rule("redacted")) == text


def test_kinds_apply_to_fields_and_headers_too() -> None:
    data = json.dumps({"id": "a@example.com", "name": "n", "hidden": 1})
    found = json.loads(shown("a.json", data, rule("fields", "id", "name", redact=("email", "name"))))
    assert found == {"id": "⟦email⟧", "name": "⟦name⟧"}
    assert shown("t.csv", "name,x\nAda,1\n", rule("fields", "*", redact=("name",))) == "name,x\n⟦name⟧,1\n"


# --- two rules ----------------------------------------------------------------------------------------------


def test_the_first_rule_of_each_side_counts_and_both_hold() -> None:
    above = rule("redacted", by="organisation")
    assert rules_for("a.json", [above, rule("schema", by="organisation"), rule("fields", "id"), rule("schema")]) == (
        above,
        rule("fields", "id"),
    )
    data = json.dumps({"id": "a@example.com", "name": "Ada"})
    assert json.loads(shown("a.json", data, above, rule("fields", "id"))) == {"id": "⟦email⟧"}
    assert "Ada" not in shown("a.json", data, rule("fields", "*", by="organisation"), rule("schema"))


def test_a_repository_cannot_loosen_what_the_organisation_shows() -> None:
    above = rule("fields", "id", by="organisation")
    data = json.dumps({"id": 1, "name": SECRET})
    for own in (rule("fields", "*"), rule("redacted", redact=("mac",)), rule("schema"), rule("fields", "name")):
        assert SECRET not in shown("a.json", data, above, own)


# --- headers ------------------------------------------------------------------------------------------------


def test_text_headers_end_at_the_first_empty_line() -> None:
    text = f"From: ada@example.com\r\nSubject: a\r\n folded\r\nX-Own: {SECRET}\r\n\r\nSubject: {SECRET}\r\n"
    assert shown("m.eml", text, rule("header", "from", "SUBJECT")) == "From: ada@example.com\nSubject: a folded\n\n"
    assert shown("m.eml", text, rule("header", "from", redact=("email",))) == "From: ⟦email⟧\n\n"
    with pytest.raises(CannotProject):
        shown("m.eml", "no header\n\n", rule("header", "*"))


def _element(tag: int, vr: str, value: bytes, *, explicit: bool = True) -> bytes:
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if vr in ("OB", "OW", "SQ", "UN", "UT"):
        return head + vr.encode() + b"\0\0" + struct.pack("<I", len(value)) + value
    return head + vr.encode() + struct.pack("<H", len(value)) + value


def _dicom(*, explicit: bool = True, sequence: bytes | None = None) -> bytes:
    syntax = b"1.2.840.10008.1.2.1" if explicit else b"1.2.840.10008.1.2"
    secret = SECRET.encode()
    inner = _element(0x00080100, "SH", secret, explicit=explicit)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + inner + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    head = struct.pack("<HH", 0x0008, 0x1140) + (b"SQ\0\0" if explicit else b"") + struct.pack("<I", 0xFFFFFFFF)
    nested = head + item + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0) if sequence is None else sequence
    return b"".join(
        [
            bytes(128),
            b"DICM",
            _element(0x00020010, "UI", syntax),
            _element(0x00080005, "CS", b"ISO_IR 192", explicit=explicit),
            _element(0x00080060, "CS", b"MR", explicit=explicit),
            nested,
            _element(0x00090010, "LO", secret, explicit=explicit),
            _element(0x00100010, "PN", "Müller^Ada".encode(), explicit=explicit),
            _element(0x00100020, "LO", b"12345", explicit=explicit),
            _element(0x00280010, "US", struct.pack("<H", 512), explicit=explicit),
            _element(0x00280030, "DS", b"0.5\\0.5", explicit=explicit),
            _element(0x7FE00010, "OW", secret * 10, explicit=explicit),
        ]
    )


@pytest.mark.parametrize("explicit", [True, False])
def test_the_header_of_a_dicom_file(explicit: bool) -> None:
    found = json.loads(shown("a.dcm", _dicom(explicit=explicit), rule("header", "Modality", "(0028,0010)", "00280030")))
    assert found == {
        "00080060": {"vr": "CS", "Value": ["MR"]},
        "00280010": {"vr": "US", "Value": [512]},
        "00280030": {"vr": "DS", "Value": ["0.5", "0.5"]},
    }


@pytest.mark.parametrize("explicit", [True, False])
def test_pixels_sequences_and_private_elements_are_never_shown(explicit: bool) -> None:
    for view in (rule("header", "*"), rule("redacted"), rule("schema"), rule("fields", "*", "00090010", "00081140")):
        found = shown("scan", _dicom(explicit=explicit), view)
        assert SECRET not in found
        assert set(json.loads(found)) >= {"00080060", "00100010"}
    assert json.loads(shown("a.dcm", _dicom(explicit=explicit), rule("header", "PatientName")))["00100010"] == {
        "vr": "PN",
        "Value": [{"Alphabetic": "Müller^Ada"}],
    }
    hidden = shown("a.dcm", _dicom(explicit=explicit), rule("redacted"))
    assert "Ada" not in hidden
    assert "12345" not in hidden
    assert "Value" not in shown("a.dcm", _dicom(explicit=explicit), rule("schema"))


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:150],
        lambda data: data.replace(b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2"),
        lambda data: data[: data.index(b"MR") - 2],
        lambda data: data.replace(b"DICM", b"DICX"),
        lambda data: data[: data.index(b"ISO_IR") - 8] + b"\x08\x00\x05\x00cs\x02\x00AA",
    ],
)
def test_a_broken_dicom_file_is_not_shown(change: Any) -> None:
    data = change(_dicom())
    try:
        found = shown("a.dcm", data, rule("header", "Modality"))
    except CannotProject:
        return
    assert SECRET not in found


LAUGHS = b"a0: &a0 [x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b",".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 12)
)
"""A document whose aliases stand for more values than there is memory."""


# --- what cannot be shown -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "data", "view"),
    [
        ("a.json", b'{"a": 1, "a": 2}', rule("fields", "a")),
        ("a.json", b'{"a": NaN}', rule("fields", "a")),
        ("a.json", b'{"a": 1e999}', rule("fields", "a")),
        ("a.json", b"[" * 100_000, rule("fields", "a")),
        ("a.json", b"[" * 70 + b"]" * 70, rule("fields", "a")),
        ("a.json", b'{"a": ' + b"9" * 5000 + b"}", rule("schema")),
        ("a.json", b"\xff\xfe{", rule("redacted")),
        ("a.json", b'{"a": 1', rule("redacted")),
        ("a.json", b"{}", rule("header", "a")),
        ("a.jsonl", b'{"a": 1}\nnot json\n', rule("fields", "a")),
        ("a.yaml", b"a: 1\na: 2\n", rule("fields", "a")),
        ("a.yaml", b"a: !!python/object:x {}\n", rule("fields", "a")),
        ("a.yaml", b"--- 1\n--- 2\n", rule("fields", "a")),
        ("a.yaml", b"a: &a [*a]\n", rule("fields", "a")),
        ("a.yaml", b"a: {<<: {b: 1}}\n", rule("fields", "a")),
        ("a.yaml", b"[" * 5000, rule("fields", "a")),
        ("a.yaml", LAUGHS, rule("fields", "a0")),
        ("a.csv", b"a,b\n1\n", rule("fields", "a")),
        ("a.csv", b'a,b\n"1,2\n', rule("fields", "a")),
        ("a.csv", b"a,b\n1,\0\n", rule("fields", "a")),
        ("a.ini", b"x = 1\n[a]\n", rule("fields", "a")),
        ("a.ini", b"[a]\n[a]\n", rule("fields", "a")),
        (".env", b"A='1\nSECRET_PART=2'\n", rule("schema")),
        (".env", b"just text\n", rule("redacted")),
        ("a.toml", b"a = \n", rule("redacted")),
        ("notes.txt", b"text\n", rule("fields", "a")),
        ("notes.txt", b"text\n", rule("schema")),
        ("image.png", b"\x89PNG\0\0", rule("redacted")),
        ("a.json", b" " * (MAX_BYTES + 1), rule("redacted")),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_read_strictly_is_not_shown(path: str, data: bytes, view: ViewRule) -> None:
    with pytest.raises(CannotProject) as error:
        project(data, path, view)
    assert "SECRET" not in str(error.value)


PATHS = st.sampled_from(
    ["a.json", "a.jsonl", "a.yaml", "a.toml", "a.ini", ".env", "a.csv", "a.tsv", "a.dcm", "a.txt", "a.eml"]
)
RULES = st.sampled_from(
    [
        rule("fields", "a.b", "*.c"),
        rule("schema"),
        rule("header", "a", "*"),
        rule("redacted"),
        rule("redacted", redact=("email",)),
    ]
)
SNIPPETS = [
    b'{"a": [1, {"b": null}]}',
    b"a: [1, {b: 2}]\n",
    b"a,b\n1,2\n",
    b"[a]\nb = 1\n",
    b"A=1\n",
    b"a: b\n\nbody",
    b"&x *x",
    b"\0",
    b"- ",
    b'"',
]


@settings(max_examples=300, deadline=None)
@given(PATHS, st.lists(st.sampled_from(SNIPPETS) | st.binary(max_size=24), max_size=5).map(b"".join), RULES)
def test_whatever_the_bytes_are_nothing_but_a_typed_refusal_comes(path: str, data: bytes, view: ViewRule) -> None:
    for given_bytes in (data, bytes(128) + b"DICM" + data):
        try:
            found = project(given_bytes, path, view)
        except CannotProject:
            continue
        assert len(found) <= MAX_BYTES
        assert project(given_bytes, path, view) == found


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.integers(132, 400), RULES)
def test_a_dicom_file_with_any_bytes_changed_is_read_or_refused(junk: bytes, at: int, view: ViewRule) -> None:
    data = _dicom()
    data = data[:at] + junk + data[at + len(junk) :]
    try:
        project(data, "a.dcm", view)
    except CannotProject:
        return


def test_every_kind_has_words_and_a_known_name() -> None:
    assert set(redaction._WORDS) == set(KINDS)
    assert set(VALUES) <= set(KINDS)


def _card(digits: str) -> str:
    return next(f"{digits}{last}" for last in range(10) if redaction.luhn(f"{digits}{last}"))


def _iban(country: str, rest: str) -> str:
    number = int("".join(str(int(char, 36)) for char in f"{rest}{country}00"))
    return f"{country}{98 - number % 97:02d}{rest}"


def _grouped(text: str, mark: str) -> str:
    return mark.join(text[at : at + 4] for at in range(0, len(text), 4))


SENSITIVE = st.one_of(
    st.from_regex(r"[a-z0-9][a-z0-9._+%-]{0,20}@[a-z0-9-]{1,20}(\.[a-z]{2,8}){1,2}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda item: item.compressed).filter(lambda text: any(char.isalnum() for char in text)),
    st.uuids().map(str),
    st.from_regex(r"[2-6][0-9]{14}", fullmatch=True).map(_card),
    st.from_regex(r"[2-6][0-9]{14}", fullmatch=True).map(_card).map(lambda text: _grouped(text, " ")),
    st.from_regex(r"[2-6][0-9]{14}", fullmatch=True).map(_card).map(lambda text: _grouped(text, "-")),
    st.builds(_iban, st.sampled_from(["DE", "GB", "FR"]), st.from_regex(r"[0-9]{18}", fullmatch=True)),
    st.builds(_iban, st.just("GB"), st.from_regex(r"[A-Z]{4}[0-9]{14}", fullmatch=True)).map(
        lambda text: _grouped(text, " ")
    ),
    st.from_regex(r"[0-9]{3}-[0-9]{2}-[0-9]{4}", fullmatch=True),
    st.from_regex(r"\+[1-9][0-9]{0,2} [0-9]{2,4} [0-9]{5,7}", fullmatch=True),
)
BEFORE = st.sampled_from(["", " ", "see ", "(", "<", "'", '"', "=", ": ", ",", "[", "card ", "\n"])
AFTER = st.sampled_from(["", " ", ")", ">", "'", '"', ",", ";", " and more", ". Then", "]", "\n"])


@settings(max_examples=400, deadline=None)
@given(BEFORE, SENSITIVE, AFTER, st.sampled_from(["a.json", "a.yaml", "a.txt", "a.csv"]))
def test_a_sensitive_value_is_found_wherever_it_stands(before: str, value: str, after: str, path: str) -> None:
    text = f"{before}{value}{after}"
    data = {
        "a.json": json.dumps({"x": [text], "y": {text: 1}}),
        "a.yaml": yaml.safe_dump({"x": text}),
        "a.txt": text,
        "a.csv": 'x,y\n"' + text.replace('"', '""') + '",1\n',
    }[path]
    found = shown(path, data, rule("redacted"))
    assert value not in found
    assert "⟦" in found


@settings(max_examples=300, deadline=None)
@given(st.lists(BEFORE | SENSITIVE | AFTER | st.sampled_from(["name", "token=", "x"]), max_size=8).map("".join))
def test_replacing_again_replaces_nothing_more(text: str) -> None:
    for path, data in (("a.txt", text), ("a.json", json.dumps({"x": text}))):
        once = shown(path, data, rule("redacted"))
        assert shown(path, once, rule("redacted")) == once
