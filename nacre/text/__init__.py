"""Between text and token ids, and what a text is like, without torch or transformers."""

from nacre.text.domain import DOMAINS, domain_of
from nacre.text.output import Detokenizer, OutputText, Released, TokenEntry
from nacre.text.vocabulary import Vocabulary

__all__ = ["DOMAINS", "Detokenizer", "OutputText", "Released", "TokenEntry", "Vocabulary", "domain_of"]
