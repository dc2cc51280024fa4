"""Whatever somebody wrote, anywhere in a transcript, is stored, or its loss is listed.

Each place of each case gets a marked text in turn: as a text, as a part of a message, and in an object that
no format knows. And each field gets another name. The text is in an episode, in the list of what was skipped
or changed, or in the counts of what was left out.
"""

from __future__ import annotations

import copy
import json
import zipfile

import msgspec
import pytest

from memory_core.errors import ImportFormatError
from memory_core.importers import BUILTIN_IMPORTERS
from memory_core.importers.base import found_in, recognised
from memory_core.importers.log import Log
from memory_core.importers.source import Source
from tests.unit.importers.test_fuzz import places, seeds

MARK = "qqmarkqq, a text that somebody wrote and that must not vanish"
SHAPES = {
    "text": MARK,
    "part": {"type": "text", "text": MARK},
    "list": [{"type": "text", "text": MARK}],
    "unknown": {"type": "apples", "apples": {"pears": [MARK]}},
}
# Where nobody says anything: what something is, which one, when, how much, and how it is set up.
NOT_SAID = frozenset(
    {
        "action_id", "agent", "agent_class", "agent_type", "annotations", "api_calls", "approval_policy",
        "call_id", "completed_at", "created", "created_at", "cwd", "displayName", "dotted_order", "end_time",
        "endTimeUnixNano", "epoch", "exit_status", "extra_info", "finish_reason", "from", "function_name",
        "git_commit", "id", "implementation", "index", "is_demo", "is_error", "key", "kind", "max_errors",
        "max_steps", "message_type", "method", "model", "modelInfo", "model_provider", "model_type", "name",
        "num_trials", "object", "observation", "parent_run_id", "parentSpanId", "projectHash", "requestor",
        "request_id", "role", "run_id", "run_type", "schema_version", "scorer", "seed", "sessionId", "source",
        "spanId", "start_time", "startTimeUnixNano", "state", "status", "status_code", "step_id", "success",
        "task_id", "timestamp", "tool_call_id", "tool_use_id", "total_calls_in_response", "traceId",
        "trajectory_format", "trial", "turn_idx", "type", "uuid", "version", "wait_for_response",
        # Counts, and settings of a run.
        "config", "cost", "cost_limit", "dataset", "duration", "environment", "final_metrics",
        "instance_cost", "llm_config", "llm_metrics", "metrics", "model_stats", "model_usage", "models_usage",
        "plan", "replay_config", "results", "stats", "step_limit", "tokens", "total_token_usage", "usage",
        "user_cost", "agent_cost", "accumulated_cost", "total_cost_usd", "token_count",
        # What graders are told.
        "actions", "evaluation_criteria", "outputs", "report", "reward_info", "scores", "test_result",
        "user_scenario",
    }
)  # fmt: skip
# Objects of facts, of which not one has a known name.
FACTS = frozenset({"info", "metadata", "payload", "task"})
# What docs/importing.md says is left out, as other fields say it.
REPEATED = {
    "swe-agent": {"history", "query", "response", "diff"},
    "mini-swe-agent": {"extra", "function_call"},
    "openhands": {
        "message",
        "extras",
        "tool_call",
        "tool_call_metadata",
        "args.image_urls",
        "metadata",
    },
    "inspect-ai": {"input", "output", "error"},
    "gemini-cli": {"functionResponse"},
    "tau2-bench": {"description", "persona", "domain", "info"},
    "otel-genai": {"resource", "scope"},
}


def imported(path, importer):
    """The episodes of a file as text, and what is listed about it."""
    log = Log(path.name)
    try:
        found = [item.episode for item in found_in(importer, Source(path.name, path), log)]
    except ImportFormatError as error:
        log.skip_error(error)
        found = []
    return msgspec.json.encode(found).decode(), log


def written(path, value):
    if isinstance(value, dict):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in value.items():
                archive.writestr(name, json.dumps(content))
    else:
        path.write_text("\n".join(json.dumps(line) for line in value))
    return path


def marked(value, path, shape):
    result = copy.deepcopy(value)
    inside = result
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = shape
    return result


def is_fact(value, path):
    """Whether a place is inside of an attribute of a span that is a name."""
    inside = value
    for key in path:
        if isinstance(inside, dict) and str(inside.get("key")).endswith((".name", ".model")):
            return True
        inside = inside[key]
    return False


def span():
    """A span whose attributes say something, unlike those of the case."""
    said = [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]
    asked = {"key": "gen_ai.input.messages", "value": {"stringValue": json.dumps(said)}}
    answered = {"key": "gen_ai.completion.0.content", "value": {"stringValue": "Hello"}}
    spans = [{"traceId": "t", "spanId": "s", "attributes": [asked, answered]}]
    return {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}


CASES = {**seeds(), "span": [span()]}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_a_text_at_any_place_is_stored_or_listed(tmp_path, name, shape):
    value = CASES[name]
    first = Source("input", written(tmp_path / "input", value))
    importer = recognised(first, BUILTIN_IMPORTERS)
    exempt = NOT_SAID | REPEATED.get(importer.name, set())
    silent = []
    checked = 0
    for path in places(value):
        # The files of an archive are objects; lines, as they are not repeated, start with one.
        if len(path) < 2 or path[-1] in FACTS or not exempt.isdisjoint(map(str, path)):
            continue
        if is_fact(value, path):
            continue
        checked += 1
        file = written(tmp_path / "input", marked(value, path, SHAPES[shape]))
        stored, log = imported(file, importer)
        if MARK not in stored and not (log.lost or log.noted or log.left_out):
            silent.append(".".join(map(str, path)))
    assert checked > 3
    assert silent == []


# In these may be anything: arguments of tools, settings, and what is bookkeeping as a whole.
ANYTHING = frozenset(
    {"metadata", "kwargs", "state", "args", "inputs", "result", "model_response", "stats"}
)


def renamed(value, path):
    """The value with a field that has another name, and a marked text."""
    result = copy.deepcopy(value)
    inside = result
    for key in path[:-1]:
        inside = inside[key]
    del inside[path[-1]]
    inside["apples"] = MARK
    return result


def said(log):
    return log.lost, log.noted, dict(log.left_out)


@pytest.mark.parametrize("name", [name for name in CASES if name != "claude"])
def test_a_field_with_another_name_is_kept_noted_or_counted(tmp_path, name):
    value = CASES[name]
    importer = recognised(Source("input", written(tmp_path / "input", value)), BUILTIN_IMPORTERS)
    _, before = imported(tmp_path / "input", importer)
    silent = []
    checked = 0
    for path in places(value):
        if len(path) < 2 or isinstance(path[-1], int) or not ANYTHING.isdisjoint(path[:-1]):
            continue
        checked += 1
        stored, log = imported(written(tmp_path / "input", renamed(value, path)), importer)
        if MARK not in stored and said(log) == said(before):
            silent.append(".".join(map(str, path)))
    assert checked > 3
    assert silent == []


def test_the_message_of_a_session_with_a_field_of_another_name_is_counted(tmp_path):
    """Lines of sessions have many fields that are bookkeeping; what is counted is in their messages."""
    value = CASES["claude"]
    importer = recognised(Source("input", written(tmp_path / "input", value)), BUILTIN_IMPORTERS)
    _, before = imported(tmp_path / "input", importer)
    silent = []
    for path in places(value):
        if (
            len(path) < 3
            or path[1] != "message"
            or isinstance(path[-1], int)
            or "usage" in path[:-1]
        ):
            continue
        stored, log = imported(written(tmp_path / "input", renamed(value, path)), importer)
        if MARK not in stored and said(log) == said(before):
            silent.append(".".join(map(str, path)))
    assert silent == []


def test_names_that_nobody_knows_take_bounded_memory(tmp_path):
    entry = {"messages": [{"role": "user", "content": "Hi"}]}
    entry |= {f"apples {number}" + "x" * 1_000: "pears" for number in range(12_000)}
    path = written(tmp_path / "input", [entry])
    importer = recognised(Source("input", path), BUILTIN_IMPORTERS)
    _, log = imported(path, importer)
    assert sum(log.left_out.values()) == 12_000
    assert len(log.left_out) == 10_001
    assert max(map(len, log.left_out)) < 100


def inside_free_form(value):
    """The places of objects in which names may be anything."""
    for path in places(value):
        inside = value
        for key in path:
            inside = inside[key]
        if isinstance(inside, dict) and not ANYTHING.isdisjoint(path):
            yield path


@pytest.mark.parametrize("name", CASES)
def test_what_is_added_to_a_field_of_free_form_is_stored_or_listed(tmp_path, name):
    value = CASES[name]
    importer = recognised(Source("input", written(tmp_path / "input", value)), BUILTIN_IMPORTERS)
    _, before = imported(tmp_path / "input", importer)
    silent = []
    for path in inside_free_form(value):
        more = marked(value, (*path, "apples"), MARK)
        stored, log = imported(written(tmp_path / "input", more), importer)
        # What is around it may be listed as a whole.
        listed = said(log) != said(before) or any(
            counted.startswith((f"field {key}", f"{key} of "))
            for counted in log.left_out
            for key in path
        )
        if MARK not in stored and not listed:
            silent.append(".".join(map(str, path)))
    assert silent == []
