"""Secrets: known formats and known values, over encodings, and never shown."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable

import pytest
from changes_helpers import added, findings, judge, rules_of, token
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.boundary.changes.guards import GuardContext
from vestibule.core.text.layers import layers
from vestibule.core.text.secrets import KnownSecret, part_of


def jwt(claims: dict[str, object], seed: int = 1) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}.{token('url', 43, seed)}"


FORMATS: dict[str, str] = {
    "aws": "AKIA" + token("upper", 16),
    "aws secret": "aws_secret_access_key = '" + token("base64", 38) + "A1'",
    "github": "ghp_" + token("alnum", 36),
    "github fine": "github_pat_" + token("alnum", 22) + "_" + token("alnum", 59),
    "gitlab": "glpat-" + token("alnum", 20),
    "slack": "xoxb-" + token("alnum", 12, 1) + "-" + token("alnum", 24, 2),
    "stripe": "sk_live_" + token("alnum", 24),
    "google": "AIza" + token("alnum", 35),
    "npm": "npm_" + token("alnum", 36),
    "pypi": "pypi-AgEIcHlwaS5vcmc" + token("url", 70),
    "anthropic": "sk-ant-api03-" + token("url", 93) + "AA",
    "openai": "sk-proj-" + token("alnum", 48),
    "hugging face": "hf_" + token("alnum", 34),
    "sendgrid": "SG." + token("url", 22) + "." + token("url", 43),
    "twilio": "SK" + token("hex", 32),
    "digitalocean": "dop_v1_" + token("hex", 64),
    "vault": "hvs." + token("alnum", 90),
    "jwt": jwt({"sub": "user-7", "iss": "https://idp.example.com"}),
    "url": "postgres://app:" + token("alnum", 20) + "@db.example.com/x",
}
ENCODINGS: dict[str, Callable[[str], str]] = {
    "plain": lambda s: s,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64url in more": lambda s: base64.urlsafe_b64encode(f"user:{s}:x".encode()).decode().rstrip("="),
    "hex": lambda s: s.encode().hex(),
    "reversed": lambda s: s[::-1],
    "percent": lambda s: "".join(f"%{b:02x}" for b in s.encode()),
    "base64 of hex": lambda s: base64.b64encode(s.encode().hex().encode()).decode(),
    "escapes": lambda s: "".join(f"\\x{b:02x}" for b in s.encode()),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("kind", FORMATS)
def test_known_formats_are_found_in_every_encoding(kind: str, encoding: str) -> None:
    text = f'value = """{ENCODINGS[encoding](FORMATS[kind])}"""\n'
    items = findings(added("src/config.py", text))
    assert rules_of(items) & {"change.secret.format"}, items


@pytest.mark.parametrize(
    "kind", [kind for kind in FORMATS if kind not in ("aws secret", "url", "jwt", "sendgrid", "slack")]
)
def test_known_formats_are_found_when_split_into_pieces(kind: str) -> None:
    value = FORMATS[kind]
    pieces = [value[i : i + 9] for i in range(0, len(value), 9)]
    text = "x = (\n" + "\n".join(f'    "{piece}" +' for piece in pieces) + "\n)\n"
    assert "change.secret.format" in rules_of(findings(added("src/a.py", text)))


KNOWN = KnownSecret("the forge token", ("tok_" + token("alnum", 40, 9)).encode())
CONTEXT = GuardContext(write=("**",), secrets=(KNOWN,))
VALUE = KNOWN.value.decode()
FORMS: dict[str, Callable[[str], str]] = {
    **ENCODINGS,
    "without its start": lambda s: s[7:],
    "a window of twelve": lambda s: s[15:27],
    "in upper hex with colons": lambda s: ":".join(f"{b:02X}" for b in s.encode()),
    "wrapped base64": lambda s: "\n".join(
        base64.b64encode((s * 4).encode()).decode()[i : i + 60] for i in range(0, 240, 60)
    ),
    "percent, mixed": lambda s: urllib.parse.quote(s[:10]) + "".join(f"%{b:02x}" for b in s[10:].encode()),
    "joined with plus": lambda s: '" + "'.join(s[i : i + 5] for i in range(0, len(s), 5)),
    "dotted": ".".join,
    "byte values": lambda s: ", ".join(str(b) for b in s.encode()),
    "reversed base64": lambda s: base64.b64encode(s.encode()).decode()[::-1],
    "base64 of reversed": lambda s: base64.b64encode(s[::-1].encode()).decode(),
    "pieces of seven among words": lambda s: " ".join(f"w{i} {s[i : i + 7]};" for i in range(4, 40, 7)),
}


@pytest.mark.parametrize("form", FORMS)
def test_known_values_are_found_whole_or_in_part_and_never_shown(form: str) -> None:
    items = findings(added("src/a.py", f'x = "{FORMS[form](VALUE)}"\n'), context=CONTEXT)
    assert "change.secret.value" in rules_of(items), items
    shown = " ".join(f"{i.message} {i.excerpt} {i.fix} {i.fingerprint}" for i in items)
    assert not any(VALUE[i : i + 8] in shown for i in range(4, len(VALUE) - 8))


def test_a_value_split_over_files_is_found() -> None:
    half = len(VALUE) // 2
    changes = [added(f"src/{n}.py", f"p{n} = '{VALUE[i : i + 10]}'\n") for n, i in enumerate((0, 10, 20, 30))]
    assert "change.secret.value" in rules_of(findings(*changes, context=CONTEXT))
    two = [added("a.py", f"a = '{VALUE[:half]}'\n"), added("b.py", f"b = '{VALUE[half:]}'\n")]
    assert "change.secret.value" in rules_of(findings(*two, context=CONTEXT))


def test_a_value_in_a_file_name_a_link_or_a_binary_is_found() -> None:
    from vestibule.boundary.changes.changeset import make_change

    for change in (
        make_change(f"src/{VALUE}.py", b"x = 1\n"),
        make_change("src/l", VALUE.encode(), mode="120000"),
        make_change("src/x.dat", b"\0\1\2" + VALUE.encode() + b"\0"),
    ):
        items = findings(change, context=CONTEXT)
        assert "change.secret.value" in rules_of(items), change.path
        assert not any(VALUE[4:16] in item.model_dump_json() for item in items)


def test_no_other_guard_quotes_a_line_that_holds_a_secret() -> None:
    line = f"x = '{VALUE}'  # nosec \u202e\n"
    items = findings(added("src/a.py", line), context=CONTEXT)
    assert {i.rule for i in items} >= {"change.secret.value", "change.unicode.bidi", "change.review.suppression"}
    assert not any(VALUE[4:16] in f"{i.message}{i.excerpt}" for i in items)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("README.md", "fixes regression from 4b825dc642cb6eb9a060e54bf8d69288fbee4904\n"),
        ("README.md", "sha256:" + "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n"),
        ("src/a.py", "id = '123e4567-e89b-12d3-a456-426614174000'\n"),
        (".env.example", "API_KEY=your-api-key-here\nPASSWORD=changeme\n"),
        ("docs/a.md", "export AWS_ACCESS_KEY_ID=AKIA" + "IOSFODNN7" + "EXAMPLE\n"),
        ("docs/a.md", "token: ghp_" + "x" * 36 + "\n"),
        ("src/a.py", "url = 'postgres://user:password@localhost/db'\n"),
        ("src/a.py", "url = f'postgres://{user}:{password}@{host}/db'\n"),
        ("src/a.py", "from secrets import token_urlsafe\npassword = getpass()\n"),
        ("tests/fixtures/logo.b64", token("base64", 12_000)),
        ("package-lock.json", '"integrity": "sha512-' + token("base64", 86) + '=="\n'),
        ("src/a.py", "secret = os.environ['SECRET']\nsk-learn is fun; task-runner-with-many-parts-in-its-name\n"),
    ],
)
def test_what_only_looks_like_a_secret_passes(path: str, text: str) -> None:
    items = findings(added(path, text))
    assert judge(added(path, text)) == "allow", items


def test_the_sample_token_of_the_standard_page_passes_and_another_does_not() -> None:
    sample = jwt({"sub": "1234567890", "name": "John Doe", "iat": 1516239022}, 4)
    assert judge(added("tests/test_jwt.py", f"T = '{sample}'\n")) == "allow"
    other = jwt({"sub": "1234567890", "name": "John Doe", "iss": "https://idp.example.com"}, 4)
    assert judge(added("tests/test_jwt.py", f"T = '{other}'\n")) == "deny"


def private_key() -> str:
    body = token("base64", 64 * 6)
    lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
    return f"-----BEGIN PRIVATE KEY-----\n{lines}\n-----END PRIVATE KEY-----\n"


def test_a_private_key_passes_only_as_a_declared_test_fixture() -> None:
    key = private_key()
    assert judge(added("src/server.key", key)) == "deny"
    assert judge(added("src/server.key", "# test only\n" + key)) == "deny"
    assert judge(added("tests/certs/test_only.key", key)) == "hold"
    assert judge(added("tests/certs/test_only.key", "# Test key, not a secret\n" + key)) == "allow"
    assert judge(added("src/a.py", f"K = {key!r}\n")) == "deny"
    encoded = base64.b64encode(key.encode()).decode()
    assert judge(added("tests/certs/k.txt", "# Test key, not a secret\n" + encoded + "\n")) == "deny"
    assert judge(added("src/a.py", 'if "BEGIN PRIVATE KEY" in text:\n')) == "allow"


def test_a_random_literal_for_something_secret_waits_for_a_person() -> None:
    assert judge(added("src/a.py", f'db_password = "{token("alnum", 30)}"\n')) == "hold"


def test_common_beginnings_of_tokens_are_no_part_of_a_value() -> None:
    known = KnownSecret("key", ("sk-ant-api03-" + token("url", 93, 3)).encode())
    context = GuardContext(write=("**",), secrets=(known,))
    assert judge(added("docs/a.md", "keys begin with sk-ant-api03-\n"), context=context) == "allow"


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=24, max_size=60), st.data())
def test_every_window_of_twelve_is_found(core: bytes, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(core) - 12))
    window = core[start : start + 12]
    if len(set(window)) < 6:
        return
    noise = data.draw(st.binary(max_size=20))
    assert part_of(core, noise + window + noise) is not None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_layers_of_any_bytes_never_fail_and_begin_with_the_text(data: bytes) -> None:
    found = list(layers(data))
    assert found[0].data == data


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=16, max_size=64), st.binary(max_size=8), st.booleans())
def test_base64_is_decoded_at_any_alignment(core: bytes, before: bytes, url: bool) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    text = b"x = '" + encode(before + core) + b"'"
    assert any(core in layer.data for layer in layers(text))
