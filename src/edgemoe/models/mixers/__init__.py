"""Token mixers: what a layer does before its feed-forward part, and the only part that sees other tokens.

A mixer has two halves. Its spec (a frozen dataclass, ``MixerSpec`` in ``models/mixer_spec.py``) answers for
its tensors, its state and its working memory before anything is loaded, and builds the mixer. The mixer
itself computes, see ``TokenMixer``. A new one is a file here with both, and its compiled class; families name
its spec, and nothing else does.
"""
