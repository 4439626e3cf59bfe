import numpy as np
import pytest
import tensorflow as tf

from tfmm.errors import CatalogError
from tfmm.hierarchy import Hierarchy, path_of, with_ancestors

# Clothes has two children, one of them a child of its own; Toys stands alone.
NAMES = (
    "Clothes > Shirts",
    "Clothes",
    "Toys",
    "Clothes > Shoes > Boots",
    "Clothes > Shoes",
)
SAID = np.float32([[0.75, 0.5, 0.25, 0.125, 0.375], [0.25, 0.5, 1.0, 0.875, 0.125]])


def drawn(labels=200, products=30, seed=0):
    """A tree whose paths skip steps now and then, and probabilities."""
    generator = np.random.default_rng(seed)
    names = ["0"]
    while len(names) < labels:
        above = (
            names[generator.integers(len(names))] if generator.random() < 0.9 else ""
        )
        skipped = " > skipped" if above and generator.random() < 0.2 else ""
        step = f"{above}{skipped} > {len(names)}"
        names.append(step if above else str(len(names)))
    order = generator.permutation(labels)
    said = generator.random((products, labels)).astype(np.float32) ** 2
    return Hierarchy([names[i] for i in order], " > "), said


# ---------------------------------------------------------------------- labels


def test_labels_are_closed_upwards_each_once_and_from_the_top():
    assert with_ancestors(["A > B > C", "A > D", "E"], " > ") == [
        *("A", "A > B", "A > B > C", "A > D", "E")
    ]
    assert with_ancestors([], " > ") == []


def test_white_space_about_the_separator_does_not_count():
    assert with_ancestors(["A>B", "A  > B", " A >B "], " > ") == ["A", "A > B"]
    assert with_ancestors(["Living room / Sofa bed"], "/") == [
        *("Living room", "Living room/Sofa bed")
    ]


def test_one_name_in_two_branches_is_two_labels():
    closed = with_ancestors(["A > Other", "B > Other"], " > ")
    assert closed == ["A", "A > Other", "B", "B > Other"]
    assert Hierarchy(closed, " > ").parents.tolist() == [-1, 0, -1, 2]


@pytest.mark.parametrize("label", ["A > ", " > A", "A > > B", "", ">"])
def test_an_empty_step_is_refused(label):
    with pytest.raises(CatalogError, match="expected steps with ' > ' between them"):
        path_of(label, " > ")


def test_one_path_spelt_twice_is_refused():
    with pytest.raises(CatalogError) as caught:
        Hierarchy(["A > B", "C", "A>B"], " > ")
    assert str(caught.value) == ("expected each path once. Received: 'A > B' and 'A>B'")


def test_a_parent_is_the_longest_prefix_that_is_a_label():
    tree = Hierarchy(NAMES, " > ")
    assert tree.parents.tolist() == [1, -1, -1, 4, 1]
    assert tree.depths.tolist() == [1, 0, 0, 2, 1]
    assert tree.parents.dtype == tree.depths.dtype == np.int32
    tree = Hierarchy(["A > B > C", "A", "AB"], " > ")
    assert tree.parents.tolist() == [1, -1, -1]


# --------------------------------------------------------------------- answers


def test_consistent_probabilities_worked_by_hand():
    # Product 0: Shirts 0.75 over Clothes 0.5: lifted 0.75, lowered 0.5, both 0.625.
    # Product 1: Boots 0.875 under Shoes 0.125 under Clothes 0.5. Lifted: 0.875 all
    # three; lowered: Shoes and Boots 0.125, Clothes stays.
    found = Hierarchy(NAMES, " > ").consistent(SAID)
    assert found.dtype == np.float32
    assert found.tolist() == [
        [0.625, 0.625, 0.25, 0.125, 0.375],
        [0.25, 0.6875, 1.0, 0.5, 0.5],
    ]


def test_what_is_consistent_stays_as_it_is():
    tree, said = drawn()
    once = tree.consistent(said)
    np.testing.assert_array_equal(tree.consistent(once), once)


@pytest.mark.parametrize("seed", range(5))
def test_no_label_is_above_its_parent(seed):
    tree, said = drawn(seed=seed)
    assert tree.depths.max() >= 3
    found = tree.consistent(said)
    children = np.flatnonzero(tree.parents >= 0)
    parents = tree.parents[children]
    assert (said[:, children] > said[:, parents]).any()
    assert (found[:, children] <= found[:, parents]).all()
    assert found.min() >= 0
    assert found.max() <= 1


def test_assigned_labels_worked_by_hand():
    tree = Hierarchy(NAMES, " > ")
    # Boots reach their threshold; so do Shoes and Clothes.
    said = np.float32([[0.1, 0.6, 0.2, 0.5, 0.6]])
    given = tree.assigned(said, np.full(5, 0.5, np.float32))
    assert given.tolist() == [[False, True, False, True, True]]
    # Shoes do not: back to Clothes.
    given = tree.assigned(said, np.float32([0.5, 0.5, 0.5, 0.5, 0.7]))
    assert given.tolist() == [[False, True, False, False, False]]
    # Clothes do not: nothing.
    given = tree.assigned(said, np.float32([0.1, 0.7, 0.5, 0.5, 0.5]))
    assert not given.any()


@pytest.mark.parametrize("seed", range(5))
def test_no_label_is_assigned_without_its_parent(seed):
    tree, said = drawn(seed=seed)
    thresholds = np.random.default_rng(seed).random(said.shape[1]).astype(np.float32)
    given = tree.assigned(said, thresholds / 3)
    children = np.flatnonzero(tree.parents >= 0)
    assert given[:, children].any()
    assert (given[:, children] <= given[:, tree.parents[children]]).all()
    # And nothing else is withheld: a label over its threshold under one that is
    # assigned is assigned.
    over = said >= thresholds / 3
    expected = over[:, children] & given[:, tree.parents[children]]
    np.testing.assert_array_equal(given[:, children], expected)


def test_without_paths_nothing_changes():
    tree = Hierarchy(["a", "b", "c", "d", "e"], " > ")
    np.testing.assert_array_equal(tree.consistent(SAID), SAID)
    thresholds = np.full(5, 0.375, np.float32)
    over = np.greater_equal(SAID, thresholds)
    np.testing.assert_array_equal(tree.assigned(SAID, thresholds), over)


# ----------------------------------------------------------------------- graph


class Both(tf.Module):
    def __init__(self, tree, thresholds):
        super().__init__()
        labels = len(thresholds)

        @tf.function(input_signature=[tf.TensorSpec([None, labels], tf.float32)])
        def answer(said):
            found = tree.consistent_in_graph(said)
            return {"p": found, "given": tree.assigned_in_graph(found, thresholds)}

        self.answer = answer


@pytest.mark.parametrize("products", [0, 1, 30])
def test_the_graph_and_its_export_say_the_same(tmp_path, products):
    tree, said = drawn(labels=40, products=products)
    thresholds = np.linspace(0.05, 0.6, 40, dtype=np.float32)
    expected = tree.consistent(said)
    given = tree.assigned(expected, thresholds)
    module = Both(tree, thresholds)
    tf.saved_model.save(module, str(tmp_path / "m"), module.answer)
    loaded = tf.saved_model.load(str(tmp_path / "m"))
    eager = {
        "p": tree.consistent_in_graph(tf.constant(said)),
        "given": tree.assigned_in_graph(tf.constant(expected), thresholds),
    }
    served = loaded.signatures["serving_default"](said=tf.constant(said))
    for answer in (eager, module.answer(said), served):
        np.testing.assert_array_equal(answer["p"].numpy(), expected)
        np.testing.assert_array_equal(answer["given"].numpy(), given)
        assert answer["p"].shape == answer["given"].shape == said.shape


def test_a_row_does_not_depend_on_its_batch():
    tree, said = drawn(labels=40)
    alone = [tree.consistent_in_graph(said[i : i + 1]).numpy() for i in range(5)]
    np.testing.assert_array_equal(np.concatenate(alone), tree.consistent(said[:5]))
