"""Sessions of Gemini CLI, put together from the records that it appends to a file.

A record is the session's facts, a message (again, as it goes on: the last one counts), ``$set`` with facts
that changed or with the history that the model is sent from then on, or ``$rewindTo`` with the id of the
first message that the user took back. Older versions wrote one object with all messages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from attrs import Factory, define

from memory_core.importers.draft import EpisodeDraft, stable_id
from memory_core.importers.fields import Fields, json_of, mapping, objects, sequence
from memory_core.importers.unknown import count_unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from memory_core.importers.log import Log
    from memory_core.importers.source import Source

__all__ = ["Message", "Session", "draft_of", "sessions"]

_FACTS = {
    "sessionId", "projectHash", "startTime", "lastUpdated", "summary", "memoryScratchpad", "directories",
    "kind", "messages",
}  # fmt: skip


@define
class Message:
    """A message, and whether the user went back from it."""

    fields: Fields
    abandoned: bool = False


@define
class Session:
    """A session as its records tell it, with everything that was ever said in it."""

    log: Log
    place: str
    facts: dict[str, Any] = Factory(dict[str, Any])
    messages: list[Message] = Factory(list[Message])
    records: int = 0
    _current: dict[str, Message] = Factory(dict[str, Message])

    def add(self, record: Fields) -> None:
        """Take over a record."""
        self.records += 1
        if "$rewindTo" in record:
            self._rewind(record.text("$rewindTo") or "")
        elif "$set" in record:
            facts = record.object("$set")
            self._update(facts)
            if "messages" in facts:
                self._set_history(facts)
        elif "id" in record and "sessionId" not in record:
            self._say(record, again=True)
        else:
            self._update(record)
            for message in objects(
                sequence(record.get("messages")), self.log, record.place, "messages"
            ):
                self._say(message)

    def _update(self, facts: Fields) -> None:
        if not facts:
            self.log.skip(facts.place, "is no record of Gemini CLI")
        facts.leave_out_others(*_FACTS)
        self.facts |= {name: value for name, value in facts.value.items() if name != "messages"}
        if "messages" in facts and not isinstance(facts.get("messages"), list):
            self.log.skip(facts.place, "messages: expected a list")

    def _say(self, fields: Fields, *, again: bool = False) -> None:
        count_unknown(fields.value, self.log)
        name = fields.text("id")
        known = self._current.get(name) if name and again else None
        if known is not None:
            known.fields = Fields(fields.value, self.log, known.fields.place)
            return
        message = Message(fields)
        self.messages.append(message)
        name = name if name and name not in self._current else f"message {len(self.messages)}"
        self._current[name] = message

    def _rewind(self, name: str) -> None:
        names = list(self._current)
        # As Gemini CLI does it: without that message, all are taken back.
        first = names.index(name) if name in self._current else 0
        for taken in names[first:]:
            self._current.pop(taken).abandoned = True

    def _set_history(self, facts: Fields) -> None:
        """What the model is sent may be shortened: what was said before stays as it was."""
        before = self._current
        self._current = {}
        for message in facts.objects("messages"):
            name = message.text("id") or ""
            if name in before:
                self._current[name] = before[name]
                if message.get("content") != before[name].fields.get("content"):
                    self.log.left_out["contents changed for the model"] += 1
            elif _only_responds(message):
                # The calls have their results.
                self.log.left_out["responses said again for the model"] += 1
            else:
                self._say(message)


def _only_responds(message: Fields) -> bool:
    parts = sequence(message.get("content"))
    return bool(parts) and all("functionResponse" in mapping(part) for part in parts)


def sessions(records: Iterable[tuple[str, Any]], log: Log) -> Iterator[Session]:
    """The sessions of a file: a record with another ``sessionId`` and no ``$set`` begins the next one."""
    session: Session | None = None
    for place, value in records:
        if not isinstance(value, dict):
            log.skip(place, f"is not an object but {type(value).__name__}")
            continue
        record = Fields(cast("object", value), log, place)
        name = record.get("sessionId")
        if session is None or (name is not None and name != session.facts.get("sessionId")):
            if session is not None:
                yield session
            session = Session(log, place)
        session.add(record)
    if session is not None:
        yield session


def draft_of(session: Session, source: Source) -> EpisodeDraft:
    """The draft of a session, without its messages."""
    chat = Fields(session.facts, session.log, session.place)
    name = chat.text("sessionId") or source.stem
    abandoned = sum(message.abandoned for message in session.messages)
    draft = EpisodeDraft(
        source="gemini-cli",
        key=(name,),
        log=session.log,
        place=session.place,
        unnamed="A Gemini CLI session",
        domain="software-engineering",
        start=chat.time("startTime"),
        end=chat.time("lastUpdated"),
        by_line=session.records > 1,
        metadata={
            "session_id": name,
            "project": chat.text("projectHash"),
            "title": chat.text("summary"),
            "abandoned_messages": abandoned or None,
        },
    )
    for field in ("directories", "memoryScratchpad"):
        if field in chat:
            draft.metadata[field] = json_of(chat.get(field))
    if chat.text("kind") == "subagent":
        draft.tags.append("subagent")
        if source.path.parent.parent.name == "chats":
            # Their files are in a folder that is named after the session.
            draft.parent = stable_id("gemini-cli", source.path.parent.name)
    return draft
