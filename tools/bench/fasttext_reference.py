"""What the reference implementation of fastText reaches; its environment runs this.

    python tools/bench/fasttext_reference.py TRAIN NAME=FILE ... < options.json

trains once for each entry of `options["runs"]` (`lr`, `epoch`) with the options in
`options["shared"]`, and prints a JSON list: the seconds of training, reading the file
included, and the share of right answers in each FILE. Needs the package `fasttext`
0.9.3 and NumPy below 2, and nothing of tfmm. `fasttext_speed.py` calls it.
"""

import json
import sys
import time
from pathlib import Path

import fasttext


def main() -> None:
    """Trains and prints."""
    train, *named = sys.argv[1:]
    files = dict(argument.split("=", 1) for argument in named)
    options = json.load(sys.stdin)
    results = []
    for run in options["runs"]:
        started = time.perf_counter()
        model = fasttext.train_supervised(train, **options["shared"], **run)
        result = {**run, "seconds": time.perf_counter() - started}
        for name, path in files.items():
            lines = Path(path).read_text(encoding="utf-8").splitlines()
            pairs = [line.split(" ", 1) for line in lines]
            answers, _ = model.predict([text for _, text in pairs])
            right = [
                a[0] == label for a, (label, _) in zip(answers, pairs, strict=True)
            ]
            result[name] = sum(right) / len(right)
        results.append(result)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
