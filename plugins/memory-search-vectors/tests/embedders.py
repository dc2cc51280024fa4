"""An embedder for tests: a dimension for each word, so that texts without a common word share none."""

from collections import Counter

import numpy as np

from memory_core.search import Analyzer

DIMENSIONS = 2_048
# Of the process, so that all embedders agree.
_PLACES = {}


class WordEmbedder:
    """Counts words. It has no meaning beyond them."""

    def __init__(self, model="words", dimensions=DIMENSIONS):
        self.model = model
        self.asked = []
        self.closed = False
        self._dimensions = dimensions
        self._analyzer = Analyzer()

    async def embed(self, texts, purpose):
        self.asked.append((purpose, list(texts)))
        return [self._vector(text) for text in texts]

    async def aclose(self):
        self.closed = True

    def _vector(self, text):
        # An array: a list of as many numbers takes longer to compare than to make.
        vector = np.zeros(self._dimensions, np.float32)
        for term, count in Counter(self._analyzer.terms(text)).items():
            place = _PLACES.setdefault(term, len(_PLACES))
            vector[place % self._dimensions] += count**0.5
        return vector
