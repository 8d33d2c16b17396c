"""Calibration, offline: traces of texts, what routing is learnt from them, and bit widths by measurement."""
