"""Findings about what several products share, be it a picture or a text."""

from collections.abc import Sequence

import numpy as np
from scipy import sparse

from tfmm.audit.findings import (
    LEARNED,
    SHOWN_LETTERS,
    Finding,
    Row,
    about,
    fix_if_many,
    label_keys,
    label_matrix,
)
from tfmm.audit.twins import Twins
from tfmm.catalog import Catalog

MIN_PLACEHOLDER_PRODUCTS = 5
MAX_PLACEHOLDER_SHARE = 0.5
MIN_WORDS = 4  # shorter texts may be equal by chance, and will be at work
NUM_OTHERS = 3  # twins named with a product


def placeholders(catalog: Catalog, alike: Twins) -> np.ndarray:
    """bool `(n,)`: products with what many have, and that says nothing of the label.

    So many share it, and no label is more than half-way from its share in the whole
    catalog to all of them.
    """
    everyone = np.ones(len(catalog), bool)
    many = (alike.groups >= 0) & (alike.count(everyone) + 1 >= MIN_PLACEHOLDER_PRODUCTS)
    if not many.any():
        return many
    return many & (alike.share(label_matrix(catalog)) <= MAX_PLACEHOLDER_SHARE)


def twins_in_test(
    catalog: Catalog, alike: Twins, modality: str, thing: str
) -> tuple[Finding, float]:
    """Test products whose picture or text a model has learned from.

    Args:
        catalog: The catalog.
        alike: Who shares it.
        modality: Its name.
        thing: `image` or `text`.

    Returns:
        The finding, and the share of test products.
    """
    test = (catalog.split == "test") & (alike.groups >= 0)
    learned = np.isin(catalog.split, LEARNED)
    found = test & (alike.count(learned) > 0)
    count, of = int(found.sum()), int(test.sum())
    advice = (
        "A model has seen these already, so the report flatters it. Give products that "
        "share one the same value in the group column, which no split cuts; groups.csv "
        "has such a column, ready to be joined by id."
    )
    if thing == "image":
        advice += (
            " Pictures are the same here when they differ by a few per cent at most: "
            "compression does not hide them, nor do small parts in another shade."
        )
    finding = Finding(
        f"{thing}_twins",
        modality,
        fix_if_many(count, of),
        f"{'a picture' if thing == 'image' else f'a text of {MIN_WORDS} words or more'}"
        " that is also in train, fusion or validation",
        count,
        of,
        "test products",
        advice,
        _with_twins(catalog, alike, modality, np.flatnonzero(found), learned),
    )
    return finding, count / of if of else 0.0


def sharing(catalog: Catalog, alike: Twins, modality: str, thing: str) -> list[Finding]:
    """How many share a picture or a text at all, and where their labels differ."""
    everyone = np.ones(len(catalog), bool)
    others = alike.count(everyone)
    shared = others > 0
    of = int((alike.groups >= 0).sum())
    families = len(np.unique(alike.families[shared]))
    labelled = catalog.split != ""
    known = alike.without(~labelled)
    apart = known.count(labelled) > known.count_same(label_keys(catalog))
    what = "picture" if thing == "image" else "text"
    return [
        Finding(
            f"{thing}_shared",
            modality,
            "note",
            f"a {what} that another product has too; {families} different ones",
            int(shared.sum()),
            of,
            "products",
            "Variants of one thing, or one thing listed twice.",
            _with_twins(catalog, alike, modality, np.flatnonzero(shared), everyone),
        ),
        Finding(
            f"{thing}_with_other_labels",
            modality,
            "look" if thing == "image" else "note",
            f"the same {what} as a product with other labels",
            int(apart.sum()),
            of,
            "products",
            "One of the two may be misfiled, or lacks a label that the other has.",
            _with_twins(
                catalog,
                alike,
                modality,
                np.flatnonzero(apart),
                labelled,
                other_labels=True,
            ),
        ),
    ]


def joined_groups(catalog: Catalog, twins: Sequence[Twins]) -> np.ndarray:
    """The catalog's groups, joined where their products share a picture or a text.

    Returns:
        `(n,)` names; a joined group has the name of its first product's group.
    """
    _, first, groups = np.unique(
        catalog.groups.astype(str), return_index=True, return_inverse=True
    )
    # A graph of groups and families; a product is an edge.
    number, edges = len(first), []
    for alike in twins:
        rows = np.flatnonzero(alike.families >= 0)
        edges.append(np.stack([groups[rows], number + alike.families[rows]]))
        number += alike.families.max(initial=-1) + 1
    ends = np.concatenate([np.zeros((2, 0), int), *edges], axis=1)
    graph = sparse.coo_array((np.ones(ends.shape[1]), ends), shape=(number, number))
    _, found = sparse.csgraph.connected_components(graph, directed=False)
    joined = found[groups]
    _, earliest, place = np.unique(joined, return_index=True, return_inverse=True)
    return catalog.groups[earliest[place]]


def placeholder_finding(
    catalog: Catalog, alike: Twins, modality: str, thing: str
) -> Finding:
    """The products of `placeholders`."""
    found = placeholders(catalog, alike)
    what = "picture" if thing == "image" else "text"
    families = len(np.unique(alike.families[found]))
    of = int((alike.groups >= 0).sum())
    return Finding(
        f"placeholder_{thing}s",
        modality,
        fix_if_many(int(found.sum()), of) if thing == "image" else "look",
        f"a {what} that products of many labels have"
        + (f"; {families} different ones" if families else ""),
        int(found.sum()),
        of,
        "products",
        f"A {what} such as “not available” says nothing of the product. Leave the cell "
        "empty, so that models know that there is none.",
        _with_twins(catalog, alike, modality, np.flatnonzero(found), found),
    )


def _quoted(catalog: Catalog, modality: str, row: int) -> str:
    """The beginning of a product's text, `""` for an image."""
    if modality not in catalog.texts:
        return ""
    return f"“{catalog.texts[modality][row]:.{SHOWN_LETTERS}}” "


def _with_twins(
    catalog: Catalog,
    alike: Twins,
    modality: str,
    rows: np.ndarray,
    among: np.ndarray,
    other_labels: bool = False,
) -> list[Row]:
    """Products with a few of their twins; one of each family first."""
    families = alike.families[rows]
    _, first = np.unique(families, return_index=True)
    order = np.concatenate([np.sort(first), np.setdiff1d(np.arange(len(rows)), first)])
    keys = label_keys(catalog) if other_labels else None
    twins_of = alike.some(rows[order], among, NUM_OTHERS, keys)
    return [
        Row(
            str(catalog.ids[row]),
            tuple(str(catalog.ids[x]) for x in twins),
            _quoted(catalog, modality, row)
            + " / ".join(about(catalog, x) for x in (row, *twins[:1])),
        )
        for row, twins in zip(rows[order], twins_of, strict=True)
    ]
