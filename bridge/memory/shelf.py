"""The vectors of one caller as a matrix, read fast, and what has changed since they were read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .database import Database, Row
from .rows import EMBEDDER

PAGE_BYTES = 1 << 20  # read at a time: a slow line carries it within the time limit, and no server calls it too much
ROW_BYTES = 200  # of a row beside its vector, when it comes as JSON
MAX_ID = (1 << 63) - 1

PAGE = f"""SELECT change, id, importance, timestamp,
    EXISTS (SELECT 1 FROM graph_links WHERE child_id = memory.id AND relation = 'supersedes'), embedding
    FROM memory WHERE {EMBEDDER} = ? AND caller = ? AND (change, id) > (?, ?) AND change <= ?
    ORDER BY change, id LIMIT ?"""


@dataclass(frozen=True)
class Shelf:
    """Memories of one caller that have a vector, or those that changed after a revision."""

    revision: int
    """What to ask with for the next changes."""
    whole: bool
    """Whether this is everything: what the reader had before is void."""
    ids: NDArray[np.int64]  # [n]
    matrix: NDArray[np.float32]  # [n, dim]
    importance: NDArray[np.float32]  # [n]
    timestamp: NDArray[np.float64]  # [n]
    gone: NDArray[np.int64]
    """Ids that are no longer active, to be taken out; none when `whole`."""


def read(database: Database, caller: str, after: int, embedder: str, dim: int) -> Shelf:
    """The active memories that have a vector of this embedder and changed after a revision."""
    known = database.query("SELECT revision, pruned FROM caller WHERE key = ?", (caller,))
    revision, pruned = known[0] if known else (0, 0)
    whole = not pruned <= after <= revision
    rows: list[Row] = []
    at, limit = (0 if whole else after, MAX_ID), max(1, PAGE_BYTES // (4 * dim + ROW_BYTES))
    # A memory that changes while the pages are read is left out, and comes with the next changes.
    while page := database.query(PAGE, (embedder, caller, *at, revision, limit)):
        rows += page
        at = page[-1][0], page[-1][1]
    width = 4 * dim
    shown = [row for row in rows if not row[4] and row[5] is not None and len(row[5]) == width]
    gone = [] if whole else [row[1] for row in rows if row[4]]
    return Shelf(
        revision,
        whole,
        np.array([row[1] for row in shown], np.int64),
        np.frombuffer(b"".join([row[5] for row in shown]), "<f4").reshape(-1, dim),
        np.array([row[2] for row in shown], np.float32),
        np.array([row[3] for row in shown], np.float64),
        np.array(gone, np.int64),
    )
