"""What was sent and replied over the control socket when the schema was made. Requests that come later are not in it,
and none of it may go."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deferfs.contract.statistics import SCHEMA

EXCHANGES: list[dict[str, Any]] = json.loads((Path(__file__).parent / f"control-{SCHEMA}.json").read_text())
