"""A tiny catalog and its experiment."""

import csv
from pathlib import Path

import numpy as np

WORDS = {"lamp": "bright light", "table": "oak wood", "rug": "soft wool"}
COLORS = {"lamp": (250, 220, 60), "table": (120, 70, 30), "rug": (40, 60, 200)}

EXPERIMENT = """
seed = 0
[catalog]
task = "multi_label"
splits = { train = 0.5, fusion = 0.2, validation = 0.15, test = 0.15 }
[modalities.title]
kind = "text"
columns = ["title"]
[modalities.image]
kind = "image"
columns = ["image"]
[towers.title]
model = "text_cnn"
modality = "title"
max_words = 5
kernel_sizes = [1, 2]
filters = 4
embedding_dim = 4
learning_rate = 0.05
batch_size = 8
max_epochs = 4
[towers.image]
model = "compact_cnn"
modality = "image"
image_size = 32
widths = [8, 16]
augmentation = { flip = true }
batch_size = 16
max_epochs = 1
[heads.product]
model = "product"
towers = ["title", "image"]
[heads.policy]
model = "policy_network"
towers = ["title", "image"]
inputs = "log_probabilities"
start_from = "product"
hidden_units = [5]
activations = ["tanh"]
dropout = 0.2
max_epochs = 3
[export]
head = "policy"
top_k = 2
"""

POLICY_SPACE = """
[search.policy]
learning_rate = { low = 1e-4, high = 0.1, scale = "log" }
hidden_units = [[5], [8]]
batch_size = [16, 32]
max_epochs = 3
penalty = [{}, { dropout = { low = 0.1, high = 0.5 } }, { l2 = [0.01] }]
"""


def write_catalog(folder: Path, products: int = 48) -> Path:
    """Writes catalog.csv and its images; product 3 has a bad image, 5 has none."""
    import tensorflow as tf

    (folder / "images").mkdir(parents=True)
    generator = np.random.default_rng(7)
    path = folder / "catalog.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "title", "image", "labels"])
        for number in range(products):
            kind = list(WORDS)[number % 3]
            picture = generator.integers(-20, 20, (40, 30, 3)) + COLORS[kind]
            encoded = tf.io.encode_jpeg(np.uint8(np.clip(picture, 0, 255))).numpy()
            image = f"images/{number}.jpg"
            if number == 3:
                encoded = b"this is no picture"
            if number == 5:
                image = ""
            else:
                (folder / image).write_bytes(encoded)
            title = "" if number == 7 else f"{WORDS[kind]} no {number % 4}"
            labels = kind if number % 2 else f"{kind}|new"
            writer.writerow([f"P{number}", title, image, labels])
    return path
