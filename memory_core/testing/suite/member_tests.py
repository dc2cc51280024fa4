"""Whether a backend has what the rest of the suite calls."""

from __future__ import annotations

from memory_core.storage import missing_members
from memory_core.testing.data.kinds import kit_context
from memory_core.testing.suite.harness import Harness

__all__ = ["MemberTests"]


class MemberTests(Harness):
    """The members of ``Storage``; without them no other test says anything."""

    async def test_every_member_is_there(self, location: str) -> None:
        store = await self.open(location, context=kit_context())
        missing = missing_members(store)
        if "aclose" not in missing:
            await store.aclose()
        assert not missing, f"{type(store).__name__} lacks {', '.join(missing)}"
