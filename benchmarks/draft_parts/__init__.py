"""The parts of draft.py: texts, models that follow them, and guesses that are right as often as told."""
