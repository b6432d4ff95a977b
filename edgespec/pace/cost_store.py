"""Cost tables kept between runs: what a target costs per width is measured once per device.

A table belongs to one model file, how it is opened and the library versions; when any of them
changes it is measured anew, and soon where the device was busy. A file that cannot be read is as
good as none.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

from edgespec.config import Config
from edgespec.device import WAITING, library_versions, processor
from edgespec.errors import EdgeSpecError, UsageError
from edgespec.files import write_whole
from edgespec.pace.cost import WIDTHS, CostTable, measure_costs
from edgespec.pace.doubt import Doubt
from edgespec.protocols import LanguageModel

log = logging.getLogger("edgespec")

SWEEP_S = 8.0  # the first answer of a large model waits this long at most, once per device
REPEATS_S = 0.25  # a small one's widths are measured several times in this
DOUBT_S = 600  # a table measured on a busy device is measured again after this


def key_of(model: Path, config: Config, *, device: str = "") -> str:
    """A file name that changes with all that a table depends on; device: where it runs."""
    status = model.stat()
    parts = (
        str(model.resolve()),
        status.st_size,
        status.st_mtime_ns,
        (config.threads, config.device, config.n_gpu_layers, config.kv_type),
        device,
        processor(),
        os.cpu_count(),
        [os.environ.get(name) for name in WAITING],
        sorted(library_versions().items()),
    )
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32] + ".json"


def measured(target: LanguageModel, file: Path, *, max_width: int = 17) -> CostTable:
    """A table measured now, within SWEEP_S, and stored in `file` if the cache had room for all."""
    table = measure_costs(target, max_width=max_width, budget_s=SWEEP_S, repeats_s=REPEATS_S)
    if table.in_doubt:
        log.info("costs were measured on a busy device: corrected in use, soon measured again")
    if len(table.seconds) >= min(len(WIDTHS), target.n_context):
        save(table, file)
    return table


def load(file: Path) -> CostTable | None:
    """The table in `file`; None if there is none, it is damaged, or long enough in doubt."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        seconds, in_doubt = tuple(float(s) for s in data["seconds"]), bool(data.get("in_doubt"))
        if in_doubt and Doubt(file.stat().st_mtime).is_due(DOUBT_S):
            return None
        return CostTable(seconds, in_doubt)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, EdgeSpecError) as error:
        log.info("cost table %s is damaged (%s): measuring again", file, error)
        return None


def save(table: CostTable, file: Path) -> None:
    """Write the table so that a reader sees the old file or the new one, never a part.

    A cache that cannot be written costs a measurement next time and nothing else.
    """
    try:
        write_whole(file, json.dumps(asdict(table)).encode(), ours=True)
    except UsageError as error:
        log.info("cost table not stored: %s", error)
