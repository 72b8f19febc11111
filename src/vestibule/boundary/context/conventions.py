"""What an agent should know of a repository to write in its style, from the files that it is shown. Pure.

Rules this module keeps:
1. Everything comes from paths of the view, so nothing tells of a file that is hidden, not even a count.
2. Of CODEOWNERS only lines that own a file of the view are given, and of a line only its owners: a pattern can name
   what is hidden.
3. Everything is bounded.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from vestibule.core.model import Spec
from vestibule.core.text.globs import ImpossibleGlob, check_given_glob, matches
from vestibule.core.text.sanitize import one_line

MAX_FOLDERS = 80
MAX_DEPTH = 3
MAX_NAMED = 20
"""Files of the view that the spec names."""
MAX_NEAR = 8
"""Similar files, and tests, for each of them."""
MAX_CONFIGURATION = 30
MAX_OWNED = 40
"""Files whose owners are named: those of the spec, else the first of the view."""
MAX_OWNER_LINES = 1_000
MAX_OWNERS_BYTES = 256 * 1024

CONFIGURATION = re.compile(
    r"(?:\.editorconfig|\.clang-format|\.clang-tidy|\.prettierrc.*|prettier\.config\..*|\.eslintrc.*|eslint\.config\..*"
    r"|biome\.jsonc?|\.stylelintrc.*|tsconfig.*\.json|pyproject\.toml|setup\.cfg|tox\.ini|\.?ruff\.toml|\.flake8|\.pylintrc"
    r"|mypy\.ini|pytest\.ini|\.rubocop\.yml|\.golangci\.ya?ml|rustfmt\.toml|\.?rustfmt\.toml|clippy\.toml|checkstyle\.xml"
    r"|\.php-cs-fixer.*|phpcs\.xml.*|\.swiftlint\.yml|\.scalafmt\.conf|\.ktlint|detekt\.yml|Makefile|justfile"
    r"|package\.json|go\.mod|Cargo\.toml|pom\.xml|build\.gradle.*)\Z"
)
"""Names of files that say how code is formatted, checked or built."""

_TEST_FOLDERS = frozenset({"test", "tests", "spec", "specs", "__tests__", "testing"})
_TEST_NAME = re.compile(r"(?:\Atests?[_-]|[_.-](?:tests?|specs?)\Z|Tests?\Z|Spec\Z|\ATest(?=[A-Z]))")


def conventions(paths: Sequence[str], spec: Spec, owners: str = "") -> dict[str, Any]:
    """Layout, configuration, and for each file that the spec names what is like it, what tests it and who owns it.

    `paths` are the files that may be read; `owners` is the text of CODEOWNERS at the base commit.
    """
    named = spoken_of(paths, spec)
    folders = {path.rpartition("/")[0] for path in named}
    beside = [path for path in paths if path.rpartition("/")[0] in folders]
    tests = [path for path in paths if is_test(path)] if named else []
    return {
        "layout": layout(paths),
        "configuration": [path for path in paths if CONFIGURATION.match(_name(path))][:MAX_CONFIGURATION],
        "near": [{"file": path, "similar": similar(path, beside), "tests": near_tests(path, tests)} for path in named],
        "owners": owned(named or paths[:MAX_OWNED], owners),
    }


def layout(paths: Iterable[str]) -> list[dict[str, Any]]:
    """Folders with the number of files at and below each, to a depth of `MAX_DEPTH`; of many the largest."""
    counts: Counter[str] = Counter()
    for path in paths:
        parts = path.split("/")[:-1]
        counts["."] += not parts
        for depth in range(1, min(len(parts), MAX_DEPTH) + 1):
            counts["/".join(parts[:depth])] += 1
    kept = sorted(folder for folder, count in counts.most_common(MAX_FOLDERS) if count)
    return [{"folder": folder, "files": counts[folder]} for folder in kept]


def spoken_of(paths: Sequence[str], spec: Spec) -> list[str]:
    """Files that the spec names by path, or by a name that only one file has; in the order of the view."""
    words = set(re.findall(r"[\w.@+-]+(?:/[\w.@+-]+)*", " ".join((spec.title, spec.body, *spec.requirements,
                *spec.acceptance, *spec.components, *spec.files))))  # fmt: skip
    words = {word.rstrip(".") for word in words}
    names = Counter(_name(path) for path in paths)
    parts = {_stem(word) for word in spec.components}
    return [
        path
        for path in paths
        if path in words
        or (names[_name(path)] == 1 and _name(path) in words and "." in _name(path))
        or (parts and _stem(path) in parts)
    ][:MAX_NAMED]


def similar(path: str, paths: Iterable[str]) -> list[str]:
    """Files of the same kind in the same folder: how things are done there."""
    folder, ending = path.rpartition("/")[0], _ending(path)
    found = (
        item
        for item in paths
        if item != path and item.rpartition("/")[0] == folder and _ending(item) == ending and not is_test(item)
    )
    return _first(found)


def near_tests(path: str, paths: Iterable[str]) -> list[str]:
    """Tests whose name is the file's with a mark of tests: `test_a.py`, `a_test.go`, `a.spec.ts`, `ATest.java`."""
    if is_test(path):
        return []
    stem = _stem(path).lower()
    return _first(
        item
        for item in paths
        if stem in item.lower() and is_test(item) and _TEST_NAME.sub("", _stem(item)).lower() == stem
    )


def is_test(path: str) -> bool:
    """Whether a file is a test by its name, or by the folder that it is in."""
    return bool(_TEST_NAME.search(_stem(path))) or any(part in _TEST_FOLDERS for part in path.split("/")[:-1])


def owned(paths: Iterable[str], text: str) -> list[dict[str, Any]]:
    """Who owns files, by CODEOWNERS: of the lines that match a file the last one counts (its documented rule)."""
    lines = _owner_lines(text)
    found: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        owners = next((owners for globs, owners in lines if any(matches(path, glob) for glob in globs)), ())
        if owners:
            found.setdefault(owners, []).append(path)
    return [{"owners": list(owners), "files": files} for owners, files in found.items()]


def _owner_lines(text: str) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Globs and owners of each line, last first. Lines that cannot be read own nothing."""
    found: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    for line in text[:MAX_OWNERS_BYTES].splitlines()[:MAX_OWNER_LINES]:
        plain = re.split(r"(?:\A|\s)#", line, maxsplit=1)[0].strip()
        if not plain or plain.startswith(("[", "^[")) or "\\" in plain:
            continue
        pattern, *owners = plain.split()
        globs = _owner_globs(pattern)
        if globs:
            found.append((globs, tuple(one_line(owner, 100) for owner in owners[:10])))
    return found[::-1]


def _owner_globs(pattern: str) -> tuple[str, ...]:
    """A CODEOWNERS pattern as globs: without a slash at any depth, a folder is everything below it."""
    anchored = "/" in pattern.rstrip("/")
    text = pattern.lstrip("/")
    base = text if anchored else f"**/{text}"
    globs = (f"{base}**",) if text.endswith("/") else (base,) if text.endswith("*") else (base, f"{base}/**")
    try:
        for glob in globs:
            check_given_glob(glob)
    except ImpossibleGlob:
        return ()
    return globs


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _ending(path: str) -> str:
    return _name(path).rpartition(".")[2]


def _stem(path: str) -> str:
    """The name without its ending; of `a.spec.ts` it is `a.spec`."""
    name = _name(path)
    return name.rpartition(".")[0] or name


def _first(found: Iterable[str]) -> list[str]:
    return [item for item, _ in zip(found, range(MAX_NEAR), strict=False)]
