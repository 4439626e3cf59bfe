"""The model card: what a bundle is, what it was made from, how good it is."""

from export.reference import Reference
from export.rule import Choice
from tfmm.classifier import Classifier
from tfmm.run import Run, read_json

MEASURES = ("top1", "top5", "micro_f1", "macro_f1", "map", "ece")


def model_card(
    run: Run,
    model: Classifier,
    name: str,
    expected: Reference,
    choice: Choice | None = None,
) -> str:
    """Markdown; figures come from the run's report on `test`, if there is one."""
    info = run.read_info()
    lines = [
        f"# {name}",
        "",
        f"Files products under {len(model.label_names)} categories "
        f"({model.task.replace('_', ' ')}), by `{model.name}`.",
        "",
        "## Inputs",
        "",
        "| input | kind | made from the columns |",
        "|---|---|---|",
        *(
            f"| `{modality}` | {about.kind} | {', '.join(about.columns)} |"
            for modality, about in model.modalities.items()
        ),
        "",
        "Each is a batch of strings: texts in UTF-8, images as the bytes of a JPEG, "
        "PNG, GIF, BMP or WebP file. What is missing is an empty string. With "
        "everything missing the answer is the label shares of the training products.",
        "",
        *_how_to_write_rows(model),
        "## Outputs",
        "",
        f"`serving_default`: the {model.top_k} most probable `labels`, their `scores`, "
        "and whether each is `assigned`. `probabilities`: all labels, in the order of "
        "`assets/labels.txt`. `explain`: what each input contributed to the scores of "
        "those labels, which add up to the score less the label's share of the "
        "training products; and where a tower attends to the image, the map. `embed`: "
        "a vector of unit length, for similarity search.",
        "",
        *_when_images_are_read(model, choice),
        "## Watching it",
        "",
        *_reference(expected),
        "",
        "## Figures on the test split",
        "",
        *_figures(run, model),
        "",
        "## Made from",
        "",
        f"- catalog: SHA-256 {info['catalog']['sha256']}",
        f"- seed: {info['seed']}",
        *(f"- {library} {version}" for library, version in info["versions"].items()),
    ]
    return "\n".join(lines) + "\n"


def _reference(expected: Reference) -> list[str]:
    products = expected.content["products"]
    lines = [
        "`assets.extra/reference.json` holds what `python -m serving.monitor` compares "
        f"live requests with: how {products['catalog']} products of the catalog are "
        f"made up, and what the model says of the {products['test']} of its test "
        "split, on which nothing was fitted.",
    ]
    for measure in expected.content["measures"]:
        if measure["name"] == "unknown_words" and measure["words"]:
            lines.append(
                f"Of the words of `{measure['modality']}` there, "
                f"{measure['unknown'] / measure['words']:.1%} are unknown to "
                f"`{measure['vocabulary']}`."
            )
    return [" ".join(lines)]


def _when_images_are_read(model: Classifier, choice: Choice | None) -> list[str]:
    if not model.images:
        return []
    lines = ["## Images", ""]
    if choice is None:
        return [*lines, "Every image is looked at.", ""]
    return [
        *lines,
        "An image is looked at where the words leave too much to chance, and skipped "
        f"elsewhere (`{choice.asked}`). Of the test products' images "
        f"{choice.test_images:.1%} are looked at; {choice.measure} is then "
        f"{choice.test_measure:.4f}, with all of them {choice.test_full:.4f}. `embed` "
        "looks at all.",
        "",
        f"| budget | images | {choice.measure} |",
        "|---|---|---|",
        *(
            f"| {x['budget']:.0%} | {x['images']:.1%} | {x['measure']:.4f} |"
            for x in choice.curve
        ),
        "",
    ]


def _how_to_write_rows(model: Classifier) -> list[str]:
    rows = [
        f"`{name}`: `<" + r">\t<".join(about.columns) + ">`"
        for name, about in model.modalities.items()
        if about.kind == "table"
    ]
    if not rows:
        return []
    return [
        "A table's row is one string, its cells with a tab between each two, as in "
        f"{'; '.join(rows)}. A missing cell is empty; cells past the last column are "
        "not read. Numbers may be written as shops do, with a currency or a unit.",
        "",
    ]


def _figures(run: Run, model: Classifier) -> list[str]:
    file = run.report("test") / "report.json"
    if not file.exists():
        return ["No report was made of this run."]
    report = read_json(file)
    shown = {x: report["models"][x] for x in (*model.towers, model.name)}
    measures = [key for key in MEASURES if key in shown[model.name]]
    return [
        f"{report['products']} products.",
        "",
        f"| model | {' | '.join(measures)} |",
        f"|---{'|---' * len(measures)}|",
        *(
            f"| {name} | {' | '.join(f'{figures[key]:.3f}' for key in measures)} |"
            for name, figures in shown.items()
        ),
    ]
