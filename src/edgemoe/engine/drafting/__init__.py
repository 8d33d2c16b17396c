"""Several tokens of a text in one step: guessed, computed together, accepted as far as they are right.

``Drafting`` is a model's, ``Drafts`` an answer's, a ``Drafter`` makes the guesses; ``governor`` says how many
to try.
"""

from edgemoe.engine.drafting.drafting import DRAFTS, Drafting, build_drafting
from edgemoe.engine.drafting.drafts import DraftCounts, Drafts

__all__ = ["DRAFTS", "DraftCounts", "Drafting", "Drafts", "build_drafting"]
