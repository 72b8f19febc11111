"""The tree against published vectors, exhaustively for small sizes, and by properties for large ones."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vestibule.audit.tree import (
    EMPTY_ROOT,
    CompactRange,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    range_at,
    root_at,
    verify_consistency,
    verify_inclusion,
)

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "merkle.json").read_text("utf-8"))

# RFC 6962 test inputs and roots as in transparency-dev/merkle testonly/constants.go (Apache-2.0).
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Store:
    """Nodes of a tree, as the log stores them."""

    def __init__(self) -> None:
        self.range = CompactRange()
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [EMPTY_ROOT]

    def add(self, leaf: bytes) -> None:
        for level, node in enumerate(self.range.append(leaf)):
            self.nodes[level, (self.range.size >> level) - 1] = node
        self.roots.append(self.range.root())

    def read(self, level: int, index: int) -> bytes:
        return self.nodes[level, index]


def store(size: int) -> Store:
    made = Store()
    for number in range(size):
        made.add(leaf_hash(b"%d" % number))
    return made


def reference_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962 section 2.1, literally."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\x01" + reference_root(leaves[:split]) + reference_root(leaves[split:])).digest()


def raw(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def test_the_vectors_are_all_there() -> None:
    assert (len(VECTORS["inclusion"]), len(VECTORS["consistency"])) == (98, 98)


@pytest.mark.parametrize("case", VECTORS["inclusion"], ids=lambda case: case["name"])
def test_published_inclusion_vector(case: dict[str, Any]) -> None:
    proof = [raw(item) for item in case["proof"] or []]
    good = verify_inclusion(case["leafIdx"], case["treeSize"], raw(case["leafHash"]), proof, raw(case["root"]))
    assert good is not case["wantErr"]


@pytest.mark.parametrize("case", VECTORS["consistency"], ids=lambda case: case["name"])
def test_published_consistency_vector(case: dict[str, Any]) -> None:
    proof = [raw(item) for item in case["proof"] or []]
    good = verify_consistency(case["size1"], case["size2"], raw(case["root1"]), raw(case["root2"]), proof)
    assert good is not case["wantErr"]


def test_published_roots() -> None:
    tree = CompactRange()
    assert tree.root().hex() == ROOTS[0]
    for leaf, root in zip(LEAVES, ROOTS[1:], strict=True):
        tree.append(leaf_hash(bytes.fromhex(leaf)))
        assert tree.root().hex() == root


def test_roots_agree_with_the_definition_of_the_rfc() -> None:
    leaves = [b"%d" % number for number in range(70)]
    made = store(70)
    for size in range(71):
        assert made.roots[size] == reference_root(leaves[:size]) == root_at(size, made.read)


def test_every_proof_of_every_small_tree_verifies_and_no_other_does() -> None:
    made = store(40)
    for size in range(1, 41):
        root = made.roots[size]
        for index in range(size):
            proof = inclusion_proof(index, size, made.read)
            leaf = made.read(0, index)
            assert verify_inclusion(index, size, leaf, proof, root)
            assert not verify_inclusion(index, size, leaf_hash(b"other"), proof, root)
            assert not verify_inclusion(index, size, leaf, [*proof, root], root)
            if proof:
                assert not verify_inclusion(index, size, leaf, proof[:-1], root)
        for old in range(1, size + 1):
            proof = consistency_proof(old, size, made.read)
            assert verify_consistency(old, size, made.roots[old], root, proof)
            if old != size:
                assert not verify_consistency(old, size, root, root, proof)
                assert not verify_consistency(old, size, made.roots[old], made.roots[old], proof)
            assert not verify_consistency(old, size, made.roots[old], root, [*proof, root])


def test_nothing_is_consistent_with_an_empty_tree() -> None:
    made = store(3)
    assert not verify_consistency(0, 3, EMPTY_ROOT, made.roots[3], [])
    assert not verify_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    with pytest.raises(ValueError):
        consistency_proof(0, 3, made.read)


def test_a_leaf_cannot_pass_for_a_node() -> None:
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert leaf_hash(left + right) != node_hash(left, right)


BIG = store(3000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_proofs_of_large_trees(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 3000))
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    inclusion = inclusion_proof(index, size, BIG.read)
    assert verify_inclusion(index, size, BIG.read(0, index), inclusion, BIG.roots[size])
    consistency = consistency_proof(old, size, BIG.read)
    assert verify_consistency(old, size, BIG.roots[old], BIG.roots[size], consistency)
    assert range_at(size, BIG.read).root() == BIG.roots[size]
    if inclusion:
        place = data.draw(st.integers(0, len(inclusion) - 1))
        bent = [*inclusion]
        bent[place] = bytes([bent[place][0] ^ 1]) + bent[place][1:]
        assert not verify_inclusion(index, size, BIG.read(0, index), bent, BIG.roots[size])
    if consistency:
        place = data.draw(st.integers(0, len(consistency) - 1))
        bent = [*consistency]
        bent[place] = bytes([bent[place][0] ^ 1]) + bent[place][1:]
        assert not verify_consistency(old, size, BIG.roots[old], BIG.roots[size], bent)


def test_a_range_is_refused_with_the_wrong_number_of_nodes() -> None:
    with pytest.raises(ValueError):
        CompactRange(3, [EMPTY_ROOT])
