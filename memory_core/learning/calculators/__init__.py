"""The calculators that come with the core; each is one module."""

from memory_core.learning.calculating import Calculator
from memory_core.learning.calculators.call_reflection import CallReflection
from memory_core.learning.calculators.outcome_reward import OutcomeReward
from memory_core.learning.calculators.tool_features import ToolFeatures

__all__ = ["BUILTIN_CALCULATORS", "CallReflection", "OutcomeReward", "ToolFeatures"]

BUILTIN_CALCULATORS: tuple[Calculator, ...] = (OutcomeReward(), CallReflection(), ToolFeatures())
