"""Repair: what the check finds is mended, written without the store as the check is."""

from deferfs.check.repair.foresight import foresee_repair
from deferfs.check.repair.repairer import Repaired, mark, recover_log, repair_image
from deferfs.check.repair.spares import add_spares

__all__ = ["Repaired", "add_spares", "foresee_repair", "mark", "recover_log", "repair_image"]
