"""Stores that lie at a URL: what is small is copied once, experts are read by range, with a local tier."""
