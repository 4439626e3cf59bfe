"""Made-up numbers of reports, and how their pages are read by tests."""

import re
import subprocess
from html.parser import HTMLParser

import numpy as np

from tfmm import metrics
from tfmm.report.coverage import Sureness
from tfmm.report.numbers import Catalogued, Said, measure
from tfmm.report.page import draw

PRODUCTS, LABELS = 12, 3
TARGETS = np.arange(PRODUCTS) % LABELS
TOWERS = ("title", "image")
EVIL = "<script>alert(1)</script>"


def said(kind, seed, top1, task="single_label", towers=TOWERS, **more):
    """What a model says: noise, so much of it right on validation."""
    generator = np.random.default_rng(seed)
    probabilities = metrics.probabilities(
        task, generator.normal(size=(PRODUCTS, LABELS))
    )
    return Said(
        kind,
        f"{kind}_builder",
        towers,
        probabilities,
        metrics.assigned(task, probabilities, np.full(LABELS, 0.5)),
        np.ones(PRODUCTS, bool),
        validation={"top1": top1, "micro_f1": top1, "loss": 1.0},
        **more,
    )


def models(task="single_label", **more):
    """Two towers and two heads, of which `policy` is the best."""
    return {
        "title": said("tower", 0, 0.6, task, ("title",)),
        "image": said("tower", 1, 0.5, task, ("image",)),
        "product": said("head", 2, 0.7, task, fit_on=("fusion",)),
        "policy": said("head", 3, 0.8, task, **more),
    }


def cases(task="single_label"):
    """What a head says with each modality hidden; goes into `said`."""
    half = np.tile([[0.6, 0.3, 0.1]], (PRODUCTS, 1))
    given = metrics.assigned(task, half, np.full(LABELS, 0.5))
    hidden = {"without_image": (half, given), "without_title": (half, given)}
    has = dict.fromkeys(TOWERS, np.ones(PRODUCTS, bool))
    return {"cases": hidden, "image_case": "without_image", "has": has}


def numbers_of(models, task="single_label", split="test", names=("lamp", "rug", "bed")):
    """The content of `report.json` of what models say."""
    targets = TARGETS
    if task == "multi_label":
        targets = metrics.one_hot(TARGETS, LABELS).astype(np.float32)
    about = Catalogued(split, task, names, " > ", [30, 20, 10], {"train": 60})
    return measure(about, targets, np.arange(PRODUCTS), 0, models)


def page_of(numbers, folder):
    """The page's HTML."""
    folder.mkdir(exist_ok=True)
    draw(numbers, folder)
    return (folder / "index.html").read_text(encoding="utf-8")


def sureness(products=100, right=1.0):
    """How sure a model was on validation, and that it was right, the surest first."""
    certainty = np.linspace(1.0, 0.1, products)
    good = (np.arange(products) < right * products).astype(int)
    one = np.ones(products, int)
    rows = np.arange(products)
    return Sureness(certainty, good, one, one, certainty, 1 - good, rows, 2)


def misfiled(text="a red shoe", files=()):
    """The part of a report on misfiled listings, with one product."""
    return {
        "products": 2000,
        "left": 0,
        "judges": [{"split": "test", "judge": "policy", "products": 2000, "listed": 9}],
        "listed": 9,
        "confident": 4,
        "wrong_rate": 0.02,
        "pairs": [["lamp", "rug", 3]],
        "first": [
            {
                "id": "P1",
                "split": "test",
                "judge": "policy",
                "surprise": 7.25,
                "confident": True,
                "given": ["lamp"],
                "likely": ["rug"],
                "wrong": [{"label": "lamp", "probability": 0.001}],
                "missing": [{"label": "rug", "probability": 0.97}],
                "texts": {"title": text},
                "images": dict(files),
            }
        ],
    }


def exhibits(numbers, picture="", text="a red shoe", galleries=2, products=12, cells=4):
    """Numbers with galleries, reasons, maps, attention and features made up."""
    models = numbers["models"]
    towers = [name for name, model in models.items() if model["kind"] == "tower"]
    heads = [name for name, model in models.items() if model["kind"] == "head"]
    image = towers[-1]
    generator = np.random.default_rng(0)
    shown = {}
    for row in range(galleries * products):
        grid = generator.random((cells, cells)).round(3)
        label = row % numbers["labels"]
        other = (label + 1) % numbers["labels"]
        shown[str(row)] = {
            "id": f"P{row}",
            "texts": {"title": text},
            "images": {"image": picture} if picture else {},
            "labels": [label],
            "said": {name: [[other, 0.625], [label, 0.25]] for name in models},
            "reasons": {
                name: {"label": other, "of": dict.fromkeys(towers, -0.5)}
                for name in heads
            },
            "maps": {
                image: {
                    "kind": "grad_cam",
                    "label": other,
                    "grid": grid.tolist(),
                    "strongest": [[3, 1], [0, 2]],
                    "border": 0.4,
                }
            },
        }
    names = numbers["label_names"]
    for place, name in enumerate(heads):
        of = dict(zip(towers, (0.3, 0.1), strict=False))
        models[name]["reasons"] = {
            "kind": "leave_one_tower_out",
            "products": 50,
            "of": of,
        }
        if place == 0:
            models[name]["reasons"] |= {
                "kind": "shap",
                "together": 0.4,
                "leave_one_tower_out": dict(zip(towers, (0.2, 0.05), strict=False)),
            }
    models[image]["attention"] = {
        "border": 0.41,
        "expected": 0.75,
        "products": 9,
        "mean": generator.random((cells, cells)).tolist(),
    }
    kinds = ("all_right", "only_this", "others_only", "none")
    features = {
        "x": generator.normal(size=20).tolist(),
        "y": generator.normal(size=20).tolist(),
        "group": [kinds[x % 4] for x in range(20)],
        "rows": list(range(20)),
        "perplexity": 5,
    }
    return numbers | {
        "modalities": {"title": "text", "image": "image"},
        "galleries": [
            {
                "kind": "worst_label",
                "title": f"Missed: {names[place % len(names)]} {place}",
                "about": "Products that no model finds.",
                "models": heads[:1],
                "products": 345,
                "rows": list(range(place * products, (place + 1) * products)),
            }
            for place in range(galleries)
        ],
        "shown": shown,
        "tsne": dict.fromkeys(towers, features),
    }


class Tables(HTMLParser):
    """The tables of a page: `aria-label` -> rows of texts, the headings first."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.rows, self.cell, self.words = {}, None, False, []
        self.attributes = set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes |= set(dict(attrs))
        if tag == "table":
            self.rows = self.tables[dict(attrs).get("aria-label")] = []
        elif tag == "tr" and self.rows is not None:
            self.rows.append([])
        elif tag in ("td", "th"):
            self.cell, self.words = True, []
        elif tag == "br" and self.cell:
            self.words.append(" ")

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            text = "".join(self.words).replace("\u00a0", " ")
            self.rows[-1].append(" ".join(text.split()))
            self.cell = False
        elif tag == "table":
            self.rows = None

    def handle_data(self, data):
        if self.cell:
            self.words.append(data)


def tables(html):
    """`aria-label` -> rows of texts, the headings first."""
    return Tables(html).tables


def attributes(html):
    """The names of all attributes of all elements."""
    return Tables(html).attributes


def text(html):
    """What a reader reads, with one space between words."""
    for tag in ("style", "script"):
        html = re.sub(f"<{tag}>.*?</{tag}>", " ", html, flags=re.DOTALL)
    plain = re.sub("<[^>]*>", " ", html.replace("\u00a0", " "))
    return " ".join(plain.split())


def scrolls_sideways(html, folder, width):
    """Pixels by which a page is wider than a screen of `width`, in Chromium."""
    ask = "root.scrollWidth - root.clientWidth"
    ask = f"<script>root = document.documentElement; document.title = {ask}</script>"
    # The page lets no script but its own run.
    html = html.replace("Content-Security-Policy", "") + ask
    (folder / "page.html").write_text(html, encoding="utf-8")
    # In a frame, since Chromium makes no window under 500 pixels.
    frame = f'<iframe src="page.html" width="{width}" height="900" frameborder="0">'
    read = "document.title = document.querySelector('iframe').contentDocument.title"
    frame += f"</iframe><script>onload = () => {{ {read} }}</script>"
    (folder / "frame.html").write_text(frame, encoding="utf-8")
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu"),
            *("--allow-file-access-from-files", "--dump-dom", "--window-size=1400,900"),
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
    )
    return int(re.search(r"<title>(-?\d+)</title>", done.stdout)[1])
