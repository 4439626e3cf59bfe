"""The model card: what a bundle is, what it was made from, how good it is."""

from tfmm.classifier import Classifier
from tfmm.run import Run, read_json

MEASURES = ("top1", "top5", "micro_f1", "macro_f1", "map", "ece")


def model_card(run: Run, model: Classifier, name: str) -> str:
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
        "`assets/labels.txt`.",
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
