"""What resident columns did, for one query and for a session."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["ResidentStats", "ResidentUse"]


@dataclass(frozen=True, slots=True)
class ResidentUse:
    """What one query had of resident columns.

    Attributes
    ----------
    hits, misses
        Columns that were there, and that were not. A miss that fitted was filled before the query.
    filled_bytes, fill_seconds
        Of the misses; seconds of the wall clock that the query waited.
    evictions
        Columns that went to make room.
    rejected
        Columns of misses that were not filled, for want of room or because of their type: the query
        reads their tables from Parquet.
    bytes
        Resident after it.
    """

    hits: int = 0
    misses: int = 0
    filled_bytes: int = 0
    fill_seconds: float = 0.0
    evictions: int = 0
    rejected: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class ResidentStats:
    """Resident columns of a session, since it began.

    Attributes
    ----------
    budget, bytes, columns
        What there may be, what there is, in how many columns.
    hits, misses, evictions, rejected, filled_bytes, fill_seconds
        Sums over all queries, as in `ResidentUse`.
    stale
        Columns thrown away because their files had changed.
    lost
        Columns that died with a memory server or an expired session.
    gb_s
        Bytes over time, in GB·s; GB is 10**9 bytes.
    """

    budget: int
    bytes: int = 0
    columns: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0
    rejected: int = 0
    filled_bytes: int = 0
    fill_seconds: float = 0.0
    stale: int = 0
    lost: int = 0
    gb_s: float = 0.0

    def after(self, use: ResidentUse, stale: int) -> ResidentStats:
        """These after one more query, for which `stale` columns were thrown away."""
        return replace(
            self,
            hits=self.hits + use.hits,
            misses=self.misses + use.misses,
            evictions=self.evictions + use.evictions,
            rejected=self.rejected + use.rejected,
            filled_bytes=self.filled_bytes + use.filled_bytes,
            fill_seconds=self.fill_seconds + use.fill_seconds,
            stale=self.stale + stale,
        )
