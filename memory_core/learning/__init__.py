"""What helps with a task: recall, its ranking, and feedback; patterns and heuristics that are learned."""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.learning.bounds import wilson
    from memory_core.learning.calculating import (
        Calculated,
        Calculation,
        Calculator,
        is_calculated,
    )
    from memory_core.learning.config import RecallConfig
    from memory_core.learning.evaluating import Evaluation, Measure
    from memory_core.learning.extracting import (
        LEARNED,
        Counts,
        Extractor,
        Fact,
        Tally,
        episodes_of,
        is_learned,
        tally_of,
        what_was_counted,
    )
    from memory_core.learning.learner import Learning
    from memory_core.learning.recall import Recall, RecalledEpisode, RecalledRule
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "bounds": "wilson",
            "calculating": "Calculated Calculation Calculator is_calculated",
            "config": "RecallConfig",
            "evaluating": "Evaluation Measure",
            "extracting": "LEARNED Counts Extractor Fact Tally episodes_of is_learned tally_of "
            "what_was_counted",
            "learner": "Learning",
            "recall": "Recall RecalledEpisode RecalledRule",
        },
    )

__all__ = [
    "LEARNED",
    "Calculated",
    "Calculation",
    "Calculator",
    "Counts",
    "Evaluation",
    "Extractor",
    "Fact",
    "Learning",
    "Measure",
    "Recall",
    "RecallConfig",
    "RecalledEpisode",
    "RecalledRule",
    "Tally",
    "episodes_of",
    "is_calculated",
    "is_learned",
    "tally_of",
    "what_was_counted",
    "wilson",
]
