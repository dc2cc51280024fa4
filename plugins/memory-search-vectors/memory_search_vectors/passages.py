"""The passages of a document, each of which has a vector, and the texts that closeness is measured by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from memory_core.search import Document
from memory_search_vectors.config import VectorsConfig

__all__ = ["BACKGROUND", "digest_of", "passages_of"]

BACKGROUND = (
    "The train leaves from platform four at half past nine.",
    "Add two eggs and a cup of flour, and stir until smooth.",
    "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
    "My grandmother grew up in a small village by the sea.",
    "SELECT name, total FROM orders WHERE status = 'open'",
    "The court found that the contract had been breached.",
    "He scored twice in the second half of the match.",
    "Please reset the password of my account.",
    "The patient was given an antibiotic for the infection.",
    "Restart the server and look at the log of the proxy.",
    "Interest rates rose by a quarter of a percent in March.",
    "The band plays its new album in Berlin tonight.",
    "Photosynthesis turns light, water and carbon dioxide into sugar.",
    "I would like to return these shoes, they are too small.",
    "The function returns the sum of a list of numbers.",
    "Heavy rain is expected in the north on Thursday.",
    "The museum is closed on Mondays.",
    "She has three cats and an old dog.",
    "The meeting was moved to Friday afternoon.",
    "Galaxies move away from each other as space expands.",
    "The printer is out of paper again.",
    "The bill was passed by a narrow majority in parliament.",
    "Take the second street on the left, after the bridge.",
    "Water the plants once a week and keep them out of the sun.",
)
"""Texts about many things: a question is compared with them, too, so that in a store of three records
"closer than the mean" means something.
"""


def digest_of(text: str) -> bytes:
    """What names a text."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def passages_of(document: Document, config: VectorsConfig) -> list[str]:
    """The first passages of a document: of the heaviest text alone, then of the others together."""
    texts = sorted(document.texts, key=lambda text: -text.weight)
    if not texts:
        return []
    found: list[str] = []
    rest = "\n".join(text.text for text in texts[1:])
    for text in (texts[0].text, rest):
        for passage in _cut(text, config.passage):
            if len(found) == config.passages:
                return found
            found.append(passage)
    return found


def _cut(text: str, length: int) -> Iterator[str]:
    """Passages of about a length, which end with a line or a word."""
    start = 0
    while start < len(text):
        end = start + length
        if end < len(text):
            least = start + length // 2
            ends = max(text.rfind("\n", least, end), text.rfind(". ", least, end) + 1)
            end = ends if ends > least else max(text.rfind(" ", least, end), 0) or end
        if passage := text[start:end].strip():
            yield passage
        start = end
