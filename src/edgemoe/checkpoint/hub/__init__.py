"""Checkpoints on the Hugging Face Hub, read piece by piece: what is packed is never on disk as a whole.

``open_hub`` fetches the configuration, the tokenizer and the headers of the weight files. Their tensors are
fetched when they are read, in pieces that follow each other, the next ones ahead. So a conversion needs room
for the store alone, and memory for a few pieces.

Tokens, mirrors (``HF_ENDPOINT``) and offline mode are those of the library huggingface_hub.
"""

from edgemoe.checkpoint.hub.folder import HubCheckpoint
from edgemoe.checkpoint.hub.names import HubName, parse_hub_name
from edgemoe.checkpoint.hub.opening import open_hub, with_file

__all__ = ["HubCheckpoint", "HubName", "open_hub", "parse_hub_name", "with_file"]
