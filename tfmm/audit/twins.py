"""Which products share a picture or a text."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse

# Chosen by looking at pairs of two catalogs: docs/notes/0020.
MAX_DIFFERENCE = 0.06
MAX_BITS = 3  # of 64 that may differ; with four bands of 16 one must be equal
MAX_STEPS = 200  # bounds the work where thousands of pictures share a band
CHUNK = 8_192


@dataclass(frozen=True)
class Twins:
    """Which of `n` products are alike.

    Attributes:
        groups: int `(n,)`: equal for what is identical, in `[0, G)`; -1 for products
            that take no part.
        pairs: int `(p, 2)`: groups that are nearly identical.
    """

    groups: np.ndarray
    pairs: np.ndarray

    @cached_property
    def _near(self) -> sparse.csr_array:
        """`(G, G)`: 1 for a group and itself, and for each pair."""
        number = 1 + max(self.groups.max(initial=-1), self.pairs.max(initial=-1))
        rows = np.concatenate([np.arange(number), self.pairs[:, 0], self.pairs[:, 1]])
        columns = np.concatenate([np.arange(number), *self.pairs.T[::-1]])
        ones = np.ones(len(rows), np.int32)
        return sparse.csr_array((ones, (rows, columns)), shape=(number, number))

    def count(self, among: np.ndarray) -> np.ndarray:
        """How many others are like each product.

        Args:
            among: bool `(n,)`, the products to count.

        Returns:
            int `(n,)`; a product is never counted as its own twin.
        """
        takes_part = self.groups >= 0
        members = np.bincount(
            self.groups[among & takes_part], minlength=self._near.shape[0]
        )
        found = np.zeros(len(self.groups), int)
        alike = self._near @ members
        found[takes_part] = alike[self.groups[takes_part]]
        return found - (among & takes_part)

    def share(self, labels: sparse.csr_array) -> np.ndarray:
        """Of each product and those like it, the share that the commonest label has.

        Less what that label has in the whole catalog, as a part of what is left to 1:
        0 for a picture that says nothing of the label, 1 for one that says it.

        Args:
            labels: 0 and 1 `(n, C)`.

        Returns:
            float `(n,)`, nan for products that take no part.
        """
        takes_part = np.flatnonzero(self.groups >= 0)
        number = self._near.shape[0]
        ones = np.ones(len(takes_part), np.int32)
        members = sparse.csr_array(
            (ones, (self.groups[takes_part], takes_part)),
            shape=(number, len(self.groups)),
        )
        together = (self._near @ (members @ labels)).tocoo()
        sizes = self._near @ members.sum(axis=1)
        base = np.asarray(labels.mean(axis=0)).ravel()[together.col]
        shares = together.data / sizes[together.row]
        gained = np.where(base < 1.0, (shares - base) / np.maximum(1 - base, 1e-9), 0)
        best = np.zeros(number)
        np.maximum.at(best, together.row, gained)
        found = np.full(len(self.groups), np.nan)
        found[takes_part] = best[self.groups[takes_part]]
        return found

    def count_same(self, keys: np.ndarray) -> np.ndarray:
        """How many others are like each product and have its key too.

        Args:
            keys: int `(n,)`, from 0.

        Returns:
            int `(n,)`, 0 for products that take no part.
        """
        takes_part = np.flatnonzero(self.groups >= 0)
        places = self.groups[takes_part], keys[takes_part]
        members = sparse.csr_array(
            (np.ones(len(takes_part), np.int32), places),
            shape=(self._near.shape[0], int(keys.max(initial=0)) + 1),
        )
        found = np.zeros(len(self.groups), int)
        if len(takes_part):  # of no places SciPy gives a sparse array
            found[takes_part] = (self._near @ members)[places] - 1
        return found

    def some(
        self,
        rows: np.ndarray,
        among: np.ndarray,
        number: int,
        other_keys: np.ndarray | None = None,
    ) -> list[list[int]]:
        """At most `number` others that are like each of some products.

        Args:
            rows: int `(m,)`, products that take part.
            among: bool `(n,)`, the products to name.
            number: Most to name for each.
            other_keys: int `(n,)`; then only those are named whose key is another.
        """
        members = np.flatnonzero(among & (self.groups >= 0))
        if other_keys is not None:
            places = np.stack([self.groups[members], other_keys[members]])
            _, first = np.unique(places, axis=1, return_index=True)
            members = members[np.sort(first)]
        members = members[np.argsort(self.groups[members], kind="stable")]
        edges = np.arange(self._near.shape[0] + 1)
        start = np.searchsorted(self.groups[members], edges)
        indptr, indices = self._near.indptr, self._near.indices
        result = []
        for row in rows:
            own = self.groups[row]
            found: list[int] = []
            for near in (own, *indices[indptr[own] : indptr[own + 1]]):
                # One more than wanted, since it may be the product itself.
                end = min(start[near + 1], start[near] + number + 1)
                found += [
                    int(x)
                    for x in members[start[near] : end]
                    if x != row
                    and x not in found
                    and (other_keys is None or other_keys[x] != other_keys[row])
                ]
                if len(found) >= number:
                    break
            result.append(found[:number])
        return result

    @cached_property
    def families(self) -> np.ndarray:
        """int `(n,)`: equal for products that a chain of twins joins; -1 if none."""
        _, family = sparse.csgraph.connected_components(self._near, directed=False)
        found = np.full(len(self.groups), -1)
        takes_part = self.groups >= 0
        found[takes_part] = family[self.groups[takes_part]]
        sizes = np.bincount(found[takes_part], minlength=1)
        return np.where(takes_part & (sizes[found] > 1), found, -1)

    def without(self, out: np.ndarray) -> "Twins":
        """The same, and products `out`, bool `(n,)`, take no part."""
        return Twins(np.where(out, -1, self.groups), self.pairs)


def of_texts(texts: Sequence[str]) -> Twins:
    """Products whose texts are equal, `""` apart."""
    _, groups = np.unique(np.asarray(texts, str), return_inverse=True)
    groups = np.where(np.asarray(texts) == "", -1, groups)
    return Twins(_counted(groups), np.zeros((0, 2), int))


def of_pictures(codes: np.ndarray, small: np.ndarray, usable: np.ndarray) -> Twins:
    """Products whose pictures are the same, also in another size or compression.

    Pictures whose hashes agree in a band of 16 bits and differ in at most `MAX_BITS`
    altogether are candidates; the small pictures decide, in colour (`difference`).
    Each picture meets the next `MAX_STEPS` of its band at most, so work grows with
    the number of pictures and not with its square.

    Args:
        codes: uint64 `(n,)`, as `perceptual_hash` gives them.
        small: uint8 `(n, side, side, 3)`.
        usable: bool `(n,)`: which to compare at all.
    """
    rows = np.flatnonzero(usable)
    flat = np.ascontiguousarray(small[rows]).reshape(-1, small[0].size)
    _, first, inverse = np.unique(
        flat.view(f"V{flat.shape[1]}")[:, 0], return_index=True, return_inverse=True
    )
    groups = np.full(len(codes), -1)
    groups[rows] = inverse
    pairs = _candidates(codes[rows][first])
    pictures = small[rows][first]
    near = [
        difference(pictures[part[:, 0]], pictures[part[:, 1]]) <= MAX_DIFFERENCE
        for part in np.split(pairs, range(CHUNK, len(pairs), CHUNK))
    ]
    return Twins(groups, pairs[np.concatenate(near)])


def difference(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How much pictures differ, as a share of what there is to see in them.

    `||a - b|| / sqrt(||a - mean(a)|| * ||b - mean(b)||)`, the mean being a colour.
    So a small object on a white ground counts as much as a large one.

    Args:
        first: uint8 `(n, side, side, 3)`.
        second: The same.

    Returns:
        float32 `(n,)`, 0 for equal pictures.

    Example:
    >>> a = np.array([[[[0, 0, 0], [100, 100, 100]]]], np.uint8)
    >>> float(difference(a, a + np.uint8(5))[0])  # doctest: +ELLIPSIS
    0.1000...
    """
    pixels = first.shape[1] * first.shape[2]
    a, b = (x.reshape(-1, pixels, 3).astype(np.float32) for x in (first, second))
    apart = np.sqrt(((a - b) ** 2).sum(axis=(1, 2)))
    seen = [np.sqrt(((x - x.mean(1, keepdims=True)) ** 2).sum((1, 2))) for x in (a, b)]
    return apart / np.sqrt(np.maximum(seen[0] * seen[1], 1e-6))


def _candidates(codes: np.ndarray) -> np.ndarray:
    """int `(p, 2)`: pairs of hashes that differ in at most `MAX_BITS` bits."""
    found = [np.zeros((0, 2), int)]
    for shift in (0, 16, 32, 48):
        band = (codes >> np.uint64(shift)) & np.uint64(0xFFFF)
        order = np.lexsort((codes, band))  # equal hashes stand side by side
        codes_in_order = codes[order]
        end = np.searchsorted(band[order], band[order], side="right")
        active = np.arange(len(codes))
        for step in range(1, MAX_STEPS + 1):
            active = active[active + step < end[active]]
            if not len(active):
                break
            apart = codes_in_order[active] ^ codes_in_order[active + step]
            close = active[np.bitwise_count(apart) <= MAX_BITS]
            found.append(np.stack([order[close], order[close + step]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.unique(pairs, axis=0)


def _counted(groups: np.ndarray) -> np.ndarray:
    """The groups numbered anew without holes; -1 stays."""
    found = np.full(len(groups), -1)
    takes_part = groups >= 0
    found[takes_part] = np.unique(groups[takes_part], return_inverse=True)[1]
    return found
