"""Findings about the labels, the splits, and labels that texts give away."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from tfmm.audit.findings import (
    SHOWN_LETTERS,
    Finding,
    Row,
    label_matrix,
    labels_of,
    rate,
    rows_of,
)
from tfmm.audit.texts import cleaned
from tfmm.catalog import Catalog
from tfmm.hierarchy import Hierarchy, path_of
from tfmm.settings import SPLITS

FEW_PRODUCTS = 10  # of train, under which a label is hardly learned
EVERYWHERE = 0.95
LEAK_SAMPLE = 20_000  # products whose texts are compared with their labels
LEAK_RATE = 0.2  # share of products from which a leak is worth a look
COMMON_WORD_RATE = 0.2  # words in so many label names mark a kind, not a label


def find(catalog: Catalog, needed: set[str], path_separator: str) -> list[Finding]:
    """What there is to say of labels and splits.

    Args:
        catalog: The checked catalog.
        needed: Splits that the experiment cannot do without.
        path_separator: Mark between the steps of labels that are paths; `""` if they
            are none.
    """
    labels = label_matrix(catalog)
    by_split = {
        split: labels[catalog.rows(split)].sum(axis=0)
        for split in SPLITS
        if len(catalog.rows(split))
    }
    names = catalog.label_names
    return [
        _lacking(names, by_split, needed),
        _rare(names, by_split),
        *_together(catalog, labels, path_separator),
        _everywhere(names, labels, len(catalog)),
        _spelled_alike(names),
        _left_out(catalog),
        _spread_groups(catalog),
    ]


def leaks(
    catalog: Catalog, modality: str, path_separator: str
) -> tuple[Finding, dict[str, float]]:
    """How often a text names the product's own label.

    A label is named where all of its words stand in the text, in any order, in the
    singular or the plural; or joined, so that `T-shirt` names `Tshirts`. Of a path it
    is the last step that counts. Words that many labels share, such as a prefix, do
    not.

    Args:
        catalog: The checked catalog.
        modality: One of kind `text`.
        path_separator: As in `find`.

    Returns:
        The finding; and `named`, the share of products whose own label is named, and
        `right`, the share of labels named that are the product's.
    """
    rows = np.flatnonzero((catalog.split != "") & (catalog.texts[modality] != ""))
    if len(rows) > LEAK_SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, LEAK_SAMPLE).astype(int)]
    by_word = _labels_by_word(catalog.label_names, path_separator)
    named, right, said = [], 0, 0
    by_label: Counter[int] = Counter()
    for row, words in zip(rows, cleaned(catalog.texts[modality][rows]), strict=True):
        found = set(_named(words.split(), by_word))
        own = found & set(catalog.label_indices[row].tolist())
        said, right = said + len(found), right + len(own)
        by_label.update(own)
        if own:
            named.append(row)
    often = [
        f"{catalog.label_names[x]} {n}" for x, n in by_label.most_common(5) if n > 1
    ]
    finding = Finding(
        *("named_labels", modality),
        "look" if rate(len(named), len(rows)) >= LEAK_RATE else "note",
        "a text that names the product's own label"
        + (f"; most often {', '.join(often)}" if often else ""),
        *(len(named), len(rows), "products" if len(rows) < LEAK_SAMPLE else "sampled"),
        f"Of the labels that these texts name, {rate(right, said):.0%} are the "
        "product's. That is fine if texts come like that at work, too. If they were "
        "written with the category in view, and products arrive without, the report "
        "flatters the text: compare with a column in which those words are masked.",
        rows_of(
            catalog,
            named,
            lambda _, row: (
                f"{labels_of(catalog, row)}: "
                f"{catalog.texts[modality][row][:SHOWN_LETTERS]}"
            ),
        ),
    )
    return finding, {
        "named": rate(len(named), len(rows)),
        "right": rate(right, said),
    }


def _singular(word: str) -> str:
    """The word without the ending of an English plural, roughly."""
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


def _labels_by_word(
    names: Sequence[str], path_separator: str
) -> dict[str, list[tuple[int, frozenset[str]]]]:
    """Of a word, the labels that it stands for, each with all words that it needs."""
    last = [path_of(x, path_separator)[-1] if path_separator else x for x in names]
    words = [[_singular(x) for x in label.split()] for label in cleaned(np.array(last))]
    counts = Counter(word for label in words for word in set(label))
    most = max(2.0, COMMON_WORD_RATE * len(names))
    found: dict[str, list[tuple[int, frozenset[str]]]] = defaultdict(list)
    for index, label in enumerate(words):
        needed = [word for word in label if counts[word] <= most]
        if not needed:
            continue
        first = min(needed, key=counts.__getitem__)
        found[first].append((index, frozenset(needed)))
        if len(needed) > 1:
            joined = "".join(needed)
            found[joined].append((index, frozenset([joined])))
    return found


def _named(
    words: Sequence[str], by_word: dict[str, list[tuple[int, frozenset[str]]]]
) -> Iterator[int]:
    """Indices of the labels that a text's words name."""
    single = {_singular(x) for x in words}
    single |= {a + _singular(b) for a, b in itertools.pairwise(words)}
    for word in single & by_word.keys():
        for index, needed in by_word[word]:
            if needed <= single:
                yield index


def _lacking(
    names: Sequence[str], by_split: dict[str, np.ndarray], needed: set[str]
) -> Finding:
    """Labels that a split has no product of."""
    rows = []
    for index, name in enumerate(names):
        counts = {split: int(found[index]) for split, found in by_split.items()}
        if any(not counts[split] for split in needed if split in counts):
            said = ", ".join(f"{split} {n}" for split, n in counts.items())
            rows.append((counts["train"], Row(name, (), said)))
    rows.sort(key=lambda x: (x[0] > 0, x[1].id))
    untaught = sum(not train for train, _ in rows)
    return Finding(
        *("labels_lacking_in_splits", "", "fix" if untaught else "look"),
        "no product in some split"
        + (f"; {untaught} of them none to train on" if untaught else ""),
        *(len(rows), len(names), "labels"),
        "A label without a product to train on is never given; without one to test "
        "on, nobody knows how good it is. Raise min_products_per_label, join such "
        "labels, or collect products.",
        [row for _, row in rows],
    )


def _rare(names: Sequence[str], by_split: dict[str, np.ndarray]) -> Finding:
    train = by_split["train"]
    rare = [x for x in np.argsort(train, kind="stable") if 0 < train[x] < FEW_PRODUCTS]
    return Finding(
        *("rare_labels", "", "look"),
        f"fewer than {FEW_PRODUCTS} products to train on",
        *(len(rare), len(names), "labels"),
        "They are hardly learned. Raise min_products_per_label, join labels, or weigh "
        "them (positive_weight, class_weights).",
        [Row(names[x], (), f"train {int(train[x])}") for x in rare],
    )


def _together(catalog: Catalog, labels, path_separator: str) -> list[Finding]:
    """Labels that have the very same products, and labels that imply another."""
    names = catalog.label_names
    counts = labels.sum(axis=0)
    both = (labels.T @ labels).tocoo()
    implied = (both.data == counts[both.row]) & (both.row != both.col)
    if path_separator:
        parents = Hierarchy(names, path_separator).parents
        above = [_line(parents, x) for x in range(len(names))]
        implied &= np.array(
            [b not in above[a] for a, b in zip(both.row, both.col, strict=True)], bool
        )
    pairs = list(zip(both.row[implied], both.col[implied], strict=True))
    same = [(a, b) for a, b in pairs if counts[a] == counts[b] and a < b]
    part = [(a, b) for a, b in pairs if counts[a] < counts[b]]
    part.sort(key=lambda pair: -counts[pair[0]])

    def rows(found):
        return [
            Row(names[a], (names[b],), f"{int(counts[a])} of {int(counts[b])} products")
            for a, b in found
        ]

    return [
        Finding(
            *("labels_together", "", "look", "always together with another"),
            *(len({x for pair in same for x in pair}), len(names), "labels"),
            "Nothing tells the two apart: they are one label under two names, or one "
            "of them is missing from products that should have it.",
            rows(same),
        ),
        Finding(
            *("labels_implied", "", "note", "never without another"),
            *(len({a for a, _ in part}), len(names), "labels"),
            "A tree in disguise. If it is one, write the labels as paths and set "
            "hierarchy = 'consistent': then no label is given without its parent.",
            rows(part),
        ),
    ]


def _line(parents: np.ndarray, label: int) -> set[int]:
    """All labels above one, or none."""
    found: set[int] = set()
    while (label := int(parents[label])) >= 0:
        found.add(label)
    return found


def _everywhere(names: Sequence[str], labels, products: int) -> Finding:
    shares = labels.sum(axis=0) / products
    found = np.flatnonzero(shares >= EVERYWHERE)
    return Finding(
        *("labels_everywhere", "", "look", "on nearly every product"),
        *(len(found), len(names), "labels"),
        "Always saying them is nearly always right, which lifts every measure.",
        [Row(names[x], (), f"{shares[x]:.1%} of the products") for x in found],
    )


def _spelled_alike(names: Sequence[str]) -> Finding:
    """Labels that differ in nothing but case, spaces, signs and plurals."""
    plain = defaultdict(list)
    words = cleaned(np.array(names, object))
    for name, label in zip(names, words, strict=True):
        plain["".join(map(_singular, label.split())) or name].append(name)
    rows = [Row(x[0], tuple(x[1:])) for x in plain.values() if len(x) > 1]
    return Finding(
        *("labels_spelled_alike", "", "look"),
        "like another but for case, spaces, signs or plural",
        *(len(rows), len(names), "labels"),
        "Probably one label written in two ways: join them in the catalog.",
        rows,
    )


def _left_out(catalog: Catalog) -> Finding:
    return Finding(
        *("left_out", "", "note", "left out for want of a label"),
        *(len(catalog.left_out), len(catalog), "products"),
        "They have no label, or none that min_products_per_label keeps; "
        "catalog/left_out.csv names all.",
        [Row(name, (), reason) for name, reason in catalog.left_out.items()],
    )


def _spread_groups(catalog: Catalog) -> Finding:
    return Finding(
        *("groups_in_several_splits", "", "fix"),
        "in several splits, as the split column says",
        *(len(catalog.split_groups), len(set(catalog.groups.tolist())), "groups"),
        "Products of a group are alike: a model has seen those that it is tested on. "
        "Give all of a group one split.",
        [Row(str(name)) for name in catalog.split_groups],
    )
