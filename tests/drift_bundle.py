"""A bundle's reference statistics and logs of it, written by hand for tests."""

import json
from pathlib import Path

import numpy as np

LABELS = ("hat", "lamp", "shoe")
STATUSES = ("used", "not an image", "too large", "corrupt", "skipped")
WORDS = ("red", "lamp", "shoe", "hat")


def write_bundle(folder: Path) -> Path:
    """`products/3` with a title and an image: what monitoring reads of a bundle."""
    bundle = folder / "products" / "3"
    extra = bundle / "assets.extra"
    (extra / "vocabularies").mkdir(parents=True)
    (bundle / "assets").mkdir()
    (bundle / "saved_model.pb").write_bytes(b"")
    (bundle / "assets" / "labels.txt").write_text("".join(f"{x}\n" for x in LABELS))
    words = "".join(f"{word}\n" for word in WORDS)
    (extra / "vocabularies" / "cnn.txt").write_text(words)
    (extra / "reference.json").write_text(json.dumps(content()))
    return bundle


def content() -> dict:
    """4,000 products of a catalog and 1,000 of its test split."""

    def measure(name, modality, of, **rest):
        return {"name": name, "modality": modality, "of": of, **rest}

    there = ["present", "missing"]
    return {
        "format": 1,
        "model": "product",
        "products": {"catalog": 4_000, "test": 1_000, "texts": 1_000},
        "images": ["image"],
        "measures": [
            measure("present", "title", "catalog", values=there, counts=[4_000, 0]),
            measure(
                *("characters", "title", "catalog"),
                edges=[5, 10, 20],
                counts=[1_000] * 4,
                mean=12.0,
            ),
            measure(
                *("unknown_words", "title", "texts"),
                vocabulary="cnn",
                edges=[0.0, 0.5],
                counts=[900, 80, 20],
                mean=0.05,
                words=2_000,
                unknown=100,
            ),
            measure("present", "image", "catalog", values=there, counts=[3_880, 120]),
            measure(
                *("bytes", "image", "catalog"),
                edges=[1_000, 2_000],
                counts=[1_300, 1_300, 1_280],
                mean=1_500.0,
            ),
            measure(
                *("status", "image", "test"),
                values=list(STATUSES),
                counts=[500, 0, 0, 0, 470],
            ),
            measure("label", None, "test", values=list(LABELS), counts=[200, 300, 500]),
            measure(
                *("score", None, "test"),
                edges=[0.5, 0.9],
                counts=[100, 300, 600],
                mean=0.85,
            ),
            measure(
                *("assigned", None, "test"),
                values=["assigned", "not assigned"],
                counts=[900, 100],
            ),
        ],
        "catalog_labels": [800, 1_200, 2_000],
        "cleaning": {
            "markup": [["<[A-Za-z/!][^<>]*>", " "]],
            "words": ["L", "M", "N"],
            "symbols": ["So"],
            "signs": ["P", "S"],
        },
        "vocabularies": {
            "cnn": {
                "modality": "title",
                "words": len(WORDS),
                "max_words": 5,
                "punctuation": True,
                "digits": False,
                "max_word_characters": 0,
                "stop_words": [],
            }
        },
    }


def products(count: int, seed: int = 0, no_image: float = 0.03) -> list[dict]:
    """Products that are spread as those of the reference."""
    random = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        score = random.choice([0.3, 0.7, 0.95], p=[0.1, 0.3, 0.6])
        words = random.choice(["red lamp", "red hut", "hut"], p=[0.9, 0.08, 0.02])
        title = {"present": True, "text": str(words)}
        title["characters"] = int(random.choice([4, 8, 15, 30]))
        image, status = {"present": False}, "missing"
        if random.random() >= no_image:
            size = int(random.choice([900, 1_500, 2_500], p=[0.335, 0.335, 0.33]))
            image = {"present": True, "bytes": size}
            status = str(random.choice(["used", "skipped"], p=[50 / 97, 47 / 97]))
        drawn.append(
            {
                "inputs": {"title": title, "image": image},
                "label": str(random.choice(LABELS, p=[0.2, 0.3, 0.5])),
                "score": float(score),
                "assigned": bool(random.random() < 0.9),
                "image_used": [status == "used"],
                "image_status": [status],
            }
        )
    return drawn


def line(some: list[dict], **changes) -> str:
    """A line of a log."""
    whole = {
        "time": "2026-11-24T21:05:09.123Z",
        "model": "products",
        "version": 3,
        "signature": "serving_default",
        "duration_s": 0.01,
        "products": some,
    }
    return json.dumps({**whole, **changes}) + "\n"


def write_log(path: Path, some: list[dict], **changes) -> Path:
    """A log with a line for each two products."""
    pairs = (some[start : start + 2] for start in range(0, len(some), 2))
    path.write_text("".join(line(pair, **changes) for pair in pairs))
    return path
