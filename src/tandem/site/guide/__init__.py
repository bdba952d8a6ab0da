"""The tutorial as a checklist with live state, and the story of what was done. Owns no tables."""

from tandem.site.guide.http import routes
from tandem.site.guide.model import PARTS, STEPS, TUTORIAL_SETTINGS, Finding, Standing, State, Step
from tandem.site.guide.service import Collaborators, happened, standings

__all__ = [
    "PARTS",
    "STEPS",
    "TUTORIAL_SETTINGS",
    "Collaborators",
    "Finding",
    "Standing",
    "State",
    "Step",
    "happened",
    "routes",
    "standings",
]
