"""A table: from the catalog's cells to the served model."""

import csv
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import command
from pydantic import ValidationError
from sklearn.preprocessing import StandardScaler

from export import bundle, verify
from tfmm import cells, predict
from tfmm.layers.category_ids import CategoryIds
from tfmm.layers.cell_numbers import CellNumbers, mean_and_deviation
from tfmm.run import Run
from tfmm.settings import TableTower
from tfmm.towers.table import table

COLUMNS = ["brand", "price", "colour"]
ROWS = [
    f"{brand}\t{price}\t{colour}"
    for brand, colour in (("IKEA", "red"), ("Kartell", "blue"))
    for price in ("5", "49,90 €", "1,299.00", "")
]
LABELS = np.arange(8) % 4


def settings(**changed):
    defaults = {
        "model": "table",
        "modality": "facts",
        "numbers": ["price"],
        "categories": ["brand", "colour"],
        "buckets": 50,
        "embedding_dim": 4,
        "hidden_units": [16],
    }
    tower = TableTower(**{**defaults, **changed})
    tower.read_from(COLUMNS)
    return tower


def read(*written):
    return cells.numbers(tf.constant(written)).numpy().tolist()


# -------------------------------------------------------------------- cells


def test_what_python_reads_as_a_number_is_read_the_same():
    written = (
        *("12", "-12.5", "+3", "007", ".5", "12.", "1.299", "0.125", "-0", " 5 "),
        *(
            "1e-05",
            "1.5e+12",
            "1E3",
            "-2.0e2",
            "999999999999999",
            "0.30000000000000004",
        ),
    )
    assert read(*written) == [float(x) for x in written]


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (12.5, ["12,50", "12,50 €", "€12,50", "EUR 12.50", "US$12.50", "12.50 EUR/kg"]),
        (1299.0, ["1,299", "1 299,00", "1\u202f299 kr", "1'299.–", "$1,299.00"]),
        (1299.5, ["1.299,50", "1,299.5", "CHF 1’299.50", "1299,5"]),
        (
            1299000.0,
            ["1.299.000", "1,299,000", "1 299 000", "12,99,000", "Rs.12,99,000"],
        ),
        (-3.0, ["-$3", "$-3", "- 3", "\u22123", "EUR -3,00"]),
        (0.125, ["0,125", ",125", "0.125 kg"]),
        (12.0, ["12,-", "12 cm²", "12 %", "ca. 12", "approx. 12 pieces", "12,"]),
    ],
)
def test_what_shops_write_is_a_number(number, written):
    assert read(*written) == [number] * len(written)


def test_what_is_no_one_number_is_none():
    written = (
        *("", " ", "n/a", "-", "€", "nan", "inf", "-inf", "True", "0x10", "1_000"),
        *("10-20", "3 x 4", "12/100", "A-12", "--5", "1..2", "1.2.3", "1,2,3", "12 50"),
        *("1e999", "9" * 400, "1e16", "1 2 3", "+/-5"),
    )
    assert all(map(math.isnan, read(*written)))
    assert math.isnan(cells.numbers(tf.constant([b"\xff"])).numpy()[0])


def test_rows_of_another_length_are_filled_or_cut():
    rows = tf.constant(["a\tb\tc\td", "a", "", "\t\tc", "a\t\n b \tc"])
    assert cells.split(rows, 3).numpy().tolist() == [
        [b"a", b"b", b"c"],
        [b"a", b"", b""],
        [b"", b"", b""],
        [b"", b"", b"c"],
        [b"a", b"\n b ", b"c"],
    ]
    assert cells.split(rows[:0], 3).shape == (0, 3)


def test_a_row_is_present_if_anything_is_in_it():
    rows = tf.constant(["\t5\t", "\t\t", "", " \t-\t\u00a0", "\t\t\tpast", "<a\tb>\t"])
    assert cells.present(rows, 3).numpy().tolist() == [1, 0, 0, 0, 0, 1]
    texts = tf.constant(["a lamp", "", "-"])
    assert cells.present(texts, 0).numpy().tolist() == [1, 0, 0]


# ------------------------------------------------------------------- layers


def layers():
    means, deviations = mean_and_deviation(ROWS, [1], True)
    return {
        "numbers": CellNumbers([1], means, deviations, True),
        "categories": CategoryIds([0, 2], ["brand", "colour"], 50),
    }


@pytest.mark.parametrize("name", ["numbers", "categories"])
def test_layer_is_the_same_eager_symbolic_traced_saved_and_from_its_config(
    name, tmp_path
):
    layer = layers()[name]
    rows = tf.constant([*ROWS, "", "Lack\t7"])
    expected = layer(rows).numpy()
    symbolic = layer(keras.Input((), dtype="string"))
    assert symbolic.shape == (None, 2)
    assert symbolic.dtype == expected.dtype.name
    root = tf.Module()
    spec = tf.TensorSpec([None], tf.string)
    root.call = tf.function(layer, input_signature=[spec])
    assert root.call.get_concrete_function().output_shapes.as_list() == [None, 2]
    tf.saved_model.save(root, str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    again = type(layer).from_config(layer.get_config())
    for other in (root.call, loaded.call, again):
        np.testing.assert_array_equal(other(rows), expected)


@pytest.mark.parametrize("log", [False, True])
def test_numbers_are_scaled_as_scikit_learn_scales(log):
    prices = np.array([5.0, 49.9, 1299.0, 0.0, -20.0, 7.25])
    years = np.array([2019.0, 2020.0, 2021.0, 2021.0, 2020.0, 2016.0])
    rows = [f"{a}\tx\t{b}" for a, b in zip(prices, years, strict=True)]
    values = np.stack([prices, years], axis=1)
    if log:
        values = np.sign(values) * np.log1p(np.abs(values))
    scaler = StandardScaler().fit(values)
    means, deviations = mean_and_deviation(rows, [0, 2], log, chunk=4)
    np.testing.assert_allclose(means, scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(deviations, scaler.scale_, rtol=1e-9)
    said = CellNumbers([0, 2], means, deviations, log)(tf.constant(rows))
    np.testing.assert_allclose(said[:, :2], scaler.transform(values), rtol=1e-5)
    assert not said[:, 2:].numpy().any()


def test_numbers_that_are_missing_alike_or_far_away_stay_harmless():
    rows = ["5\t0.1\t", "\t0.1\t", "7\t0.1\t"]
    means, deviations = mean_and_deviation(rows, [0, 1, 2], False)
    assert means == pytest.approx([6.0, 0.1, 0.0])
    assert deviations == [1.0, 1.0, 1.0]
    layer = CellNumbers([0, 1, 2], means, deviations, False)
    said = layer(tf.constant(["999999\t\t-3", "\t\t-90000"])).numpy()
    np.testing.assert_allclose(said, [[5, 0, -3, 0, 1, 0], [0, 0, -5, 1, 1, 0]])
    assert mean_and_deviation([], [0], True) == ([0.0], [1.0])


def test_categories_are_told_apart_by_column_and_empty_ones_by_position():
    ids = CategoryIds([0, 2], ["brand", "colour"], 1_000_000)
    said = ids(
        tf.constant(["Red\t1\tred", "RED \t2\tr&eacute;d", "-\t3", "nobody\t\tseen"])
    ).numpy()
    assert said[0, 0] == said[1, 0]
    assert len({*said[0], *said[1], *said[3]}) == 5
    assert said[2].tolist() == [0, 1]
    assert said.min() >= 0
    assert said.max() < ids.num_ids == 1_000_002


def test_layers_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match="one length"):
        CellNumbers([0, 1], [0.0], [1.0], True)
    with pytest.raises(ValueError, match="one length, at least 1"):
        CellNumbers([], [], [], True)
    with pytest.raises(ValueError, match="above 0"):
        CellNumbers([0], [0.0], [0.0], True)
    with pytest.raises(ValueError, match="one length"):
        CategoryIds([0], [], 10)
    with pytest.raises(ValueError, match="`buckets`"):
        CategoryIds([0], ["brand"], 0)


# -------------------------------------------------------------------- tower


def test_table_overfits_eight_products():
    keras.utils.set_random_seed(0)
    model = table(settings(dropout=0.0), 4, ROWS)
    inputs = {"facts": tf.constant(ROWS)}
    data = tf.data.Dataset.from_tensors((inputs, {"logits": LABELS})).repeat(60)
    model.compile(
        keras.optimizers.Adam(0.05),
        loss={"logits": keras.losses.SparseCategoricalCrossentropy(from_logits=True)},
        jit_compile=False,
    )
    before = [np.asarray(x) for x in model.weights]
    model.fit(data, shuffle=False, verbose=0)
    said = model(inputs)["logits"]
    np.testing.assert_array_equal(np.argmax(said, axis=1), LABELS)
    for old, new in zip(before, model.weights, strict=True):
        assert (old != np.asarray(new)).any(), new.path


def test_same_seed_same_weights():
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        models.append(table(settings(), 4, ROWS))
    for first, second in zip(*(m.get_weights() for m in models), strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("changed", "parameters"),
    [
        # (m + buckets) * 4 + (2 n + 4 m + 1) * hidden + (hidden + 1) * 7
        ({}, 52 * 4 + 11 * 16 + 17 * 7),
        ({"categories": []}, 3 * 16 + 17 * 7),
        ({"numbers": [], "hidden_units": [16, 9]}, 208 + 9 * 16 + 17 * 9 + 10 * 7),
    ],
)
def test_table_has_the_parameters_of_its_formula(changed, parameters):
    model = table(settings(**changed), 7, ROWS)
    assert model.count_params() == parameters
    assert model.output["features"].shape[1] == settings(**changed).hidden_units[-1]


def test_table_is_the_same_saved_and_loaded(tmp_path):
    model = table(settings(), 4, ROWS)
    rows = tf.constant([*ROWS, "", "Lack", "a\tb\tc\td\t5", "\n\t\x00\t\x01"])
    expected = model({"facts": rows}, training=False)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    for key, value in loaded({"facts": rows}, training=False).items():
        np.testing.assert_array_equal(value, expected[key])
    held = tf.Module()
    held.variables_held = [x.value for x in model.weights]
    held.call = tf.function(
        lambda facts: model({"facts": facts}, training=False),
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    tf.saved_model.save(held, str(tmp_path / "1"))
    served = tf.saved_model.load(str(tmp_path / "1"))
    for key, value in served.call(rows).items():
        np.testing.assert_allclose(value, expected[key], atol=1e-6)
        assert np.isfinite(value).all()


def test_table_speaks_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = table(settings(), 4, ROWS)
    finally:
        keras.config.set_dtype_policy("float32")
    said = model({"facts": tf.constant(ROWS)})
    assert {x.dtype for x in said.values()} == {tf.float32}
    assert model.get_layer("hidden_1").compute_dtype == "bfloat16"


def test_settings_refuse_what_cannot_be_read():
    plain = {"model": "table", "modality": "facts"}
    for wrong, message in (
        ({}, "needs 'numbers' or 'categories'"),
        ({"numbers": ["price"], "categories": ["price"]}, "'price' is in both"),
        ({"numbers": ["price", "price"]}, "names a column twice"),
    ):
        with pytest.raises(ValidationError, match=message):
            TableTower(**plain, **wrong)
    tower = TableTower(**plain, numbers=["prise"])
    with pytest.raises(ValueError, match="must be told its columns"):
        table(tower, 4, ROWS)
    with pytest.raises(
        ValueError, match=r"no column of \[modalities.facts\]; did you mean 'price'"
    ):
        tower.read_from(COLUMNS)


# ------------------------------------------------------- catalog to served model

EXPERIMENT = """
[catalog]
task = "single_label"
splits = { train = 0.5, fusion = 0.2, validation = 0.15, test = 0.15 }
[modalities.title]
kind = "text"
columns = ["title"]
[modalities.facts]
kind = "table"
columns = ["brand", "price", "colour"]
[towers.title]
model = "text_cnn"
modality = "title"
max_words = 5
kernel_sizes = [1]
filters = 4
embedding_dim = 4
max_epochs = 1
[towers.facts]
model = "table"
modality = "facts"
numbers = ["price"]
categories = ["colour", "brand"]
buckets = 100
learning_rate = 0.05
max_epochs = 10
batch_size = 8
[heads.product]
model = "product"
towers = ["title", "facts"]
[export]
head = "product"
top_k = 2
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A bundle of a run on 60 products whose labels are told by price and colour."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "e.toml").write_text(EXPERIMENT, encoding="utf-8")
    colours = {"lamp": "red", "sofa": "blue", "rug": "red"}
    prices = {"lamp": "12,50 EUR", "sofa": "1,299.00", "rug": "45"}
    with (folder / "c.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "brand", "price", "colour", "labels"])
        for number in range(60):
            kind = list(colours)[number % 3]
            facts = ["A\t\nB", prices[kind], colours[kind]]
            if number % 10 == 7:
                facts = ["", " ", "-"]
            writer.writerow([f"P{number}", f"no {number % 4}", *facts, kind])
    done = command(
        *("-m", "tfmm.fit", folder / "e.toml"),
        *("--catalog", folder / "c.csv", "--run", folder / "run"),
    )
    assert done.returncode == 0, done.stderr
    (folder / "models").mkdir()
    bundle.write(Run(folder / "run"), None, folder / "models" / "1")
    return folder / "models" / "1"


def test_a_table_is_trained_exported_and_verified(served, capsys):
    verify.verify(served)
    assert "golden requests at batch 1, 2, 7, 32" in capsys.readouterr().out
    card = (served / "model_card.md").read_text(encoding="utf-8")
    assert "| `facts` | table | brand, price, colour |" in card
    assert r"`facts`: `<brand>\t<price>\t<colour>`" in card


def test_a_served_row_is_answered_whatever_its_length(served):
    model = verify.Served(served)

    def ask(facts):
        inputs = {
            "title": np.array([b""] * len(facts), object),
            "facts": np.array(facts, object),
        }
        return model("serving_default", inputs)

    answer = ask([b"A B\t12.5\tred", b"A B\t1299\tblue", b"A B\t\xe2\x82\xac 45\tred"])
    assert answer["labels"][:, 0].tolist() == [b"lamp", b"sofa", b"rug"]
    rows = [b"A B\t12.5\tred", b"A B\t12.5\tred\tpast\t", b"A B\t\t", b"A B", b"\t\t"]
    scores = ask(rows)["scores"]
    np.testing.assert_allclose(scores[1], scores[0], atol=1e-6)
    np.testing.assert_allclose(scores[3], scores[2], atol=1e-6)
    assert ask(rows)["assigned"].any(axis=1).tolist() == [True] * 4 + [False]


def test_a_catalog_with_a_table_is_labelled(served, tmp_path):
    (tmp_path / "c.csv").write_text(
        'id,title,brand,price,colour\na,,A B,"12,50",red\nb,,,,\nc,, - ,\u00a0,\n',
        encoding="utf-8",
    )
    predict.predict(served, tmp_path / "c.csv", tmp_path / "out.csv", None, None)
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        first, *others = csv.DictReader(file)
    assert (first["label_1"], first["problem"]) == ("lamp", "")
    nothing = "nothing to go by: every modality is missing"
    assert [row["problem"] for row in others] == [nothing, nothing]
