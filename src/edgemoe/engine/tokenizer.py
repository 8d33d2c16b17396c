"""The text package under its earlier name, for programs that import the tokenizer from here."""

from edgemoe.text import Message, StreamDecoder, Tokenizer

__all__ = ["Message", "StreamDecoder", "Tokenizer"]
