"""Cells of a table as graph functions, shared by training and export.

A row of a modality of kind `table` is one string: its cells in the order of the
modality's columns, with a tab between each two.
"""

import tensorflow as tf

from tfmm import text
from tfmm.catalog import CELL_SEPARATOR

LARGEST_NUMBER = 1e15  # past it float64 tells whole numbers no longer apart

# One number and what may stand around it: words, a currency, a unit, but no second
# number. A sign counts unless a letter is right before it, as in A-12. `Rs.` and the
# like lose their full stop first.
_SHORT_FORM = r"(\p{L})\."
_AROUND = (
    r"^(?:(?:[^\d+\-]*[^\d+\-.,\p{L}])?([+\-])|(?:[^\d+\-]*[^\d+\-.,])?)"
    r"[ \p{Sc}]*((?:\d|[.,]\d)(?:[\d.,'’ ]*\d)?(?:[eE][+\-]?\d{1,3})?)\D*$"
)
# Ways to write thousands, and the marks that go.
_THOUSANDS = (
    (r"[+\-]?\d{1,3}(?:['’ ]\d{3})+(?:[.,]\d+)?", r"['’ ]"),  # 1 299,50
    (r"[+\-]?[1-9]\d{0,2}(?:,\d{2,3})*,\d{3}(?:\.\d+)?", ","),  # 1,299.50  1,29,900
    (r"[+\-]?[1-9]\d{0,2}(?:\.\d{3})+,\d+", r"\."),  # 1.299,50
    (r"[+\-]?[1-9]\d{0,2}(?:\.\d{3}){2,}", r"\."),  # 1.299.000
)
_DECIMAL_COMMA = r"^([+\-]?\d*),(\d+)$"
_NUMBER = r"[+\-]?(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+\-]?\d{1,3})?"


def split(rows: tf.Tensor, num_cells: int) -> tf.Tensor:
    """The cells of each row.

    Args:
        rows: string `(batch,)`.
        num_cells: Columns of the modality, or of its beginning.

    Returns:
        string `(batch, num_cells)`, `""` where a row has fewer; more are left out.

    Example:
    >>> split(tf.constant(["IKEA\\t12.5\\tred", "IKEA"]), 2).numpy().tolist()
    [[b'IKEA', b'12.5'], [b'IKEA', b'']]
    """
    found = tf.strings.split(rows, sep=CELL_SEPARATOR)
    return found.to_tensor(default_value="", shape=(None, num_cells))


def present(values: tf.Tensor, num_cells: int) -> tf.Tensor:
    """Which products have a text, or a row with anything in it.

    Args:
        values: string `(batch,)`.
        num_cells: Cells of a row; 0 if the values are texts.

    Returns:
        bool `(batch,)`: whether `tfmm.text.clean` leaves anything of the text, or of
        any cell.
    """
    if not num_cells:
        return text.present(values)
    return tf.reduce_any(text.present(split(values, num_cells)), axis=1)


def numbers(cells: tf.Tensor) -> tf.Tensor:
    """The number that each cell holds.

    Read are Python's own ways to write one (`-12.5`, `1e-05`) and those of shops: a
    currency, a unit or other words around it (`12,50 €`, `$-3`, `99 %`, `12.-`);
    spaces, apostrophes, commas or points between thousands (`1 299,00`, `1,299.50`,
    `1.299,50`, `1,29,900`). One point is a decimal mark, `1.299` too. One comma is a
    decimal mark unless exactly three digits follow and one to three, no zero at
    their head, precede it: `1,299` is 1299, `0,125` is 0.125.

    Cells with two numbers (`10-20`, `3 x 4`), without any, or with one past
    `LARGEST_NUMBER` hold none.

    Args:
        cells: string tensor of any shape.

    Returns:
        float64 tensor of the same shape, NaN where there is no number.

    Example:
    >>> numbers(tf.constant(["12,50 EUR", "$1,299", "10-20"])).numpy().tolist()
    [12.5, 1299.0, nan]
    """
    cells = tf.strings.unicode_transcode(cells, "UTF-8", "UTF-8", errors="replace")
    cells = tf.strings.regex_replace(cells, r"[\s\p{Z}]+", " ")
    cells = tf.strings.regex_replace(cells, "\u2212", "-")
    cells = tf.strings.strip(tf.strings.regex_replace(cells, _SHORT_FORM, r"\1 "))
    cells = tf.strings.regex_replace(cells, _AROUND, r"\1\2")
    for form, marks in _THOUSANDS:
        plain = tf.strings.regex_replace(cells, marks, "")
        cells = tf.where(tf.strings.regex_full_match(cells, form), plain, cells)
    cells = tf.strings.regex_replace(cells, _DECIMAL_COMMA, r"\1.\2")
    is_number = tf.strings.regex_full_match(cells, _NUMBER)
    values = tf.strings.to_number(tf.where(is_number, cells, "0"), tf.float64)
    is_number &= tf.abs(values) <= LARGEST_NUMBER
    return tf.where(is_number, values, tf.constant(float("nan"), tf.float64))
