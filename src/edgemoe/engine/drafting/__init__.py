"""Several tokens of a text in one step: guessed, computed together, accepted as far as they are right.

``Drafting`` is a model's, ``Drafts`` an answer's, a ``Drafter`` makes the guesses; ``governor`` says how many
to try.
"""

from edgemoe.engine.drafting.drafter import Room
from edgemoe.engine.drafting.drafting import DRAFTS, STORE, Drafting, build_drafting, check_draft
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts
from edgemoe.engine.drafting.model_drafter import DraftModel

__all__ = [
    "DRAFTS",
    "STORE",
    "DraftCounts",
    "DraftModel",
    "Drafting",
    "Drafts",
    "Room",
    "build_drafting",
    "check_draft",
]
