import re

import pytest
from pydantic import ValidationError

from tfmm import experiment
from tfmm.errors import ExperimentError
from tfmm.settings import Export, PolicyNetwork, ResNet50, TextCnn

EXPERIMENT = """
seed = 3
[catalog]
task = "multi_label"
[modalities.title]
kind = "text"
columns = ["title"]
[modalities.image]
kind = "image"
columns = ["image"]
[towers.title]
model = "text_cnn"
modality = "title"
max_words = 16
[towers.image]
model = "resnet50"
modality = "image"
[heads.mean]
model = "mean"
towers = ["title", "image"]
[heads.policy]
model = "policy_network"
towers = ["title", "image"]
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT, encoding="utf-8")
    return path


def refusal(path, *overrides):
    """The message, after the file's name."""
    with pytest.raises(ExperimentError) as caught:
        experiment.load(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_file_becomes_settings_with_their_defaults(file):
    settings = experiment.load(file)
    assert settings.seed == 3
    assert isinstance(settings.towers["title"], TextCnn)
    assert isinstance(settings.towers["image"], ResNet50)
    assert isinstance(settings.heads["policy"], PolicyNetwork)
    assert settings.towers["title"].kernel_sizes == [3, 4, 5]
    assert settings.towers["title"].max_epochs == 50
    assert settings.heads["policy"].max_epochs == 200
    assert settings.catalog.splits.train == 0.7
    assert settings.export is None


def test_a_model_is_found_by_name_and_hears_its_towers(file):
    settings = experiment.load(file)
    assert settings.model_settings("image").model == "resnet50"
    assert settings.model_settings("mean").model == "mean"
    assert settings.towers_of("image") == ["image"]
    assert settings.towers_of("mean") == ["title", "image"]


def test_an_experiment_cannot_be_changed_after_loading(file):
    settings = experiment.load(file)
    with pytest.raises(ValidationError):
        settings.seed = 4
    with pytest.raises(ValidationError):
        settings.towers["title"].filters = 4


def test_a_dumped_experiment_loads_as_itself(file):
    settings = experiment.load(file, ["export.head=policy"])
    data = settings.model_dump(mode="json", exclude_none=True)
    assert experiment.check(data, "dump") == settings


def test_a_whole_number_is_a_rate_but_no_text_is_a_number(file):
    assert experiment.load(file, ["towers.title.dropout=0"])
    found = refusal(file, "towers.title.dropout='0'")
    assert found == "[towers.title] dropout: expected a valid number. Received: '0'"


# ------------------------------------------------------------------- the file


def test_a_byte_order_mark_and_crlf_change_nothing(file, tmp_path):
    other = tmp_path / "windows.toml"
    text = "\ufeff" + EXPERIMENT.replace("\n", "\r\n")
    other.write_bytes(text.encode("utf-8"))
    assert experiment.load(other) == experiment.load(file)


@pytest.mark.parametrize(
    "content",
    [
        b"seed = 0 # caf\xe9",
        EXPERIMENT.encode("utf-16"),
        b"seed = 1\nseed = 2",
        b"seed 1",
        b"seed = " + b"[" * 20_000,
    ],
    ids=["latin-1", "utf-16", "twice", "no equals sign", "deep"],
)
def test_what_is_no_toml_is_refused(tmp_path, content):
    path = tmp_path / "e.toml"
    path.write_bytes(content)
    assert refusal(path).startswith("not a TOML file: ")


def test_a_missing_file_is_answered_with_its_neighbour(file):
    found = refusal(file.with_name("ee.toml"))
    assert found == f"no such experiment file; did you mean '{file}'?"


def test_a_folder_is_no_experiment(tmp_path):
    assert refusal(tmp_path) == "expected a TOML file, not a folder"


def test_a_path_through_a_file_is_one_line(file):
    assert refusal(file / "x.toml") == "cannot be read: Not a directory"


def test_an_unreadable_file_is_one_line(file, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.read_text", refuse)
    assert refusal(file) == "cannot be read: Permission denied"


def test_an_empty_file_lacks_its_first_table(tmp_path):
    path = tmp_path / "e.toml"
    path.touch()
    assert refusal(path) == "the file needs a key 'catalog'"


# ----------------------------------------------------------- keys and values

REFUSED = {
    # keys
    "sed=1": "the file has no key 'sed'; did you mean 'seed'?",
    "towers.title.learing_rate=1": (
        "[towers.title] has no key 'learing_rate'; did you mean 'learning_rate'?"
    ),
    "catalog.splits.trian=0.7": (
        "[catalog.splits] has no key 'trian'; did you mean 'train'?"
    ),
    "heads.mean.fit_on=train": (
        "[heads.mean] has no key 'fit_on'; expected one of 'towers', 'model'"
    ),
    "export.hed=mean": "[export] needs a key 'head'",
    "heads.policy={}": "[heads.policy] needs a key 'model'",
    "towers.title={model='text_cnn'}": "[towers.title] needs a key 'modality'",
    "towers.title.model=text_cn": (
        "[towers.title] has no model = 'text_cn'; did you mean 'text_cnn'?"
    ),
    "heads.mean.model=avg": (
        "[heads.mean] has no model = 'avg'; expected one of 'max', 'mean', "
        "'product', 'mean_logits', 'weighted_mean', 'ridge', 'logistic_stack', "
        "'policy_network', 'gate', 'boosted_trees', 'early_fusion', 'joint'"
    ),
    # types and bounds
    "seed=1.0": "seed: expected a valid integer. Received: 1.0",
    "seed=true": "seed: expected a valid integer. Received: True",
    "seed=-1": "seed: expected greater than or equal to 0. Received: -1",
    "seed=2147483648": "seed: expected less than 2147483648. Received: 2147483648",
    "towers={}": "towers: expected to have at least 1 item, not 0. Received: {}",
    "catalog=3": "catalog: expected an object. Received: 3",
    "catalog.task=multi": (
        "[catalog] task: expected 'single_label' or 'multi_label'. Received: 'multi'"
    ),
    "catalog.label_separator=''": (
        "[catalog] label_separator: expected to have at least 1 character. Received: ''"
    ),
    "catalog.max_unlabelled_rate=1.5": (
        "[catalog] max_unlabelled_rate: expected less than or equal to 1. Received: 1.5"
    ),
    "catalog.min_products_per_label=0": (
        "[catalog] min_products_per_label: expected greater than or equal to 1. "
        "Received: 0"
    ),
    "modalities.title.columns=[]": (
        "[modalities.title] columns: expected to have at least 1 item, not 0. "
        "Received: []"
    ),
    "towers.title.modality=Title": (
        "[towers.title] modality: expected to match pattern '^[a-z][a-z0-9_]*$'. "
        "Received: 'Title'"
    ),
    "towers.title.dropout=1": (
        "[towers.title] dropout: expected less than 1. Received: 1"
    ),
    "towers.title.learning_rate=inf": (
        "[towers.title] learning_rate: expected a finite number. Received: inf"
    ),
    "heads.policy.l2=nan": (
        "[heads.policy] l2: expected a finite number. Received: nan"
    ),
    "heads.policy.hidden_units=[8, 0]": (
        "[heads.policy] hidden_units: expected greater than or equal to 1. Received: 0"
    ),
    "heads.policy.hidden_units=[100000000]": (
        "[heads.policy] hidden_units: expected less than or equal to 16384. "
        "Received: 100000000"
    ),
    "towers.title.filters=100000000": (
        "[towers.title] filters: expected less than or equal to 16384. "
        "Received: 100000000"
    ),
    "towers.title.batch_size=10000000000": (
        "[towers.title] batch_size: expected less than or equal to 2147483647. "
        "Received: 10000000000"
    ),
    "heads.policy.temperatures={title=1e300}": (
        "[heads.policy.temperatures] title: expected less than or equal to "
        "1000000000000000000. Received: 1e+300"
    ),
    "towers.image.image_size=31": (
        "[towers.image] image_size: expected greater than or equal to 32. Received: 31"
    ),
    "towers.image.trainable_layers=al": (
        "[towers.image] trainable_layers: expected a valid integer or 'all'. "
        "Received: 'al'"
    ),
    "export={head='mean', top_k=0}": (
        "[export] top_k: expected greater than or equal to 1. Received: 0"
    ),
    # keys that contradict each other
    "catalog.splits.train=0.9": (
        "[catalog.splits] splits must add up to 1. Received: 1.2"
    ),
    "modalities.image.columns=['a', 'b']": (
        "[modalities.image] an image modality reads one column. Received: ['a', 'b']"
    ),
    "towers.title.momentum=0.9": (
        "[towers.title] 'momentum' goes with rmsprop or sgd. Received: adam"
    ),
    "towers.title.weight_decay=0.1": (
        "[towers.title] 'weight_decay' goes with adamw. Received: adam"
    ),
    "towers.title.kernel_sizes=[1, 17]": (
        "[towers.title] 'kernel_sizes' must not exceed max_words = 16. "
        "Received: [1, 17]"
    ),
    "towers.image.trainable_layers=3": (
        "[towers.image] 'trainable_layers' must be \"all\" where no weights are "
        "loaded, or random layers stay frozen. Received: 3"
    ),
    "heads.policy.activations=[]": (
        "[heads.policy] 'activations' needs one entry for each of the 1 hidden_units. "
        "Received: []"
    ),
    "heads.mean.towers=['title']": (
        "[heads.mean] towers: expected to have at least 2 items, not 1. "
        "Received: ['title']"
    ),
    "heads.mean.towers=['title', 'title']": (
        "[heads.mean] names a tower twice: ['title', 'title']"
    ),
    "heads.mean.towers=['title', 'imgae']": (
        "[heads.mean] towers: 'imgae' is not in [towers] or [heads]; "
        "did you mean 'image'?"
    ),
    "heads={title={model='max', towers=['title', 'image']}}": (
        "[heads.title] has the name of a tower; choose another"
    ),
    "towers.title.modality=titel": (
        "[towers.title] modality = 'titel' is not in [modalities]; "
        "did you mean 'title'?"
    ),
    "towers.title.modality=image": (
        "[towers.title] text_cnn reads text. Received: modality 'image' of kind 'image'"
    ),
    "towers.image.modality=title": (
        "[towers.image] resnet50 reads image. Received: modality 'title' of kind 'text'"
    ),
    "modalities.labels={kind='text', columns=['x']}": (
        "[modalities.labels] has a reserved name; choose another"
    ),
    "export.head=polcy": (
        "[export] head = 'polcy' is no head or tower here; did you mean 'policy'?"
    ),
}


@pytest.mark.parametrize("override", REFUSED)
def test_a_wrong_key_or_value_is_named_in_one_line(file, override):
    assert refusal(file, override) == REFUSED[override]


def test_a_positive_weight_needs_the_sigmoid_loss(file):
    found = refusal(file, "catalog.task=single_label", "heads.policy.positive_weight=2")
    assert found.startswith("[heads.policy] positive_weight belongs to the sigmoid")
    experiment.load(file, ["heads.policy.positive_weight=2"])


@pytest.mark.parametrize("optimizer", ["rmsprop", "sgd"])
def test_momentum_goes_with_the_optimizers_that_have_it(file, optimizer):
    assert experiment.load(
        file, [f"towers.title.optimizer={optimizer}", "towers.title.momentum=0.9"]
    )


@pytest.mark.parametrize("name", ["Title", "1st", "my title", "a" * 41, ""])
def test_a_name_that_no_file_can_bear_is_refused(tmp_path, name):
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT + f'[heads."{name}"]\nmodel = "max"\ntowers = []\n')
    assert refusal(path).startswith(f"[heads] {name}: expected to ")


# ---------------------------------------------------------------------- --set


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("towers.title.filters=7", 7),
        (" towers.title.filters = 7", 7),
        ("towers.title.filters=7 # why", 7),
        ("towers.title.kernel_sizes=[1, 2]", [1, 2]),
        ("towers.title.optimizer=sgd", "sgd"),
        ('towers.title.optimizer="sgd"', "sgd"),
        ("towers.title.dropout=0.25", 0.25),
        ("towers.image.weights=a=b.h5", "a=b.h5"),
        ("towers.title.hidden_units=0", 0),
    ],
)
def test_set_reads_toml_and_takes_the_rest_as_text(file, override, value):
    settings = experiment.load(file, [override])
    _, tower, key = override.partition("=")[0].strip().split(".")
    assert getattr(settings.towers[tower], key) == value


def test_the_last_set_wins(file):
    assert experiment.load(file, ["seed=1", "seed=2"]).seed == 2


def test_set_can_open_a_table_that_the_file_lacks(file):
    settings = experiment.load(file, ["export.head=policy", "export.top_k=2"])
    assert settings.export == Export(head="policy", top_k=2)


@pytest.mark.parametrize("override", ["seed", "=3", ".=3", "towers..filters=3", ""])
def test_set_without_key_or_value_is_refused(file, override):
    expected = f"--set: expected key=value. Received: {override!r}"
    assert refusal(file, override) == expected


def test_set_on_a_table_that_is_not_there_names_the_nearest(file):
    assert refusal(file, "towers.titel.filters=3") == (
        "--set towers.titel.filters: the experiment has no [towers.titel]; "
        "did you mean 'title'?"
    )
    assert refusal(file, "tower.title.filters=3") == (
        "--set tower.title.filters: the experiment has no [tower]; "
        "did you mean 'towers'?"
    )


def test_set_below_a_value_is_refused(file):
    assert refusal(file, "seed.x=1") == "--set seed.x: 'seed' is not a table"


def test_set_cannot_smuggle_in_a_second_key(file):
    found = refusal(file, "towers.title.max_words=16\nseed = 9")
    assert re.match(r"\[towers.title\] max_words: expected a valid integer", found)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("catalog.path_separator='/'", "'path_separator' needs hierarchy"),
        ("catalog={task='multi_label',hierarchy='consistent',path_separator='|'}",
         "'path_separator' must differ from 'label_separator'"),
        ("calibration={target_precision=0.8}", "'target_precision' needs"),
        ("heads.boosted={model='boosted_trees',towers=['title','image'],"
         "form='per_label',num_candidates=3}", "'num_candidates' needs"),
        ("heads.gate={model='gate',towers=['title','image'],features_of=['title']}",
         "'features_of' needs inputs = 'features'"),
        ("heads.policy.boost_constant=3.0", "'boost_constant' needs"),
        ("towers.tbva={model='tbva',modality='image',image_tower='image',"
         "text_tower='title',late_text_units=9}", "'late_text_units' needs"),
    ],
)  # fmt: skip
def test_a_key_that_would_do_nothing_is_refused(file, override, expected):
    assert expected in refusal(file, override)
