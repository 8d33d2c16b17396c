"""Several tokens of a text in one step: guessed, computed together, accepted as far as they are right.

``Drafting`` is a model's, ``Drafts`` an answer's, a ``Drafter`` makes the guesses; ``governor`` says how many
to try.
"""

from edgemoe.engine.drafting.drafter import Room
from edgemoe.engine.drafting.drafting import DRAFTS, STORE, Drafting, build_drafting, check_draft
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts
from edgemoe.engine.drafting.model_drafter import DraftModel
from edgemoe.engine.drafting.mtp_drafter import MtpModel

__all__ = [
    "DRAFTS",
    "STORE",
    "DraftCounts",
    "DraftModel",
    "Drafting",
    "Drafts",
    "MtpModel",
    "Room",
    "build_drafting",
    "check_draft",
]
