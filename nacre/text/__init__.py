"""Between text and token ids, without torch or transformers."""

from nacre.text.output import Detokenizer, OutputText, Released, TokenEntry
from nacre.text.vocabulary import Vocabulary

__all__ = ["Detokenizer", "OutputText", "Released", "TokenEntry", "Vocabulary"]
