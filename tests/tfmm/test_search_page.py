"""The page of a search, made of made-up trials."""

import json
import re
import shutil

import numpy as np
import pytest
from tiny import EXPERIMENT

from tfmm import experiment
from tfmm.search import page
from tfmm.search import space as spaces
from tfmm.search.importance import FEWEST_TRIALS, importance
from tfmm.search.journal import Journal, Record
from tfmm.search.loop import REFIT, Search
from tfmm.search.parameters import parameters
from tfmm.search.suggest import Suggestions
from tfmm.search.trial import Outcome

EVIL = "<script>alert(1)</script>"
SPACE = """
[search.policy]
learning_rate = { low = 1e-5, high = 0.1, scale = "log" }
hidden_units = [[5], [8], [{ low = 10, high = 50 }]]
batch_size = [16, 32, 64, 128]
optimizer = ["sgd", "adam"]
penalty = [{}, { dropout = { low = 0.1, high = 0.5 } }, { l2 = 0.01 }]
"""


def made(tmp_path, count, measure="micro_f1", extra=""):
    """A search of `count` trials in which the rate is all that matters."""
    path = tmp_path / "e.toml"
    path.write_text(EXPERIMENT + SPACE + extra, encoding="utf-8")
    settings = experiment.load(path)
    what = Search(
        *(settings, "policy", "tpe", 0, measure, ["title", "image"], False),
        *(tmp_path, tmp_path, ("", ""), tmp_path),
    )
    _, space = spaces.of(settings, "policy")
    suggestions = Suggestions(space, "random", 0, 10)
    journal = Journal(tmp_path / "search.jsonl", {"seed": 0}, resume=False)
    for number in range(count):
        if number:
            point = suggestions.next(number, [])
            values = spaces.values_of(space, point)
        else:
            point, values = spaces.first_point(settings, "policy")[0], {}
        rate = values.get("learning_rate", 1e-3)
        value = 0.9 - 0.1 * abs(np.log10(rate) + 3)
        value = -value if measure == "loss" else value
        outcome = Outcome("done", value, {measure: value}, curve=[value - 0.1, value])
        if number % 9 == 4:
            outcome = Outcome("failed", reason=f"the loss is nan {EVIL}")
        if number % 9 == 6:
            outcome = Outcome("stopped", value - 0.05, curve=[value - 0.05])
        journal.add(Record(number, point, values, outcome.as_dict(), 2.0 * number))
    return what, journal


def html_of(what, journal, tmp_path):
    page.write(what, journal, tmp_path / "search.html")
    return (tmp_path / "search.html").read_text(encoding="utf-8")


def test_the_page_says_what_was_found_and_how(tmp_path):
    what, journal = made(tmp_path, 40)
    html = html_of(what, journal, tmp_path)
    done = [x for x in journal.records.values() if x.status == "done"]
    leader = max(done, key=lambda x: x.value)
    assert f"The best of 40 trials is number {leader.number}:" in html
    assert f"{leader.value:.4f}" in html
    assert "The experiment as written reaches 0.9000" in html or leader.number == 0
    counts = [
        sum(x.status == s for x in journal.records.values())
        for s in ("done", "stopped", "failed")
    ]
    assert "{} done, {} stopped early, {} failed".format(*counts) in html
    for name in ("learning_rate", "hidden_units", "batch_size", "penalty", "dropout"):
        assert f"each trial against its {name}" in html
    assert html.count("<tr") >= 40 + 2
    assert "the epoch that its monitor chose" in html


def test_what_a_trial_said_stays_text(tmp_path):
    what, journal = made(tmp_path, 12)
    html = html_of(what, journal, tmp_path)
    assert EVIL not in html
    assert "&lt;script&gt;alert(1)" in html
    assert len(re.findall("<script", html)) == 1  # the shared one


def test_a_loss_is_shown_as_people_read_it(tmp_path):
    what, journal = made(tmp_path, 12, "loss")
    html = html_of(what, journal, tmp_path)
    assert "best loss" in html
    best = max(x.value for x in journal.records.values() if x.status == "done")
    assert f"<b>{-best:.4f}</b>" in html


def test_a_search_of_one_trial_and_one_with_a_refit_have_a_page(tmp_path):
    what, journal = made(tmp_path, 1, extra="data_rate = 0.5\n")
    assert "nothing better was found" in html_of(what, journal, tmp_path)
    refit = Outcome("done", 0.95, {"micro_f1": 0.95}).as_dict()
    journal.add(Record(REFIT, {}, {}, refit, 9.0))
    html = html_of(what, journal, tmp_path)
    assert "on all products" in html
    assert "0.9500" in html


def test_importance_finds_what_matters_and_is_silent_with_few_trials(tmp_path):
    what, journal = made(tmp_path, 60)
    trials = list(journal.records.values())
    _, space = spaces.of(what.settings, "policy")
    drawn = parameters(what.settings, "policy", space, trials)
    names = [x.name for x in drawn]
    assert names[:3] == ["learning_rate", "hidden_units", "batch_size"]
    assert {"penalty", "dropout"} <= set(names)
    weights = importance(drawn, trials)
    assert sum(weights.shares.values()) == pytest.approx(1.0)
    assert weights.shares["learning_rate"] > 0.6
    assert weights.explained > 0.3
    few = trials[: FEWEST_TRIALS - 1]
    assert importance(drawn, few) is None
    assert [x.values[0] for x in drawn if x.name == "learning_rate"] == [1e-3]
    # As written the second option is what stands there, with a dropout of 0.2.
    assert [x.values[0] for x in drawn if x.name == "penalty"] == ["dropout"]
    assert json.dumps([x.values[0] for x in drawn if x.name == "dropout"]) == "[0.2]"


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1300])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(tmp_path, width, scheme):
    sync = pytest.importorskip("playwright.sync_api", reason="the extra [browser]")
    what, journal = made(tmp_path, 40)
    html_of(what, journal, tmp_path)
    said = []
    with sync.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        shown = browser.new_page(
            viewport={"width": width, "height": 900}, color_scheme=scheme
        )
        shown.on("console", lambda message: said.append(message.text))
        shown.on("pageerror", lambda error: said.append(str(error)))
        shown.goto((tmp_path / "search.html").as_uri())
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        table = shown.locator("#trials table").first
        table.locator("th button").first.click()
        numbers = [
            int(x.split()[0])
            for x in table.locator("tbody tr td:first-child").all_inner_texts()
        ]
        assert numbers in (sorted(numbers), sorted(numbers, reverse=True))
        browser.close()
    assert said == []
