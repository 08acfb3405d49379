"""Repair: what the check finds is mended, written without the store as the check is."""

from deferfs.check.repair.foresight import foresee_repair
from deferfs.check.repair.repairer import Repaired, mark, recover_log, repair_image

__all__ = ["Repaired", "foresee_repair", "mark", "recover_log", "repair_image"]
