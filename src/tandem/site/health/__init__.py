"""The health of the site: the way in from device to site, what listens where, what it is made of.

Owns no table: it asks the modules below, and looks at what answers.
"""

from tandem.site.health.about import About
from tandem.site.health.analyzer import Analyzer
from tandem.site.health.chain import Chain
from tandem.site.health.http import Health, routes
from tandem.site.health.model import CAUSES, CHECKS, Finding, Listener, SitePlaces

__all__ = [
    "CAUSES",
    "CHECKS",
    "About",
    "Analyzer",
    "Chain",
    "Finding",
    "Health",
    "Listener",
    "SitePlaces",
    "routes",
]
