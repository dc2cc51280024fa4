"""What transcripts of software engineering agents share: commands, issues, patches."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from memory_core.importers.content import arguments_of, text_of
from memory_core.importers.draft import EPOCH
from memory_core.importers.fields import Fields
from memory_core.importers.language import patched_files
from memory_core.records import Outcome

if TYPE_CHECKING:
    from memory_core.importers.draft import Draft, EpisodeDraft
    from memory_core.importers.log import Log

__all__ = [
    "SHELL",
    "TAGGED_OUTPUT",
    "elapse",
    "issue_in",
    "note_patch",
    "outcome_of_submission",
    "set_command_output",
    "set_observation",
    "set_tagged_output",
    "tool_of_command",
]

SHELL = "bash"
_LONGEST_MS = 1e12
_ISSUES = (
    re.compile(r"ISSUE:\s*\n(.*?)\n\s*INSTRUCTIONS:", re.DOTALL),
    re.compile(r"<(pr_description|issue|problem_statement)>\s*(.*?)\s*</\1>", re.DOTALL),
)
_COMMAND = re.compile(r"\s*([A-Za-z_][\w-]{0,63})(?=\s|$)")
# SWE-agent's own commands; the shell gets everything else.
_NAMED = frozenset(
    {
        "open", "goto", "scroll_up", "scroll_down", "create", "edit", "insert", "append", "submit",
        "search_dir", "search_file", "find_file", "str_replace_editor", "filemap", "view_image",
        "exit_forfeit", "exit_context", "exit_cost", "skip", "undo_edit", "review_on_submit",
    }
)  # fmt: skip
_TIMED_OUT = re.compile(r"EXECUTION TIMED OUT|was cancelled because it took more than")
_EXIT_CODE = re.compile(
    r"(?:(?:Chunk ID|Wall time|Command|Session ID|Original token count):?[^\n]*\n)*"
    r"(?:Exit code:|Process exited with code) (-?\d{1,9})\b"
)
_COMMAND_TIMED_OUT = re.compile(
    r"(?:Error: )?(?:command timed out|execution timed out)", re.IGNORECASE
)
TAGGED_OUTPUT = re.compile(r"\s*<returncode>(-?\d{1,9})</returncode>\s*(.*)", re.DOTALL)
_OUTPUT_TAGS = re.compile(r"<output>\n?(.*?)\n?</output>\s*", re.DOTALL)
_KILLED = re.compile(r"\s*The last command .*? timed out", re.DOTALL)
_FAILED = (
    re.compile(
        r"Traceback \(most recent call last\)[\s\S]*^[\w.]*(?:Error|Exception)\b", re.MULTILINE
    ),
    re.compile(r"^(?:/bin/)?(?:ba)?sh: .*(?:not found|No such file|syntax error)", re.MULTILINE),
    re.compile(r"introduced new syntax error|contained syntax errors and was NOT executed"),
)


def issue_in(prompt: str | None) -> str | None:
    """The issue in a prompt, without the instructions around it."""
    for pattern in _ISSUES:
        match = pattern.search(prompt or "")
        if match and match[match.re.groups].strip():
            return match[match.re.groups].strip()
    return prompt


def tool_of_command(command: str) -> str:
    """The tool that a command line uses: one of SWE-agent's own by its name, else the shell."""
    match = _COMMAND.match(command)
    if match and (match[1] in _NAMED or _is_named(match[1])):
        return match[1]
    return SHELL


def _is_named(word: str) -> bool:
    # Programs rarely have names like find_file; tools of SWE-agent's bundles do.
    return "_" in word.strip("_") and word.islower()


def set_observation(step: Draft, text: str) -> None:
    """Give a command its result, judged by what it printed."""
    if _TIMED_OUT.search(text):
        step.timed_out()
        step.metadata["observation"] = text
    elif any(pattern.search(text) for pattern in _FAILED):
        step.failed(text)
    else:
        step.succeeded(text)


def set_command_output(step: Draft, output: object, log: Log, place: str) -> None:
    """Give a command its result, with the exit code that stands in or around its output.

    Args:
        step: the command.
        output: text, perhaps of JSON with ``output`` and ``metadata.exit_code``, or with a heading that names
            the exit code; or an object with ``content`` and ``success``.
        log: gets notes.
        place: where it is in the file.
    """
    given = Fields(arguments_of(output, "text"), log, place)
    text = text_of(given.get("output", "content", "text", "body"), log, place)
    if not text and not any(name in given for name in ("output", "content", "text", "body")):
        text = text_of(output, log, place)
    code = given.integer("metadata.exit_code", "exit_code")
    heading = _EXIT_CODE.match(text) if code is None else None
    if heading is not None:
        code = int(heading[1])
    if code is not None:
        step.metadata["exit_code"] = str(code)
    printed = text if heading is None else text.partition("\nOutput:\n")[2]
    if _COMMAND_TIMED_OUT.match(printed):
        step.timed_out(text)
    elif code or given.get("success") is False:
        step.failed(text)
    else:
        step.succeeded(text)


def set_tagged_output(step: Draft, text: str, code: int | None) -> None:
    """Give a command its result: what it printed, without the tags around that."""
    printed = TAGGED_OUTPUT.match(text)
    if printed is not None:
        code = int(printed[1])
        text = _OUTPUT_TAGS.sub(lambda match: match[1], printed[2])
    if code is not None:
        step.metadata["exit_code"] = str(code)
    if _KILLED.match(text):
        step.timed_out(text)
    elif code:
        step.failed(text)
    else:
        step.succeeded(text)


def elapse(draft: EpisodeDraft) -> None:
    """Give steps times where only their durations are known: they start at the epoch."""
    draft.timing = "durations"
    time = EPOCH
    for step in draft.steps:
        step.timestamp = time
        if not 0 <= step.latency_ms < _LONGEST_MS:
            draft.log.note(step.where, f"execution_time is out of range: {step.latency_ms / 1000}")
            step.latency_ms = 0.0
        time += timedelta(milliseconds=step.latency_ms)
    draft.end = time


def note_patch(draft: EpisodeDraft, name: str, patch: object) -> None:
    """Note a patch that is in no step: an outcome has the names of its files only."""
    text = text_of(patch, draft.log, draft.place).strip()
    results = (step.result for step in draft.steps[-3:])
    shown = (str(found.output or found.message) for found in results if found is not None)
    said = (str(step.parameters.get("content")) for step in draft.steps[-3:])
    if text and not any(text in part for part in (*shown, *said)):
        draft.log.note(draft.place, f"{name} left out: {len(text)} characters")


def outcome_of_submission(status: str | None, patch: object) -> Outcome | None:
    """How a run ended, by its exit status and the patch it left.

    A patch submitted is a success, though nobody has evaluated it; one that was submitted on exit is a
    partial success; without a patch it is a failure; a forfeit is an abstention.
    """
    if status is None:
        return None
    if "forfeit" in status:
        return Outcome.abstained(f"The agent gave up ({status}).")
    if not status.lower().startswith("submitted"):
        return Outcome.failure(f"The run ended without a submission ({status}).")
    if not isinstance(patch, str) or not patch.strip():
        return Outcome.failure(f"The submission is empty ({status}).")
    files = patched_files(patch)
    changed = f"{len(files)} file{'' if len(files) == 1 else 's'} changed"
    if status.lower() != "submitted":
        return Outcome.partial_success(f"Submitted on exit, {changed}; {status}.", completed=files)
    return Outcome.success(f"Submitted, {changed}; not evaluated.", artifacts=files)
