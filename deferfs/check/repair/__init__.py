"""Repair of what the check finds. Like the check, it is written independently of `deferfs.store`."""

from deferfs.check.repair.foresight import foresee_repair
from deferfs.check.repair.repairer import Repaired, mark, recover_log, repair_image
from deferfs.check.repair.spares import add_spares

__all__ = ["Repaired", "add_spares", "foresee_repair", "mark", "recover_log", "repair_image"]
