"""What is wrong with a catalog, before any training; and what a run keeps of it.

checks.py     stops at what makes a catalog unusable; every image is opened once
pictures.py   that one look at every image
twins.py      which products share a picture or a text
findings.py   what a finding is
images.py     texts.py, labels.py, shared.py: what finds them
examine.py    all findings as files and a page (page.py); hard limits
keep.py       labels, splits, targets, sizes and samples that a run keeps
"""

from tfmm.audit.checks import Inspection, audit, check_inputs, inspect
from tfmm.audit.examine import examine
from tfmm.audit.keep import (
    Sizes,
    read_bad_images,
    read_sizes,
    write,
    write_left_out,
    write_targets,
)

__all__ = [
    "Inspection",
    "Sizes",
    "audit",
    "check_inputs",
    "examine",
    "inspect",
    "read_bad_images",
    "read_sizes",
    "write",
    "write_left_out",
    "write_targets",
]
