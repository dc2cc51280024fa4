"""Handing over a running episode: checkpoints, and what another agent needs to go on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from memory_core.errors import EpisodeCompleteError, RecordNotFoundError
from memory_core.learning.prompt import handoff_prompt
from memory_core.learning.recall import Recall
from memory_core.memory.running import is_sealed
from memory_core.records import Checkpoint, Episode, ExecutionStep

if TYPE_CHECKING:
    from memory_core.memory.memory import Memory

__all__ = ["Handoff", "checkpointed", "handoff_of"]


@frozen(kw_only=True)
class Handoff:
    """What an agent needs to go on with an episode.

    Attributes:
        episode: the episode, with the steps logged so far.
        recall: what the memory knows that helps with the task.
    """

    episode: Episode
    recall: Recall

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The newest checkpoint; ``None`` without one."""
        return self.episode.checkpoints[-1] if self.episode.checkpoints else None

    @property
    def next_number(self) -> int:
        """The number of the next step."""
        return _last_number(self.episode) + 1

    @property
    def since(self) -> Sequence[ExecutionStep]:
        """The steps after the checkpoint; all of them without one."""
        number = self.checkpoint.step_number if self.checkpoint else 0
        return [step for step in self.episode.steps if step.number > number]

    def to_prompt(
        self, max_tokens: int = 1_600, *, count_tokens: Callable[[str], int] | None = None
    ) -> str:
        """The hand-over as text for a prompt, quoted and bounded as by ``Recall.to_prompt``: the task, the
        checkpoint, the last steps, and the recall. The steps since the checkpoint come first, those before
        it leave half of the room to the recall.

        Args:
            max_tokens: the most tokens, at least 300.
            count_tokens: as for ``Recall.to_prompt``.

        Raises:
            InvalidValueError: ``max_tokens`` is under 300.
        """
        return handoff_prompt(self.recall, self.episode, max_tokens, count_tokens)


async def checkpointed(
    memory: Memory, episode_id: UUID, reason: str, note: str | None
) -> Checkpoint:
    """Add a checkpoint to a running episode; see ``Memory.checkpoint``."""
    episode = await _running(memory, episode_id, "a checkpoint")
    made = Checkpoint(step_number=_last_number(episode), reason=reason, note=note)

    def add(stored: Episode) -> Episode:
        if is_sealed(stored):
            raise EpisodeCompleteError(episode_id, "a checkpoint")
        return stored.replace(checkpoints=(*stored.checkpoints, made))

    await memory.update(Episode, episode_id, add)
    return made


async def handoff_of(memory: Memory, episode_id: UUID) -> Handoff:
    """What an agent needs to go on with a running episode; see ``Memory.resume``."""
    episode = await _running(memory, episode_id, "more steps")
    recall = await memory.recall(episode.task_description)
    return Handoff(episode=episode, recall=recall)


async def _running(memory: Memory, episode_id: UUID, refused: str) -> Episode:
    episode = await memory.get_episode(episode_id)
    if episode is None:
        raise RecordNotFoundError(Episode.kind, episode_id)
    if is_sealed(episode):
        raise EpisodeCompleteError(episode_id, refused)
    return episode


def _last_number(episode: Episode) -> int:
    return episode.steps[-1].number if episode.steps else 0
