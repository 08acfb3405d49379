"""fsck: a full read-only check of every structure of an image, with numbered problems.

It is written independently of `deferfs.store`: it shares the codecs of `deferfs.ondisk` and nothing
else, so that a mistake in the store cannot hide itself.
"""

from deferfs.check.catalogue import CATALOGUE, Kind
from deferfs.check.checker import check_image
from deferfs.check.report import Counts, Problem, Report

__all__ = ["CATALOGUE", "Counts", "Kind", "Problem", "Report", "check_image"]
