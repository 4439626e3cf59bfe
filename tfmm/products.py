"""What products look like: texts, paths of images and labels, kept in a run.

Reports show products by it, without the catalog's file. `RUN/catalog/products.parquet`
is of the run's own catalog, `RUN/catalog/NAME.products.parquet` of another one that was
measured as NAME.
"""

from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tfmm import outputs
from tfmm.catalog import Catalog
from tfmm.errors import RunError
from tfmm.run import Run, replacing
from tfmm.settings import SPLITS

FINGERPRINT = b"tfmm.catalog"
TEXT, IMAGE = "text.", "image."
SHOWN_LETTERS = 300  # of a text


@dataclass(frozen=True)
class Products:
    """`n` products as a person sees them.

    Attributes:
        ids: `(n,)` strings.
        split: `(n,)` strings, `""` for a product that is left out; all `test` of a
            catalog that is not the run's own.
        texts: Modality name -> `(n,)` strings as they are in the catalog, `""` where
            missing; the cells of a modality of kind `table` are joined by tabs.
        images: Modality name -> `(n,)` absolute paths, `""` where missing. The files
            need not be there any more.
        labels: For each product its labels, as indices int32.
    """

    ids: np.ndarray
    split: np.ndarray
    texts: dict[str, np.ndarray]
    images: dict[str, np.ndarray]
    labels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> "Products":
        """Some of the products, `rows` `(m,)`."""
        return replace(
            self,
            ids=self.ids[rows],
            split=self.split[rows],
            texts={name: values[rows] for name, values in self.texts.items()},
            images={name: values[rows] for name, values in self.images.items()},
            labels=tuple(self.labels[row] for row in rows),
        )

    def shown(self, row: int) -> dict[str, dict[str, str]]:
        """`texts`, cut, and `images` of a product, as reports show them.

        Modalities that it lacks are absent.
        """
        texts = {name: values[row] for name, values in self.texts.items()}
        paths = {name: values[row] for name, values in self.images.items()}
        return {
            "texts": {
                name: text if len(text) <= SHOWN_LETTERS else text[:SHOWN_LETTERS] + "…"
                for name, text in texts.items()
                if text
            },
            "images": {name: path for name, path in paths.items() if path},
        }


def write(run: Run, catalog: Catalog, name: str = "") -> None:
    """Writes the products of a catalog into the run.

    Args:
        run: Where.
        catalog: With unusable images turned into missing ones.
        name: What another catalog than the run's own is called in the run.
    """
    columns = {"id": catalog.ids, "split": catalog.split, "labels": _labels(catalog)}
    columns |= {TEXT + key: values for key, values in catalog.texts.items()}
    columns |= {IMAGE + key: values for key, values in catalog.images.items()}
    table = pa.table(
        {
            key: values
            if isinstance(values, pa.Array)
            else pa.array(values.tolist(), pa.string())
            for key, values in columns.items()
        }
    )
    mark = {FINGERPRINT: catalog.fingerprint().encode()}
    with replacing(run.products_file(name)) as partial:
        pq.write_table(table.replace_schema_metadata(mark), partial)


def _labels(catalog: Catalog) -> pa.Array:
    edges = np.cumsum([0, *map(len, catalog.label_indices)])
    flat = np.concatenate([np.zeros(0, np.int32), *catalog.label_indices])
    return pa.ListArray.from_arrays(pa.array(edges, pa.int32()), pa.array(flat))


def read(run: Run, split: str) -> Products:
    """The products of a split, in the order of its outputs.

    Args:
        run: A run.
        split: One of the run's, `train_oof`, or what another catalog is called.

    Raises:
        RunError: If they are not there, damaged, or of another catalog than the
            split's outputs.
    """
    own = split in (*SPLITS, "train_oof")
    found = _read(run, "" if own else split)
    split = {"train_oof": "train"}.get(split, split) if own else "test"
    return found.take(np.flatnonzero(found.split == split))


def _read(run: Run, name: str) -> Products:
    path = run.products_file(name)
    if name:
        expected = outputs.read_targets(run.outputs, name)[1]
    else:
        expected = run.read_info()["catalog"]["fingerprint"]
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        mark = metadata[FINGERPRINT].decode()
        columns = {key: table[key].to_numpy() for key in table.column_names}
        ids, split, labels = (columns.pop(key) for key in ("id", "split", "labels"))
    except FileNotFoundError:
        again = "measure it again" if name else "run tfmm.fit --resume --only audit"
        raise RunError(f"{path}: no such file; {again}") from None
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        message = " ".join(str(error).split())
        raise RunError(f"{path}: damaged: {message}") from None
    if mark != expected:
        raise RunError(f"{path}: stale: of another catalog; run tfmm.fit --resume")
    return Products(
        ids=ids,
        split=split,
        texts=_of_kind(columns, TEXT),
        images=_of_kind(columns, IMAGE),
        labels=tuple(labels),
    )


def _of_kind(columns: dict[str, np.ndarray], kind: str) -> dict[str, np.ndarray]:
    return {
        key.removeprefix(kind): values
        for key, values in columns.items()
        if key.startswith(kind)
    }
