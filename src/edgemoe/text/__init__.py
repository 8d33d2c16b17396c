"""Text ↔ tokens: tokenizers, chat templates, decoding while tokens arrive, stop texts."""

from edgemoe.text.stops import StopScanner
from edgemoe.text.stream import StreamDecoder
from edgemoe.text.tokenizer import Message, Tokenizer
from edgemoe.text.trial import try_text_files

__all__ = ["Message", "StopScanner", "StreamDecoder", "Tokenizer", "try_text_files"]
