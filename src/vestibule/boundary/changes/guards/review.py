"""Added or removed text that a person must see: a table, one row a rule. No row names a payload.

Each row is a construct whose purpose is to run, hide, weaken or destroy; whether it is right here is a person's call.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vestibule.boundary.changes.changeset import Change, ChangeSet, decode_path
from vestibule.boundary.changes.guards.base import GuardContext, capped, found
from vestibule.core.model import Finding
from vestibule.core.text.globs import first_match
from vestibule.core.text.paths import fold
from vestibule.core.verdict import Ruling


@dataclass(frozen=True, slots=True)
class Row:
    """Files (globs on folded paths, with exceptions) × an expression over each added line."""

    rule: str
    ruling: Ruling
    message: str
    files: tuple[str, ...]
    pattern: re.Pattern[bytes]
    but_not: tuple[str, ...] = ()
    in_tests: Ruling | None = None
    """Tests quote what they test against."""


TESTS = ("**/test{,s}/**", "**/__tests__/**", "**/test_*", "**/*_test.*", "**/*.test.*", "**/*.spec.*", "**/spec/**")
PROSE = ("**/*.md", "**/*.rst", "**/*.txt", "**/*.adoc", "docs/**")
_CODE = (
    "**/*.{py,pyw,js,mjs,cjs,ts,mts,cts,jsx,tsx,vue,svelte,php,rb,go,rs,java,kt,c,h,cc,cpp,cs,swift,scala,sh,bash,ps1}",
)

ROWS: tuple[Row, ...] = (
    Row(
        "change.review.decoded_code",
        Ruling.DENY,
        "Text is decoded and run as code.",
        _CODE,
        re.compile(
            rb"\b(?:exec|eval|Function|compile|execScript|assert|loads?tring|iex|Invoke-Expression)\s*\(?.{0,120}"
            rb"(?:b64decode|b32decode|a85decode|atob\s*\(|base64_decode|unhexlify|fromhex|codecs\.decode|marshal\.loads|"
            rb"zlib\.decompress|gzinflate|FromBase64String|from\([^)]{0,4000}['\"](?:base64|hex)['\"]|fromCharCode|fromCodePoint)"
        ),
        in_tests=Ruling.HOLD,
    ),
    Row(
        "change.review.piped_shell",
        Ruling.HOLD,
        "Something downloaded is run by a shell or interpreter.",
        ("**",),
        re.compile(
            rb"(?i)\b(?:curl|wget|iwr|invoke-webrequest)\b[^\n|;]{0,300}\|\s*(?:sudo\s+)?(?:ba|z|da|k)?sh\b"
            rb"|\b(?:curl|wget)\b[^\n|;]{0,300}\|\s*(?:sudo\s+)?(?:python|perl|ruby|node|php)"
            rb"|\b(?:ba|z)?sh\s+(?:-c\s+)?[\"']?[<$]\(\s*(?:curl|wget)\b"
        ),
        but_not=PROSE,
    ),
    Row(
        "change.review.generate",
        Ruling.HOLD,
        "A directive runs a command when code is generated.",
        ("**/*.go",),
        re.compile(rb"^\s*//go:(?:generate|cgo_|linkname)"),
    ),
    Row(
        "change.review.destructive_sql",
        Ruling.HOLD,
        "A statement destroys data.",
        ("**/*.sql", "**/migrations/**", "**/migrate/**", "**/alembic/**", "**/flyway/**", "**/liquibase/**"),
        re.compile(
            rb"(?i)\b(?:drop\s+(?:table|database|schema|column|view|index|type|role|user)|truncate\s+(?:table\s+)?\w"
            rb"|delete\s+from\s+[\w.\"`\[\]]+\s*(?:;|\Z)|drop_(?:table|column|index|constraint)|DeleteModel|RemoveField|grant\s+all)"
        ),
        but_not=TESTS,
    ),
    Row(
        "change.review.swallowed_failure",
        Ruling.HOLD,
        "A failure is swallowed where checks run.",
        (
            "**/package.json",
            "**/makefile{,.*,-*}",
            "**/*.mk",
            "**/*.{sh,bash,yml,yaml,toml,ini,cfg}",
            "**/tox.ini",
            "**/justfile",
        ),
        re.compile(
            rb"\|\|\s*(?:true|:|exit\s+0)(?![\w-])|^\s*set\s+\+e\b|continue-on-error\s*:\s*true|allow_failure\s*:\s*true"
            rb"|--exit-zero\b|--passWithNoTests\b|ignore_errors\s*[:=]\s*(?:yes|true)"
        ),
    ),
    Row(
        "change.review.suppression",
        Ruling.HOLD,
        "A finding of a checker is suppressed.",
        _CODE,
        re.compile(
            rb"(?:#|//|/\*|<!--|--)\s*(?:nosec\b|nosemgrep|noqa\s*:\s*S[0-9]|lgtm\b|codeql\[|snyk:ignore|gitleaks:allow|pragma:\s*allowlist"
            rb"|eslint-disable|nolint|NOSONAR|tslint:disable|@ts-nocheck|semgrep-disable|trivy:ignore|checkov:skip|zizmor:\s*ignore"
            rb"|detect-secrets|bandit:\s*skip|pylint:\s*disable=all)"
        ),
    ),
    Row(
        "change.review.runner_hook",
        Ruling.DENY,
        "A test hook changes what the runner reports.",
        ("**/conftest.py", "**/*plugin*.py"),
        re.compile(
            rb"\boutcome\s*=\s*['\"]passed['\"]|\bdef\s+pytest_(?:runtest_makereport|report_teststatus|sessionfinish)\b"
            rb"|\b(?:exitstatus|exitcode)\s*=\s*0\b"
        ),
    ),
    Row(
        "change.review.forced_exit",
        Ruling.HOLD,
        "A test run ends early with success.",
        (*TESTS, "**/conftest.py"),
        re.compile(rb"\bos\._exit\(\s*0?\s*\)|\bprocess\.exit\(\s*0?\s*\)|\bsys\.exit\(\s*0?\s*\)"),
    ),
    Row(
        "change.review.remote_build_input",
        Ruling.HOLD,
        "An image is built from something remote.",
        ("**/dockerfile{,.*,-*}", "**/*.dockerfile", "**/containerfile{,.*,-*}"),
        re.compile(rb"(?i)^\s*(?:ADD\s+(?:--\S+\s+)*(?:https?|git|ftp)[:@]|FROM\s)"),
    ),
    Row(
        "change.review.production_setting",
        Ruling.HOLD,
        "A security setting of a live environment changes.",
        (
            "**/{prod,production,live}{,.*,-*}",
            "**/{prod,production,live}/**",
            "**/*{.,-,_}prod{,uction}.*",
            "**/flags/**",
        ),
        re.compile(
            rb"(?i)(?:auth|2fa|mfa|tls|ssl|verify|secur|admin|permission|acl|cors|csrf|debug|encrypt|allow|deny|require"
            rb"|enabled?|disabled?)"
        ),
        but_not=PROSE,
    ),
)
"""The table. A held row is the review gate's business; a denied one has no honest use in a change of an agent's."""

_GUARD = re.compile(
    rb"(?i)\b(?:is_?(?:admin|staff|superuser|owner|authenticated)|has_?(?:perm|permission|role|scope)s?|require[sd]?_?(?:auth|login|admin|role)"
    rb"|login_required|permission_required|check_?(?:permission|auth|access)|authorize[d]?|verify_?(?:token|signature|csrf)|csrf_protect|abort\(40[13]\))"
)


def examine(changes: ChangeSet, context: GuardContext) -> Iterator[Finding]:  # noqa: ARG001 - one protocol for all
    moved = {decode_path(change.old_path) for change in changes.changes if change.old_path}
    for change in changes.changes:
        yield from capped(_rows(change))
        yield from _removed_guards(change)
        if change.status == "D" and is_test(change.name) and change.name not in moved:
            yield found(
                "change.review.test_removed",
                Ruling.HOLD,
                "A test file is deleted.",
                change,
                fix="Keep the test, or say in the change why what it tested is gone.",
            )


def is_test(name: str) -> bool:
    return first_match(fold(name), TESTS) is not None


def _rows(change: Change) -> Iterator[Finding]:
    if not change.added:
        return
    folded = fold(change.name)
    for row in ROWS:
        if not first_match(folded, row.files) or first_match(folded, row.but_not):
            continue
        ruling = row.in_tests if row.in_tests and is_test(change.name) else row.ruling
        for number, line in change.added:
            if row.pattern.search(line[:20_000]):
                yield found(
                    row.rule,
                    ruling,
                    row.message,
                    change,
                    line=number,
                    excerpt=line[:400],
                    fix="Leave it out, or let a person decide with the reason in view.",
                )


def _removed_guards(change: Change) -> Iterator[Finding]:
    """A check of rights that is gone from the file and not back in another line."""
    if change.old is None or change.status not in ("M", "R") or not first_match(fold(change.name), _CODE):
        return
    if is_test(change.name):
        return
    before, after = len(_GUARD.findall(change.old)), len(_GUARD.findall(change.new or b""))
    if after < before:
        yield found(
            "change.review.guard_removed",
            Ruling.HOLD,
            "A check of identity or rights is removed.",
            change,
            fix="Keep the check, or say where it is made now.",
        )
