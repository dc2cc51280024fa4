"""What helps with a task: recall, its ranking, and feedback."""

from typing import TYPE_CHECKING

from memory_core.lazy import lazily as _lazily

if TYPE_CHECKING:
    from memory_core.learning.bounds import wilson
    from memory_core.learning.config import RecallConfig
    from memory_core.learning.evaluating import Evaluation, Measure
    from memory_core.learning.recall import Recall, RecalledEpisode, RecalledRule
else:
    __getattr__, __dir__ = _lazily(
        __name__,
        {
            "bounds": "wilson",
            "config": "RecallConfig",
            "evaluating": "Evaluation Measure",
            "recall": "Recall RecalledEpisode RecalledRule",
        },
    )

__all__ = [
    "Evaluation",
    "Measure",
    "Recall",
    "RecallConfig",
    "RecalledEpisode",
    "RecalledRule",
    "wilson",
]
