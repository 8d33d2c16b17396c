"""One running session: memory plan, tokens, sampling, prefill and decode."""
