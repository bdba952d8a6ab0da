"""The pure rules of co-management: bits, merge, eligibility, who owns what."""

from tandem.workloads.model import (
    BASE,
    MAX_CAPABILITIES,
    MINIMUM_BUILD,
    Authority,
    Eligibility,
    Facts,
    Merged,
    Position,
    Workload,
    capabilities,
    effective,
    eligibility,
    merge,
    owner_of,
    owners,
    plan,
)

__all__ = [
    "BASE",
    "MAX_CAPABILITIES",
    "MINIMUM_BUILD",
    "Authority",
    "Eligibility",
    "Facts",
    "Merged",
    "Position",
    "Workload",
    "capabilities",
    "effective",
    "eligibility",
    "merge",
    "owner_of",
    "owners",
    "plan",
]
