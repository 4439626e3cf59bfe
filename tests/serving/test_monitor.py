"""Drift is found, chance is not, and nothing of a log is dropped in silence."""

import gzip
import json
import math
import shlex
from pathlib import Path

import numpy as np
import pytest
from drift_bundle import content, line, products, write_bundle, write_log
from scipy.stats import chi2_contingency, entropy

from serving import monitor
from serving.drift import stability
from serving.drift.reference import Measure, ReferenceError, read_reference
from serving.drift.said import percent
from tfmm_client.batch import Batch
from tfmm_client.model import Reply, Signature
from tfmm_client.request_log import RequestLog
from tfmm_client.tensor import Tensor


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("models"))


def run(capsys, *words):
    """Exit code, what was printed, what was complained of."""
    code = monitor.main([str(word) for word in words])
    said = capsys.readouterr()
    return code, said.out, said.err


def report(capsys, bundle, log, tmp_path, *words):
    """The report of a run that must end well."""
    code, _, errors = run(
        capsys, bundle, "--log", log, "--to", tmp_path / "report.json", *words
    )
    assert (code, errors) == (0, "")
    return json.loads((tmp_path / "report.json").read_text())


def verdicts(result):
    return {row["key"]: row["verdict"] for row in result["measures"]}


def numbers(counts):
    """A measure of numbers with these counts."""
    edges = tuple(range(len(counts) - 1))
    return Measure("bytes", "image", None, "test", (), edges, tuple(counts), 1.0, None)


def values(counts):
    """A measure with values and these counts."""
    names = tuple(map(str, range(len(counts))))
    return Measure("label", None, None, "test", names, (), tuple(counts), None, None)


# --------------------------------------------------------------------- the index


def test_the_index_is_the_relative_entropy_both_ways():
    random = np.random.default_rng(0)
    for bins in (2, 7, 30):
        before, now = random.integers(1, 200, (2, bins))
        p, q = ((x + 0.5) / (x + 0.5).sum() for x in (before, now))
        expected = entropy(p, q) + entropy(q, p)
        found = stability.stability_index(before.tolist(), now.tolist())
        assert math.isclose(found, expected)


def test_the_index_by_hand():
    # Of 9 + 0.5 + 0.5: 0.95 and 0.05, the other way round now.
    assert math.isclose(
        stability.stability_index([9, 0], [0, 9]), 2 * 0.9 * math.log(19)
    )
    assert stability.stability_index([5, 5], [50, 50]) == 0


def test_significance_is_the_likelihood_ratio_of_scipy():
    random = np.random.default_rng(1)
    for _ in range(5):
        before, now = random.integers(1, 60, (2, 6)).tolist()
        expected = chi2_contingency(
            [before, now], correction=False, lambda_="log-likelihood"
        ).pvalue
        assert math.isclose(stability.significance(before, now), expected)


POPULATIONS = {
    "tenths": (np.full(10, 0.1), numbers),
    "labels": (1 / np.arange(1, 58) / (1 / np.arange(1, 58)).sum(), values),
    "one of a thousand": (np.array([0.999, 0.001]), values),
}


@pytest.mark.parametrize("size", [20, 50, 100, 500, 5_000])
@pytest.mark.parametrize("population", POPULATIONS)
def test_chance_is_hardly_ever_called_drift(population, size):
    shares, make = POPULATIONS[population]
    random = np.random.default_rng(size)
    trials, alarms, total = 300, 0, 0.0
    for _ in range(trials):
        measure = make(random.multinomial(2_000, shares).tolist())
        found = stability.compare(measure, random.multinomial(size, shares).tolist())
        alarms += found.verdict in (stability.DRIFT, stability.SOMEWHAT)
        total += found.index / found.chance
    # One in a thousand is meant: five in 300 happen once in 50,000 times.
    assert alarms < 5
    if population == "tenths" and size >= 500:
        assert 0.9 < total / trials < 1.1


@pytest.mark.parametrize("size", [100, 500, 5_000])
def test_drift_is_found(size):
    random = np.random.default_rng(size)
    before = random.multinomial(2_000, np.full(10, 0.1)).tolist()
    shares = np.array([0.28, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.01, 0.01])
    now = random.multinomial(size, shares).tolist()
    assert stability.compare(numbers(before), now).verdict == stability.DRIFT
    assert stability.compare(values(before), now).verdict == stability.DRIFT


def test_what_was_never_seen_before_is_found():
    found = stability.compare(values([2_000, 0, 0]), [450, 50, 0])
    assert found.verdict == stability.DRIFT
    assert found.bins[1].first == 1


def test_few_products_say_nothing_but_the_worst():
    measure = numbers([200] * 10)
    assert stability.compare(measure, [2] * 10).verdict == stability.TOO_FEW
    assert stability.compare(measure, [20] + [0] * 9).verdict == stability.DRIFT
    assert stability.compare(values([2] * 500), [1] * 500).verdict == stability.TOO_FEW
    assert stability.compare(measure, [0] * 10).verdict == stability.NOT_MEASURED


def test_small_bins_are_joined_and_every_product_is_in_one():
    measure = numbers([500, 2, 1, 500, 3])
    bins = stability.joined(measure, [50, 0, 0, 50, 1])
    assert [(x.first, x.last) for x in bins] == [(0, 0), (1, 4)]
    assert [x.reference for x in bins] == [500, 506]
    assert sum(x.live for x in bins) == 101
    rest = stability.joined(values([500, 2, 1, 500]), [50, 0, 1, 50])[-1]
    assert (rest.first, rest.reference, rest.live) == (None, 3, 1)


# ------------------------------------------------------------------- the command


def test_the_same_products_have_not_changed(bundle, capsys, tmp_path):
    log = write_log(tmp_path / "requests.jsonl", products(1_000))
    result = report(capsys, bundle, log, tmp_path)
    assert set(verdicts(result).values()) == {"none"}
    assert len(result["measures"]) == len(content()["measures"])
    assert (result["requests"], result["products"]) == (500, 1_000)
    assert result["drifted"] == []


def test_missing_images_are_told_in_words(bundle, capsys, tmp_path):
    log = write_log(tmp_path / "requests.jsonl", products(600, no_image=0.41))
    code, out, _ = run(capsys, bundle, "--log", log, "--fail_on_drift")
    assert code == 3
    [told] = [x for x in out.splitlines() if x.startswith("drifted:")]
    share = told.split()[5]
    assert told == (
        f"drifted: image is missing in {share} % of the products, 3.0 % in the catalog"
    )
    assert 36 < float(share) < 46


DRIFTS = {
    "title.characters": lambda x: x["inputs"]["title"].update(characters=30),
    "title.unknown_words.cnn": lambda x: x["inputs"]["title"].update(
        text="rote Lampe", characters=10
    ),
    "image.bytes": lambda x: x["inputs"]["image"].update(
        {"bytes": 90_000} if x["inputs"]["image"]["present"] else {}
    ),
    "image.status": lambda x: x.update(
        image_status=["corrupt" if x["inputs"]["image"]["present"] else "missing"]
    ),
    "label": lambda x: x.update(label="hat"),
    "score": lambda x: x.update(score=0.31),
    "assigned": lambda x: x.update(assigned=False),
}


@pytest.mark.parametrize("key", DRIFTS)
def test_each_kind_of_drift_is_found_and_no_other(key, bundle, capsys, tmp_path):
    some = products(400, seed=5)
    for product in some[::2]:
        DRIFTS[key](product)
    result = report(capsys, bundle, write_log(tmp_path / "r.jsonl", some), tmp_path)
    found = verdicts(result)
    others = {"title.characters"} if key == "title.unknown_words.cnn" else set()
    changed = {k for k, x in found.items() if x in ("drifted", "some")}
    assert key in changed
    assert changed <= {key} | others
    assert result["measures"][0]["said"].count("\n") == 0


def test_unknown_words_need_texts_in_the_log(bundle, capsys, tmp_path):
    some = products(200)
    for product in some:
        del product["inputs"]["title"]["text"]
    result = report(capsys, bundle, write_log(tmp_path / "r.jsonl", some), tmp_path)
    assert verdicts(result)["title.unknown_words.cnn"] == "not measured"
    assert verdicts(result)["title.characters"] == "none"


BAD = {
    "{": "no JSON",
    "[]": "the line must be an object",
    line([]): "'products' is empty",
    line(products(1), time="noon"): "no ISO 8601",
    line(products(1), time="2026-11-24"): "has no time zone",
    line(products(1), version="3"): "'version' must be int or null",
    line([{**products(1)[0], "label": "sofa"}]): "no such label",
    line([{**products(1)[0], "score": 1.5}]): "must be in [0, 1]",
    line([{**products(1)[0], "score": None}]): "'score' must be float",
    line([{**products(1)[0], "inputs": {}}]): "the inputs are not image, title",
    line([{**products(1)[0], "image_status": ["odd"]}]): "'image_status' of 'image'",
    line([{**products(1)[0], "image_status": []}]): "must have 1 entries",
}


def test_bad_lines_are_told_by_number_and_reason(bundle, capsys, tmp_path):
    log = tmp_path / "requests.jsonl"
    good = write_log(log, products(200)).read_text()
    ends = "".join(x if x.endswith("\n") else f"{x}\n" for x in BAD)
    log.write_text(good + ends)
    code, out, errors = run(capsys, bundle, "--log", log, "--to", tmp_path / "r.json")
    assert code == 0
    assert f"{len(BAD)} bad lines, not counted" in out
    told = errors.splitlines()
    assert len(told) == monitor.SHOWN_LINES + 1
    assert told[-1] == f"and {len(BAD) - monitor.SHOWN_LINES} bad lines more"
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["products"] == 200
    assert [x["line"] for x in result["bad_lines"]] == list(range(101, 101 + len(BAD)))
    for bad, reason in zip(result["bad_lines"], BAD.values(), strict=True):
        assert reason in bad["reason"]
        assert "\n" not in bad["reason"]


def test_other_models_and_versions_are_counted_apart(bundle, capsys, tmp_path):
    log = tmp_path / "requests.jsonl"
    some = products(100)
    parts = [
        write_log(log, some).read_text(),
        line(some[:4], version=2),
        line([{"inputs": {"other": 1}}], model="chairs"),
        line(some[:1], version=None),
    ]
    log.write_text("".join(parts))
    result = report(capsys, bundle, log, tmp_path)
    assert result["products"] == 101
    assert result["requests_of_unknown_version"] == 1
    assert result["other_models"] == [
        {"model": "products", "version": 2, "products": 4},
        {"model": "chairs", "version": 3, "products": 1},
    ]
    served = report(capsys, bundle, log, tmp_path, "--model_name", "products")
    assert served["products"] == 101
    code, _, errors = run(capsys, bundle, "--log", log, "--model_name", "shop")
    assert code == 2
    assert "no request to shop 3" in errors
    assert "101" not in errors.split("other models")[0]


def test_times_and_windows(bundle, capsys, tmp_path):
    log = tmp_path / "requests.jsonl"
    days = [
        *(("2026-11-22", 0.03), ("2026-11-23", 0.03), ("2026-11-24", 0.5)),
        ("2026-11-25", 0.5),
    ]
    parts = []
    for seed, (day, no_image) in enumerate(days):
        some = products(300, seed, no_image)
        # Written elsewhere: what counts is UTC.
        parts.append(write_log(log, some, time=f"{day}T23:30:00-00:30").read_text())
    log.write_text("".join(parts))
    words = ("--since", "2026-11-23", "--until", "2026-11-26T00:00Z", "--window", "1d")
    result = report(capsys, bundle, log, tmp_path, *words)
    assert result["requests_outside"] == 150
    found = [
        (x["start"], x["products"], x["measures"]["image.present"]["verdict"])
        for x in result["windows"]
    ]
    assert found == [
        ("2026-11-23T00:00:00Z", 300, "none"),
        ("2026-11-24T00:00:00Z", 300, "none"),
        ("2026-11-25T00:00:00Z", 300, "drifted"),
    ]
    _, out, _ = run(capsys, bundle, "--log", log, "--window", "1d")
    [first] = [x for x in out.splitlines() if "!!" in x and "2026-11-25" in x]
    assert "300" in first


def test_rotated_and_packed_logs_are_read_together(bundle, capsys, tmp_path):
    log = write_log(tmp_path / "requests.jsonl", products(60))
    packed = tmp_path / "requests.jsonl.1.gz"
    packed.write_bytes(gzip.compress(log.read_bytes()))
    result = report(capsys, bundle, log, tmp_path, "--log", packed)
    assert [x["lines"] for x in result["logs"]] == [30, 30]
    assert result["products"] == 120
    packed.write_bytes(packed.read_bytes()[:-20])
    code, _, errors = run(capsys, bundle, "--log", packed)
    assert code == 2
    assert f"{packed}: cannot be read" in errors


def test_bad_input_is_one_line_and_exit_2(bundle, capsys, tmp_path):
    log = write_log(tmp_path / "requests.jsonl", products(2))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    for words, expected in (
        ((bundle, "--log", tmp_path / "no"), "cannot be read: No such file"),
        ((bundle, "--log", log, log), "is there twice"),
        ((bundle, "--log", empty), "no request to products 3 to compare"),
        ((bundle.parent, "--log", log), "expected a version directory"),
        ((bundle, "--log", log, "--window", "week"), "expected days or hours"),
        ((bundle, "--log", log, "--since", "noon"), "expected a date or a time"),
        (
            (bundle, "--log", log, "--since", "2026-11-25", "--until", "2026-11-24"),
            "--since must be before --until",
        ),
        ((bundle, "--log", log, "--to", tmp_path / "no" / "r.json"), "No such file"),
        ((bundle, "--logs", log), "--log"),
    ):
        code, out, errors = run(capsys, *words)
        assert (code, out) == (2, ""), words
        assert expected in errors
        assert len(errors.splitlines()) == 1


# ----------------------------------------------------------------- the reference


def test_an_older_bundle_says_how_to_get_a_reference(capsys, tmp_path):
    bundle = write_bundle(tmp_path)
    (bundle / "assets.extra" / "reference.json").unlink()
    code, _, errors = run(capsys, bundle, "--log", tmp_path / "requests.jsonl")
    assert code == 2
    assert "older than monitoring: export its run again" in errors
    assert len(errors.splitlines()) == 1


def changed(change):
    whole = content()
    change(whole)
    return whole


DAMAGE = {
    "format 2": lambda x: x.update(format=2),
    "has no 'measures'": lambda x: x.pop("measures"),
    "has no 'score'": lambda x: x["measures"].pop(7),
    "4 bins and other counts": lambda x: x["measures"][1]["counts"].pop(),
    "counts that are none": lambda x: x["measures"][1]["counts"].__setitem__(0, -1),
    "edges that do not ascend": lambda x: x["measures"][1]["edges"].reverse(),
    "not those of assets/labels.txt": lambda x: x["measures"][6]["values"].reverse(),
    "not of the whole catalog": lambda x: x["products"].update(catalog=5),
    "not of all 5 test products": lambda x: x["products"].update(test=5),
    "unknown measure": lambda x: x["measures"][0].update(name="weight"),
    "expected 9 words": lambda x: x["vocabularies"]["cnn"].update(words=9),
    "no measure bild.status": lambda x: x.update(images=["bild"]),
    "damaged": lambda x: x["cleaning"].update(markup=[["(", ""]]),
}


@pytest.mark.parametrize("said", DAMAGE)
def test_a_damaged_reference_is_refused(said, tmp_path):
    bundle = write_bundle(tmp_path)
    file = bundle / "assets.extra" / "reference.json"
    file.write_text(json.dumps(changed(DAMAGE[said])))
    with pytest.raises(ReferenceError) as caught:
        read_reference(bundle)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_log_that_the_client_writes_is_read_whole(bundle, capsys, tmp_path):
    log = tmp_path / "requests.jsonl"
    inputs = {
        "title": Tensor("string", (2,), ["rëd \u2028 lamp", ""]),
        "image": Tensor("string", (2,), [b"", b"\xff\xd8"]),
    }
    outputs = {
        "labels": [["hat"]] * 2,
        "scores": [[0.5]] * 2,
        "assigned": [[True]] * 2,
        "image_used": [[False], [True]],
        "image_status": [["missing"], ["used"]],
    }
    for texts in (False, True):
        writer = RequestLog(log, "products", texts)
        writer.append(
            Batch("serving_default", Signature({}, {}), inputs, 2),
            Reply(outputs, 3),
            0.01,
        )
    result = report(capsys, bundle, log, tmp_path)
    assert (result["requests"], result["products"]) == (2, 4)
    rows = {row["key"]: row for row in result["measures"]}
    assert rows["title.present"]["counts"] == [2, 2]
    assert rows["title.characters"]["counts"] == [0, 2, 0, 0]
    assert rows["image.bytes"]["mean"] == 2.0
    assert rows["image.status"]["counts"] == [2, 0, 0, 0, 0]
    # "rëd" is not "red", and "lamp" is known.
    assert rows["title.unknown_words.cnn"]["share"] == 0.5


def test_shares_for_people():
    assert [percent(x) for x in (0.0, 0.0949, 0.41, 0.9984, 1.0, None)] == [
        *("0 %", "9.5 %", "41 %", "99.8 %", "100 %", "none")
    ]


def test_the_pages_print_commands_that_parse_and_every_flag():
    root = Path(monitor.__file__).parents[1]
    guide = (root / "docs" / "serving.md").read_text("utf-8")
    pages = guide + (root / "serving" / "README.md").read_text("utf-8")
    start = "python -m serving.monitor "
    commands = [x for x in pages.splitlines() if x.startswith(start)]
    assert len(commands) == 3
    for command in commands:
        options = monitor.build_parser().parse(shlex.split(command)[3:])
        assert options.bundle == Path("models/products/3")
    flags = [x for a in monitor.build_parser()._actions for x in a.option_strings]
    for flag in flags:
        assert f"`{flag}" in guide or flag in ("-h", "--help"), flag


def test_the_guide_lists_the_keys_of_both_files(bundle, capsys, tmp_path):
    root = Path(monitor.__file__).parents[1]
    guide = (root / "docs" / "serving.md").read_text("utf-8")
    log = write_log(tmp_path / "requests.jsonl", products(2))
    result = report(capsys, bundle, log, tmp_path)
    for key in {*content(), *content()["measures"][2], *result}:
        assert f"`{key}`" in guide, key
