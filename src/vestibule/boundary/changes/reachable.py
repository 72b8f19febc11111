"""Files that CI runs: what CI configuration of the tree names, and what those files name in turn.

A change to such a file runs on a CI machine before anybody reviewed it, without touching protected configuration
(OWASP CICD-SEC-4, indirect poisoned pipeline execution). Names are found as text, so the set is an approximation from
above for literal paths; a path that a script composes at run time is not found.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Mapping

from vestibule.core.ids import Sha

MAX_FILES = 300
MAX_BYTES = 256 << 10
MAX_DEPTH = 4

CI_CONFIG = re.compile(
    rb"(?i)(?:^|/)(?:\.github/(?:workflows|actions)/.+\.ya?ml|\.gitlab-ci\.ya?ml|\.gitlab/.+\.ya?ml|jenkinsfile[^/]*"
    rb"|\.circleci/.+|azure-pipelines[^/]*|bitbucket-pipelines\.yml|\.travis\.yml|\.buildkite/.+|\.drone\.yml"
    rb"|\.woodpecker(?:\.ya?ml|/.+)|\.pre-commit-config\.ya?ml|\.husky/[^_][^/]*|\.ci/[^/]+)\Z"
)
_TOKEN = re.compile(rb"[A-Za-z0-9_.@+-]*(?:/[A-Za-z0-9_.@+-]+)+|[A-Za-z0-9_@+-]+\.[A-Za-z0-9]{1,5}\b")
_FOLDER = re.compile(rb"(?:working-directory:|\bcd|-C)\s+[\"']?([A-Za-z0-9_./@+-]+)")
_LOCAL_ACTION = re.compile(rb"uses:\s*[\"']?\./([A-Za-z0-9_./@+-]+)")
_SHELL = (b".sh", b".bash", b".zsh", b".ps1", b".bat", b".cmd")
_TOOLS = re.compile(rb"(?i)(?:^|/)(?:scripts?|ci|\.ci|build|tools?|bin|hack|release|deploy|dev)/")


def ci_reachable(tree: Mapping[bytes, Sha], read: Callable[[Iterable[Sha]], Mapping[Sha, bytes]]) -> frozenset[bytes]:
    """Paths of the tree that CI configuration reaches, the configuration itself left out.

    `read` gives the contents of blobs that are small enough; what is beyond the bounds is not followed.
    """
    layer = [path for path in tree if CI_CONFIG.search(path)][:MAX_FILES]
    found: set[bytes] = set()
    seen: set[bytes] = set(layer)
    for _ in range(MAX_DEPTH):
        if not layer:
            break
        contents = read([tree[path] for path in layer])
        reached: set[bytes] = set()
        for path in layer:
            data = contents.get(tree[path])
            if data is not None and b"\0" not in data[:8192]:
                reached |= references(data, posixpath.dirname(path), tree)
        found |= reached - seen
        layer = sorted(reached - seen)[:MAX_FILES]
        seen |= reached
    return frozenset(path for path in found if not CI_CONFIG.search(path))


def references(text: bytes, folder: bytes, tree: Mapping[bytes, Sha]) -> set[bytes]:
    """Paths of the tree that `text` (a file of `folder`) names literally. Pure."""
    starts = {b"", folder, *(match.strip(b"/") for match in _FOLDER.findall(text))}
    found: set[bytes] = set()
    for token in set(_TOKEN.findall(text)):
        for start in starts:
            path = posixpath.normpath(posixpath.join(start, token.lstrip(b"/")))
            if path in tree:
                found.add(path)
    for action in set(_LOCAL_ACTION.findall(text)):
        prefix = posixpath.normpath(action) + b"/"
        found.update(path for path in tree if path.startswith(prefix))
    return found


def runs_for_ci(path: bytes, mode: str, head: bytes) -> bool:
    """Whether a reachable file is there to be run, rather than product code that CI happens to name."""
    return path.lower().endswith(_SHELL) or mode == "100755" or head.startswith(b"#!") or bool(_TOOLS.search(path))
