"""Calibration, offline: what a model does on a text, what is learnt from it (``routing``), and which bit
widths it can bear (``widths``).
"""
