import numpy as np
import pytest

from tfmm import outputs
from tfmm.errors import RunError
from tfmm.run import read_json, write_json

IDS = np.array(["a", "é 🪑", "c"], object)
PRESENT = np.array([True, False, True])
BATCHES = [
    {"features": np.array([[1.0, 2.0]]), "logits": np.array([[3.0, 4.0, 5.0]])},
    {"features": np.array([[6.0, 7.0]]), "logits": np.array([[8.0, 9.0, 0.5]])},
]


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "outputs" / "title" / "test"
    outputs.write(folder, "mark", IDS, PRESENT, BATCHES)
    return folder


def refusal(call, *args):
    with pytest.raises(RunError) as caught:
        call(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_and_the_absent_are_zeros(store):
    found = outputs.read(store, "mark")
    assert found.ids.tolist() == ["a", "é 🪑", "c"]
    assert found.present.tolist() == [True, False, True]
    assert found.features.tolist() == [[1, 2], [0, 0], [6, 7]]
    assert found.logits.tolist() == [[3, 4, 5], [0, 0, 0], [8, 9, 0.5]]
    assert found.features.dtype == found.logits.dtype == np.float32


def test_outputs_are_mapped_and_cannot_be_written_to(store):
    found = outputs.read(store, "mark")
    assert isinstance(found.logits, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found.logits[0, 0] = 1.0


def test_the_cut_into_batches_does_not_show(store, tmp_path):
    whole = {key: np.concatenate([b[key] for b in BATCHES]) for key in BATCHES[0]}
    outputs.write(tmp_path / "whole", "mark", IDS, PRESENT, [whole])
    for file in store.iterdir():
        assert file.read_bytes() == (tmp_path / "whole" / file.name).read_bytes()


@pytest.mark.parametrize("batches", [BATCHES[:1], BATCHES + BATCHES[:1], []])
def test_another_number_of_rows_than_present_is_refused(store, batches):
    with pytest.raises(ValueError, match=r"rows|shape"):
        outputs.write(store, "new", IDS, PRESENT, batches)
    assert outputs.read(store, "mark").logits[0].tolist() == [3, 4, 5]
    assert [path.name for path in store.parent.iterdir()] == ["test"]


def test_a_write_that_fails_midway_leaves_nothing(tmp_path):
    def failing():
        yield BATCHES[0]
        raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        outputs.write(tmp_path / "test", "mark", IDS, PRESENT, failing())
    assert list(tmp_path.iterdir()) == []


def test_stale_outputs_are_refused_by_name(store):
    found = refusal(outputs.read, store, "other")
    assert found.startswith(f"{store}: stale: made from another model")
    assert "(mark, not other)" in found


def test_outputs_that_are_not_there_are_refused_by_name(store):
    folder = store.with_name("train")
    expected = f"{folder}: no outputs; the run is not that far yet"
    assert refusal(outputs.read, folder, "mark") == expected


@pytest.mark.parametrize("key", ["ids", "features", "logits", "present"])
def test_truncated_missing_and_foreign_arrays_are_refused_by_name(store, key):
    file = store / f"{key}.npy"
    whole = file.read_bytes()
    for content in (whole[:-1], whole[:7], b"", b"id,labels\n", b"PK\3\4" + whole):
        file.write_bytes(content)
        found = refusal(outputs.read, store, "mark")
        assert found.startswith(f"{file}: truncated or damaged: ")
    np.save(file, np.zeros((3, 9), np.float32))
    found = refusal(outputs.read, store, "mark")
    assert found.startswith(f"{file}: truncated or replaced: shape (3, 9), not (3,")
    file.unlink()
    expected = f"{file}: no such file; run tfmm.fit --resume"
    assert refusal(outputs.read, store, "mark") == expected
    file.mkdir()
    found = refusal(outputs.read, store, "mark")
    assert found.startswith(f"{file}: truncated or damaged: ")


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_numbers_that_were_changed_are_refused_by_name(store, value):
    file = store / "logits.npy"
    logits = np.load(file)
    logits[-1] = value
    np.save(file, logits)
    expected = f"{file}: damaged: not what was written; run tfmm.fit --resume"
    assert refusal(outputs.read, store, "mark") == expected


@pytest.mark.parametrize(
    "content",
    [[], {}, 7, {"fingerprint": "mark"}, {"fingerprint": "mark", "shapes": 1}],
)
def test_a_foreign_store_file_is_refused_by_name(store, content):
    file = store / "store.json"
    write_json(file, content)
    found = refusal(outputs.read, store, "mark")
    assert found == f"{file}: not what an outputs store holds"


def test_a_store_file_that_is_missing_or_cut_off_is_refused_by_name(store):
    file = store / "store.json"
    file.write_text('{"fingerprint": "ma')
    assert refusal(outputs.read, store, "mark").startswith(f"{file}: damaged: ")
    file.unlink()
    assert refusal(outputs.read, store, "mark").startswith(f"{file}: no such file")


# --------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    "targets",
    [
        np.array([2, 0], np.int32),
        np.array([[1, 0, 1], [0, 1, 0]], np.float32),
        np.zeros((0, 3), np.float32),
        np.zeros(0, np.int32),
        np.eye(2, 1_000, dtype=np.float32),
        np.eye(2, 1_001, k=7, dtype=np.float32),
        np.zeros((0, 1_001), np.float32),
    ],
    ids=lambda targets: str(targets.shape),
)
def test_targets_are_read_as_written(tmp_path, targets):
    outputs.write_targets(tmp_path, "test", targets, "mark")
    found, mark = outputs.read_targets(tmp_path, "test")
    np.testing.assert_array_equal(found, targets)
    assert found.dtype == targets.dtype
    assert mark == "mark"


def test_targets_are_sparse_past_1000_labels_only(tmp_path):
    for labels, suffix in ((1_000, "npy"), (1_001, "npz")):
        folder = tmp_path / str(labels)
        outputs.write_targets(folder, "a", np.eye(2, labels, dtype=np.float32), "m")
        names = {path.name for path in (folder / "targets").iterdir()}
        assert names == {f"a.{suffix}", "a.json"}


@pytest.mark.parametrize("order", [(3, 1_001), (1_001, 3)])
def test_targets_of_another_catalog_replace_those_of_the_other_kind(tmp_path, order):
    for labels in order:
        targets = np.eye(2, labels, dtype=np.float32)
        outputs.write_targets(tmp_path, "a", targets, str(labels))
    found, mark = outputs.read_targets(tmp_path, "a")
    assert (found.shape, mark) == ((2, order[1]), str(order[1]))


@pytest.mark.parametrize("labels", [3, 1_001])
def test_truncated_missing_and_foreign_targets_are_refused_by_name(tmp_path, labels):
    targets = np.eye(2, labels, dtype=np.float32)
    outputs.write_targets(tmp_path, "a", targets, "mark")
    file = tmp_path / "targets" / ("a.npy" if labels == 3 else "a.npz")
    whole = file.read_bytes()
    for content in (whole[:-20], whole[:7], b"", b"id,labels\n"):
        file.write_bytes(content)
        found = refusal(outputs.read_targets, tmp_path, "a")
        assert found.startswith(f"{file}: truncated or damaged: ")
    file.unlink()
    expected = f"{file}: no such file; run tfmm.fit --resume"
    assert refusal(outputs.read_targets, tmp_path, "a") == expected


def test_targets_of_another_shape_than_noted_are_refused(tmp_path):
    outputs.write_targets(tmp_path, "a", np.eye(2, dtype=np.float32), "mark")
    np.save(tmp_path / "targets" / "a.npy", np.eye(3, dtype=np.float32))
    found = refusal(outputs.read_targets, tmp_path, "a")
    assert found.endswith("a.npy: truncated or replaced: shape (3, 3), not (2, 2)")


def test_targets_and_groups_that_were_changed_are_refused_by_name(tmp_path):
    outputs.write_targets(tmp_path, "a", np.int32([0, 1, 1]), "mark")
    outputs.write_groups(tmp_path, "a", np.array(["x", "y", "x"]))
    assert outputs.read_groups(tmp_path, "a").tolist() == [0, 1, 0]
    file = tmp_path / "targets" / "a.groups.npy"
    for groups in ([0, 1], [0, 2, 0], [-1, 0, 1], [0.5, 0.0, 1.0]):
        np.save(file, np.array(groups))
        found = refusal(outputs.read_groups, tmp_path, "a")
        assert found == f"{file}: damaged: expected a number for each of 3"
    file = tmp_path / "targets" / "a.npy"
    np.save(file, np.int32([0, 1, 50]))
    assert "damaged: not what was written" in refusal(
        outputs.read_targets, tmp_path, "a"
    )


def test_foreign_notes_of_targets_are_refused_by_name(tmp_path):
    outputs.write_targets(tmp_path, "a", np.eye(2, dtype=np.float32), "mark")
    file = tmp_path / "targets" / "a.json"
    assert read_json(file)["shape"] == [2, 2]
    for content in ([], {}, {"shape": [2, 2]}, {"shape": 2, "catalog": "mark"}):
        write_json(file, content)
        found = refusal(outputs.read_targets, tmp_path, "a")
        assert found == f"{file}: not what an outputs store holds"
