"""The Merkle tree of RFC 6962 section 2.1 and RFC 9162 section 2.1, over bytes as stored.

Rules it keeps:
1. A leaf is hashed with prefix 0x00, an inner node with 0x01: no node can pass for a leaf.
2. `verify_consistency` from size 0 fails: an empty tree proves nothing about a later one.
3. Proofs are exact: one hash too many or too few is a refusal.

Pure: nodes come from a reader `(level, index) -> hash`, where level 0 are leaves and node
`(level, index)` covers leaves `index << level` up to `(index + 1) << level`, exclusive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()

NodeReader = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x00 || data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 section 2.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class CompactRange:
    """The roots of the complete subtrees that make up a tree, left to right: enough to append and to know the root."""

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        if len(hashes) != size.bit_count():
            raise ValueError(f"a tree of {size} leaves has {size.bit_count()} complete subtrees, not {len(hashes)}")
        self.size = size
        self.hashes = list(hashes)

    def append(self, leaf: bytes) -> list[bytes]:
        """Adds a leaf's hash. Returns the nodes that this completes, from level 0 (the leaf) up."""
        completed = [leaf]
        rest = self.size
        while rest & 1:
            leaf = node_hash(self.hashes.pop(), leaf)
            completed.append(leaf)
            rest >>= 1
        self.hashes.append(leaf)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root of the tree at its present size."""
        if not self.hashes:
            return EMPTY_ROOT
        root = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            root = node_hash(left, root)
        return root

    def copy(self) -> CompactRange:
        return CompactRange(self.size, self.hashes)


def complete_subtrees(size: int) -> list[tuple[int, int]]:
    """`(level, index)` of the complete subtrees of a tree of `size` leaves, left to right."""
    found = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            found.append((level, start >> level))
            start += 1 << level
    return found


def range_at(size: int, read: NodeReader) -> CompactRange:
    """The compact range of the first `size` leaves."""
    return CompactRange(size, [read(level, index) for level, index in complete_subtrees(size)])


def root_at(size: int, read: NodeReader) -> bytes:
    """The root of the first `size` leaves."""
    return range_at(size, read).root()


def _subtree(start: int, end: int, read: NodeReader) -> bytes:
    """MTH(D[start:end]) of RFC 6962, where start is aligned as the recursion of the RFC aligns it."""
    count = end - start
    level = count.bit_length() - 1
    if count == 1 << level:
        return read(level, start >> level)
    middle = start + (1 << level)
    return node_hash(_subtree(start, middle, read), _subtree(middle, end, read))


def _split(count: int) -> int:
    """The largest power of two smaller than `count`."""
    return 1 << ((count - 1).bit_length() - 1)


def inclusion_proof(index: int, size: int, read: NodeReader) -> list[bytes]:
    """RFC 9162 section 2.1.3.1. `index` counts from 0.

    Raises:
        ValueError: there is no such leaf in a tree of that size.
    """
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} in a tree of {size}")
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(_subtree(middle, end, read))
            end = middle
        else:
            proof.append(_subtree(start, middle, read))
            start = middle
    proof.reverse()
    return proof


def consistency_proof(old: int, new: int, read: NodeReader) -> list[bytes]:
    """RFC 9162 section 2.1.4.1, for 0 < old <= new; empty when the sizes are equal.

    Raises:
        ValueError: the sizes are not in that order.
    """
    if not 0 < old <= new:
        raise ValueError(f"no consistency proof from {old} to {new}")
    proof: list[bytes] = []
    start, end = 0, new
    whole = True  # the old tree is exactly the subtree in hand, so the verifier knows its root
    while old < end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(_subtree(middle, end, read))
            end = middle
        else:
            proof.append(_subtree(start, middle, read))
            start = middle
            whole = False
    if not whole:
        proof.append(_subtree(start, end, read))
    proof.reverse()
    return proof


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 section 2.1.3.2. `leaf` is the leaf's hash."""
    if not 0 <= index < size or len(leaf) != HASH_SIZE or any(len(item) != HASH_SIZE for item in proof):
        return False
    node, last = index, size - 1
    result = leaf
    for item in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(item, result)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            result = node_hash(result, item)
        node >>= 1
        last >>= 1
    return last == 0 and result == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """RFC 9162 section 2.1.4.2. From size 0 it is always False: whoever starts from nothing handles that apart."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    if not proof or any(len(item) != HASH_SIZE for item in proof):
        return False
    path = list(proof)
    if old & (old - 1) == 0:
        path.insert(0, old_root)
    node, last = old - 1, new - 1
    while node & 1:
        node >>= 1
        last >>= 1
    first = second = path[0]
    for item in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            first = node_hash(item, first)
            second = node_hash(item, second)
            while not node & 1 and node:
                node >>= 1
                last >>= 1
        else:
            second = node_hash(second, item)
        node >>= 1
        last >>= 1
    return last == 0 and first == old_root and second == new_root
