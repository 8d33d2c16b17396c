"""Other people's programs that run a store: lm-evaluation-harness, transformers."""
