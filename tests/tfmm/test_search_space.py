import json
import math

import numpy as np
import pytest
from tiny import EXPERIMENT

from tfmm import experiment
from tfmm.errors import ExperimentError
from tfmm.search import bounds
from tfmm.search import space as spaces
from tfmm.search.suggest import Suggestions
from tfmm.settings import HeadSettings, TowerSettings
from tfmm.settings.search import OPTIONS, TOP_KEYS, space_of

KEYS = ("learning_rate", "hidden_units", "batch_size", "l2", "dropout", "temperatures")
WHOLE = {
    "learning_rate": {"low": 1e-5, "high": 0.1, "scale": "log"},
    "hidden_units": [[50], [{"low": 10, "high": 400, "step": 10}]],
    "batch_size": [16, 32],
    "penalty": [
        {},
        {"l2": {"low": 1e-7, "high": 1, "scale": "log"}},
        {"dropout": {"low": 0.1, "high": 0.5, "step": 0.1}, "l2": 0.5},
    ],
    "temperatures": {"title": {"low": 0.1, "high": 4.0}, "image": 1.0},
}
DEFAULTS = {"l2": 0.0, "dropout": 0.0}


def loaded(tmp_path, search="", target="policy"):
    path = tmp_path / "e.toml"
    text = f"{EXPERIMENT}\n[search.{target}]\n{search}\n" if search else EXPERIMENT
    path.write_text(text, encoding="utf-8")
    return experiment.load(path)


def refusal(tmp_path, search):
    def check():
        bounds.probes(loaded(tmp_path, search), "policy", "e.toml")

    with pytest.raises(ExperimentError) as caught:
        check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def draws(space, count, algorithm="random", seed=0):
    suggestions = Suggestions(space, algorithm, seed, 10)
    return [suggestions.next(number, []) for number in range(count)]


# ------------------------------------------------------------------- drawing


def test_every_value_of_a_space_is_drawn_and_no_other():
    space = space_of(WHOLE, KEYS)
    found = [spaces.values_of(space, point) for point in draws(space, 400)]
    assert {x["batch_size"] for x in found} == {16, 32}
    assert all(1e-5 <= x["learning_rate"] <= 0.1 for x in found)
    exponents = [math.log10(x["learning_rate"]) for x in found]
    assert abs(np.mean(exponents) + 3) < 0.2  # as many of each order of magnitude
    units = {x["hidden_units"][0] for x in found}
    assert units <= {50, *range(10, 401, 10)}
    assert all(isinstance(x, int) for x in units)
    assert len(units) > 30
    assert {x["temperatures"]["image"] for x in found} == {1.0}
    kinds = {(x["l2"] is None, x["dropout"] is None) for x in found}
    assert kinds == {(True, True), (False, True), (False, False)}
    dropouts = {x["dropout"] for x in found} - {None}
    assert dropouts == {0.1, 0.2, 0.3, 0.4, 0.5}


def test_the_ends_of_a_range_with_steps_are_as_likely_as_the_rest():
    space = space_of({"batch_size": {"low": 1, "high": 4}}, KEYS)
    found = [spaces.values_of(space, x)["batch_size"] for x in draws(space, 2_000)]
    shares = np.bincount(found, minlength=5)[1:] / 2_000
    assert (np.abs(shares - 0.25) < 0.04).all()


def test_a_step_that_does_not_meet_the_end_stays_below_it():
    space = space_of({"batch_size": {"low": 1, "high": 10, "step": 4}}, KEYS)
    found = {spaces.values_of(space, x)["batch_size"] for x in draws(space, 200)}
    assert found == {1, 5, 9}


def test_the_point_of_settings_gives_them_back():
    space = space_of(WHOLE, KEYS)
    for point in draws(space, 50):
        values = spaces.values_of(space, point)
        own = {k: DEFAULTS[k] if v is None else v for k, v in values.items()}
        again = spaces.values_of(space, spaces.point_of(space, own, DEFAULTS))
        assert again == values


def test_settings_outside_of_the_space_have_no_point():
    space = space_of(WHOLE, KEYS)
    own = {"learning_rate": 0.01, "hidden_units": [50], "batch_size": 16}
    own |= DEFAULTS | {"temperatures": {"title": 1.0, "image": 1.0}}
    assert spaces.point_of(space, own, DEFAULTS)["hidden_units"] == 0
    for key, value in (
        ("learning_rate", 0.5),
        ("batch_size", 64),
        ("hidden_units", [55]),
        ("temperatures", {}),
        ("dropout", 0.2),
    ):
        with pytest.raises(ValueError, match=key if key != "dropout" else "penalty"):
            spaces.point_of(space, own | {key: value}, DEFAULTS)


def test_a_constant_that_is_not_as_written_is_outside_of_the_space():
    space = space_of({"batch_size": 16, "learning_rate": [0.1, 0.2]}, KEYS)
    own = {"batch_size": 16, "learning_rate": 0.2}
    assert spaces.point_of(space, own, {}) == {"learning_rate": 1}
    with pytest.raises(ValueError, match="batch_size = 8 is outside of the space"):
        spaces.point_of(space, own | {"batch_size": 8}, {})


# ------------------------------------------------------------------- seeds


def known_of(space, suggestions, count):
    """Trials of a made-up objective: the nearer to 1e-3 and 32, the better."""
    known = []
    for number in range(count):
        point = suggestions.next(number, known)
        values = spaces.values_of(space, point)
        loss = (math.log10(values["learning_rate"]) + 3) ** 2
        loss += (values["batch_size"] == 16) + (values["l2"] or 0.0)
        known.append((number, point, None if number % 9 == 4 else loss))
    return known


def test_suggestions_depend_on_the_seed_and_on_what_is_known_alone():
    space = space_of(WHOLE, KEYS)
    first = known_of(space, Suggestions(space, "tpe", 3, 5), 25)
    # As after a kill: nothing but the list of trials is left.
    again = Suggestions(space, "tpe", 3, 5).next(24, first[:24])
    assert again == first[24][1]
    assert Suggestions(space, "tpe", 4, 5).next(24, first[:24]) != again
    kept = json.loads(json.dumps(first[:24]))
    assert Suggestions(space, "tpe", 3, 5).next(24, kept) == again


def test_tpe_finds_better_settings_than_chance():
    space = space_of(WHOLE, KEYS)

    def best(algorithm, seed):
        known = known_of(space, Suggestions(space, algorithm, seed, 10), 40)
        return min(loss for _, _, loss in known if loss is not None)

    seeds = range(5)
    tpe, chance = (np.mean([best(x, s) for s in seeds]) for x in ("tpe", "random"))
    assert tpe < chance


def test_settings_that_were_tried_are_drawn_again_only_if_there_are_no_others():
    space = space_of({"batch_size": [16, 32, 64]}, KEYS)
    suggestions = Suggestions(space, "random", 0, 10)
    known, found = [], []
    for number in range(4):
        point = suggestions.next(number, known)
        known.append((number, point, 1.0))
        found.append(spaces.values_of(space, point)["batch_size"])
    assert sorted(found[:3]) == [16, 32, 64]


# ------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("search", "message"),
    [
        (
            "learing_rate = [1.0]",
            "no key 'learing_rate'; did you mean 'learning_rate'?",
        ),
        ("batch_size = []", "expected at least one choice"),
        ("dropout = { low = 0.5, high = 0.1 }", "low must be below high"),
        ("dropout = { low = 0.1 }", "a range needs 'high'"),
        ("dropout = { low = 0.1, high = 0.5, scael = 'log' }", "did you mean 'scale'?"),
        ("dropout = { low = 0, high = 0.5, scale = 'log' }", "low must be above 0"),
        ("dropout = { low = 0.1, high = 0.5, step = 2 }", "at most high - low"),
        ("batch_size = { low = 8, high = 64, step = 0 }", "step must be above 0"),
        ("dropout = { low = 'a', high = 0.5 }", "low must be a number"),
        ("model = ['gate']", "'model' cannot be searched"),
        ("penalty = [{ lr = 1 }]", "penalty 1: the model has no key 'lr'"),
        ("dropout = [0.1]\npenalty = [{ dropout = 0.2 }]", "drawn in two places"),
        ("measure = 'top1'", "there is nothing to search"),
        ("data_rate = 2.0\ndropout = [0.1]", "data_rate: input should be less than"),
        (
            "stale_trials = 'a'\ndropout = [0.1]",
            "stale_trials: input should be a valid",
        ),
        (
            "dropout = { low = 0.5, high = 1.5 }",
            "dropout = 1.5: [heads.policy] dropout",
        ),
        ("batch_size = [16, 'x']", 'batch_size = "x": [heads.policy] batch_size'),
        ("penalty = [{}, { l2 = [-1.0] }]", "l2 = -1.0: [heads.policy] l2"),
        ('"modalities.title.column" = [2]', "did you mean 'columns'"),
        ('"catalog.rotation" = [0.0, 0.5]', "other products, labels or splits"),
        ('"heads.policy.dropout" = [0.5]', "the model's own; expected 'dropout'"),
        ('"heads.policy.a.b" = [0.5]', "expected a = { b = ... }"),
        ('"search.policy.data_rate" = [0.5]', "depends on [search]"),
        ('a = [{}, { "heads.product.towers" = ["x"] }]', "towers at its default"),
        ('"seed.x" = [2]', "'seed' is no table"),
    ],
)
def test_a_space_that_cannot_be_is_named_before_any_trial(tmp_path, search, message):
    assert message in refusal(tmp_path, search)


def test_values_that_only_go_with_others_of_the_space_are_allowed(tmp_path):
    text = """optimizer = ["sgd", "adam"]
momentum = { low = 0.1, high = 0.9 }
layers = [
    { hidden_units = [[4], [8]], activations = [["tanh"], ["relu"]] },
    { hidden_units = [[8, 4]], activations = [["sigmoid", "tanh"]] },
]
"catalog.folds" = [0, 2]
"""
    settings = loaded(tmp_path, text)
    bounds.probes(settings, "policy", "e.toml")
    tried = spaces.with_values(
        settings, "policy", {"hidden_units": [8, 4], "activations": ["tanh"] * 2}, "x"
    )
    assert tried.heads["policy"].hidden_units == [8, 4]
    back = spaces.with_values(tried, "policy", {"dropout": None}, "x")
    assert back.heads["policy"].dropout == 0.0


def test_keys_of_the_experiment_are_searched_as_those_of_the_model(tmp_path):
    text = """seed = [0, 1, 2]
"catalog.folds" = [0, 2]
place = [{ "calibration.method" = ["temperature", "platt"] }, { dropout = 0.2 }]
"""
    settings = loaded(tmp_path, text)
    bounds.probes(settings, "policy", "e.toml")
    tried = spaces.with_values(settings, "policy", {"seed": 2}, "x")
    assert tried.seed == 2
    assert spaces.value_at(tried, "policy", "seed") == 2
    # As written: the seed, no folds, and the option with a dropout of 0.2, for what
    # the other one would set is at its default.
    point, reason = spaces.first_point(settings, "policy")
    assert (reason, point) == ("", {"seed": 0, "catalog.folds": 0, "place": 1})


def test_all_models_that_a_trial_may_hear_are_known(tmp_path):
    text = 'towers = [["title", "image"], ["title", "product"]]\ndropout = [0.1, 0.2]'
    settings = loaded(tmp_path, text)
    tried = bounds.probes(settings, "policy", "e.toml")
    found = [x.starts_from("policy") for x in bounds.hearing(settings, "policy", tried)]
    assert found == [["title", "image"], ["title", "product"]]
    # Trials make all of it anew.
    whole = loaded(tmp_path, f"{text}\nseed = [0, 1]")
    tried = bounds.probes(whole, "policy", "e.toml")
    assert bounds.hearing(whole, "policy", tried) == [whole]


def test_a_table_as_a_default_has_a_point(tmp_path):
    text = "some = [{}, { augmentation = { flip = false } }]\nblocks = [1]"
    settings = loaded(tmp_path, text, "image")
    assert spaces.first_point(settings, "image")[0] is None  # it is { flip = true }
    plain = spaces.with_values(settings, "image", {"augmentation": None}, "x")
    assert spaces.first_point(plain, "image")[0] == {"some": 0, "blocks": 0}


@pytest.mark.parametrize(
    ("search", "cut"),
    [
        ('fit_on = ["fusion", "validation"]', True),
        ('place = [{}, { fit_on = "validation" }]', True),
        ('fit_on = ["fusion", "train"]', False),
    ],
)
def test_whether_any_trial_is_fitted_on_validation_is_known_before(
    tmp_path, search, cut
):
    settings = loaded(tmp_path, search)
    tried = bounds.probes(settings, "policy", "e.toml")
    assert bounds.cuts_validation(settings, "policy", tried, "e.toml") is cut


def test_the_seed_may_not_draw_what_trials_are_measured_on(tmp_path):
    settings = loaded(tmp_path, 'fit_on = ["fusion", "validation"]\nseed = [0, 1]')
    tried = bounds.probes(settings, "policy", "e.toml")
    with pytest.raises(ExperimentError, match="'seed': it draws which part"):
        bounds.cuts_validation(settings, "policy", tried, "e.toml")


def test_no_option_has_the_name_of_a_models_key():
    for union in (HeadSettings, TowerSettings):
        for member in union.__origin__.__args__:
            assert not OPTIONS & set(member.model_fields), member
            assert not set(TOP_KEYS) & set(member.model_fields), member


def test_every_model_but_the_fixed_rules_has_a_ready_space(tmp_path):
    import tomllib

    ready = tomllib.loads(spaces.READY.read_text(encoding="utf-8"))
    for union in (HeadSettings, TowerSettings):
        for member in union.__origin__.__args__:
            for name in member.model_fields["model"].annotation.__args__:
                if name in ("max", "mean", "product", "mean_logits"):
                    assert name not in ready
                else:
                    assert space_of(ready[name], member.model_fields)


def test_a_ready_space_is_taken_and_written_down(tmp_path, capsys):
    settings = spaces.with_ready_space(loaded(tmp_path), "policy", "e.toml")
    bounds.probes(settings, "policy", "e.toml")
    assert "the ready space of policy_network" in capsys.readouterr().err
    assert "learning_rate" in settings.search["policy"]
    with pytest.raises(ExperimentError, match="has no ready space"):
        spaces.with_ready_space(settings, "product", "e.toml")
    with pytest.raises(ExperimentError, match="did you mean 'policy'"):
        spaces.with_ready_space(settings, "polici", "e.toml")
