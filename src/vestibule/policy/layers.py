"""Where policy comes from: shipped with the program, the organisation's folders, the repository's base commit.

Rules it keeps:
1. A layer that was named and cannot be read, or holds no policy, stops the program: it is never left out.
2. The repository's layer is made of bytes handed in from the protected base commit; no working tree is read.
3. The digest covers every byte that takes part, and the engine that runs it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vestibule.core.canonical import digest, digest_bytes
from vestibule.core.errors import ConfigError, DependencyDown

SUFFIX = ".rego"
TEST_SUFFIX = "_test.rego"
MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 64
SHIPPED = Path(__file__).parent / "bundle"


@dataclass(frozen=True, slots=True)
class Layer:
    """One bundle, evaluated apart. `sources` and `tests` map a relative file name to its text."""

    name: str
    sources: dict[str, str]
    tests: dict[str, str]

    def digest_parts(self) -> list[list[str]]:
        """File names and digests, in order; tests decide nothing and are left out."""
        return [[name, digest_bytes(text.encode("utf-8"))] for name, text in sorted(self.sources.items())]


def shipped_layer() -> Layer:
    """The bundle inside the package.

    Raises:
        DependencyDown: `dependency.policy` when it cannot be read or is empty.
    """
    return folder_layer("shipped", SHIPPED)


def organisation_layers(folders: Sequence[Path]) -> list[Layer]:
    """One layer for each folder of the operator's `policy:` list."""
    return [
        folder_layer("organisation" if number == 1 else f"organisation {number}", folder)
        for number, folder in enumerate(folders, start=1)
    ]


def repository_layer(files: Mapping[str, bytes]) -> Layer | None:
    """The layer in `.vestibule/policy/` of the base commit; None when there is no `.rego` file at all.

    Raises:
        ConfigError: a file is no text, or larger than it may be.
    """
    rego = {name: data for name, data in files.items() if name.endswith(SUFFIX)}
    return _layer("repository", rego) if rego else None


def folder_layer(name: str, folder: Path) -> Layer:
    """Every `.rego` file below `folder`, hidden folders left out (a mounted ConfigMap keeps old copies there).

    Raises:
        DependencyDown: `dependency.policy` when the folder or anything in it cannot be read, a link or something that
            is no file stands in a policy's place, or nothing is in it.
        ConfigError: a file is no text, or larger than it may be.
    """
    if not folder.is_dir():
        raise _down(f"The {name} policy folder does not exist or is no folder.", folder)
    data: dict[str, bytes] = {}
    try:
        for path in _policies(name, folder):
            if path.stat().st_size > MAX_FILE_BYTES:
                raise ConfigError("a policy file is larger than 256 KiB", where=str(path), next_step="Split it.")
            data[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise _down(
            f"The {name} policy cannot be read: {error.strerror or error}.", Path(error.filename or folder)
        ) from None
    if not any(not name_.endswith(TEST_SUFFIX) for name_ in data):
        raise _down(f"The {name} policy folder holds no policy.", folder)
    return _layer(name, data)


def _policies(name: str, folder: Path) -> Iterator[Path]:
    """The policy files of a folder, in order. `Path.rglob` would pass over what it cannot list or follow."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False) and not entry.name.endswith(SUFFIX):
            yield from _policies(name, path)
        elif entry.is_symlink() and path.is_dir():
            raise _down(f"The {name} policy holds a link to a folder; name that folder itself.", path)
        elif entry.name.endswith(SUFFIX):
            if not stat.S_ISREG(path.stat().st_mode):
                raise _down(f"The {name} policy holds something that is no file.", path)
            yield path


def layers_digest(layers: Sequence[Layer], engine: str) -> str:
    """`sha256:…` over the engine's version and each layer's files, in order."""
    return digest([engine, *([layer.name, layer.digest_parts()] for layer in layers)])


def _layer(name: str, files: Mapping[str, bytes]) -> Layer:
    if len(files) > MAX_FILES:
        raise ConfigError(f"the {name} policy has more than {MAX_FILES} files", next_step="Merge some of them.")
    sources: dict[str, str] = {}
    tests: dict[str, str] = {}
    for path, data in files.items():
        if len(data) > MAX_FILE_BYTES:
            raise ConfigError("a policy file is larger than 256 KiB", where=path, next_step="Split it.")
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError("the file is not UTF-8 text", where=path, why=f"Byte {error.start} is invalid.") from None
        (tests if path.endswith(TEST_SUFFIX) else sources)[path] = text
    return Layer(name, sources, tests)


def _down(reason: str, folder: Path) -> DependencyDown:
    return DependencyDown(
        "policy",
        reason,
        fact=str(folder),
        person="Restore the folder or correct `policy:` in the operator's configuration; without policy nothing runs.",
    )
