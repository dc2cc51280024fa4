from __future__ import annotations

import pytest

from memory_core import open_memory
from memory_core.cli.imports import import_file
from memory_core.importers import OpenAIBatchImporter
from memory_core.importers.base import found_in
from memory_core.importers.log import Log
from memory_core.importers.source import opened
from memory_core.records import OutcomeStatus
from tests.unit.importers.transcripts import CASES, case, read, shape, write_lines

REQUESTS, ANSWERS = CASES / "openai_batch_input.jsonl", CASES / "openai_batch_output.jsonl"


def request(**body):
    return {"custom_id": "r1", "method": "POST", "url": "/v1/x", "body": {"model": "m", **body}}


def answer(body=None, code=200, error=None):
    response = None if body is None else {"status_code": code, "request_id": "x", "body": body}
    return {"id": "b1", "custom_id": "r1", "response": response, "error": error}


def said(text):
    content = [{"type": "output_text", "text": text}]
    return {"type": "message", "role": "assistant", "content": content}


async def stored(*paths):
    async with open_memory("inmemory:") as memory:
        for path in paths:
            await import_file(memory, path, OpenAIBatchImporter())
        return [episode async for episode in memory.iter_episodes()]


def test_a_request_and_an_answer_have_one_id():
    form, request = case("openai_batch_input.jsonl")
    assert form == "openai-batch"
    assert shape(request) == [("message", "user", None)]
    other, answered = case("openai_batch_output.jsonl")
    assert other == form
    assert shape(answered) == [("message", "assistant", None)]
    assert answered.steps[0].tokens_used == 3
    assert answered.id == request.id


@pytest.mark.parametrize(
    "order", [(REQUESTS, ANSWERS), (ANSWERS, REQUESTS), (REQUESTS, ANSWERS, ANSWERS, REQUESTS)]
)
async def test_both_halves_become_one_episode_in_any_order(order):
    (episode,) = await stored(*order)
    assert shape(episode) == [("message", "user", None), ("message", "assistant", None)]
    assert [step.number for step in episode.steps] == [1, 2]
    assert episode.task_description == "Hi"
    assert episode.steps[1].tokens_used == 3
    assert episode.start_time.timestamp() == 1_772_000_000
    assert all(step.timestamp >= episode.start_time for step in episode.steps)
    assert episode.metadata == {
        "source": "openai-batch",
        "custom_id": "r1",
        "half": "whole",
        "requested": "1",
        "url": "/v1/chat/completions",
        "model": "gpt-4o",
        "batch_request_id": "batch_req_1",
        "status_code": "200",
        "timing": "start",
    }


async def test_another_answer_replaces_the_first(tmp_path):
    message = {"role": "assistant", "content": "Hello"}
    again = write_lines(tmp_path / "a.jsonl", [answer({"choices": [{"message": message}]})])
    (episode,) = await stored(REQUESTS, ANSWERS, again)
    assert [step.parameters["content"] for step in episode.steps] == ["Hi", "Hello"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"messages": [{"role": "user", "content": "a"}]}, ["a"]),
        ({"input": "a", "instructions": "S"}, ["a"]),
        ({"input": ["a", "b"]}, ["a\nb"]),
        ({"prompt": "a"}, ["a"]),
        ({"input": [{"role": "user", "content": "a"}]}, ["a"]),
    ],
)
def test_requests_of_every_endpoint(tmp_path, body, said):
    form, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [request(**body)]))
    assert form == "openai-batch"
    assert [s.parameters["content"] for s in episode.steps if s.action == "user"] == said


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"choices": [{"text": "a"}]}, "a"),
        ({"output": [{"type": "message", "role": "assistant", "content": "a"}]}, "a"),
    ],
)
def test_answers_of_every_endpoint(tmp_path, body, said):
    _, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [answer(body)]))
    assert [step.parameters["content"] for step in episode.steps] == [said]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (answer(error={"code": "batch_expired", "message": "Too late"}), "Too late"),
        (answer({"error": {"message": "No such model"}}, code=404), "No such model"),
        (answer({}, code=500), "The request was answered with status 500."),
    ],
)
def test_a_request_that_failed_is_a_failure(tmp_path, line, reason):
    _, (episode,), _ = read(write_lines(tmp_path / "a.jsonl", [line]))
    assert episode.outcome.status is OutcomeStatus.FAILURE
    assert episode.outcome.reason == reason


async def test_the_failure_of_an_answer_is_that_of_the_whole(tmp_path):
    failed = write_lines(tmp_path / "a.jsonl", [answer({"error": {"message": "No"}}, code=400)])
    (episode,) = await stored(failed, REQUESTS)
    assert episode.outcome.reason == "No"
    assert episode.metadata["status_code"] == "400"


def test_an_answer_that_says_nothing_is_listed(tmp_path):
    log = Log("a")
    lines = [answer({"data": [{"embedding": [0.5]}]}), {**answer({}), "custom_id": None}]
    with opened(write_lines(tmp_path / "a.jsonl", lines)) as source:
        assert list(found_in(OpenAIBatchImporter(), source, log)) == []
    assert [error.reason for error in log.skipped] == [
        "expected messages, choices, input or output",
        "custom_id: is missing",
    ]


@pytest.mark.parametrize("order", ["iaib", "iiab", "abii", "iaibiaib"])
@pytest.mark.parametrize("together", [False, True])
async def test_batches_that_use_the_same_ids_are_not_mixed(tmp_path, order, together):
    """Programs number the requests of each batch from the start."""
    lines = {
        "i": [request(input=f"question {number}") for number in (1, 2)],
        "a": [{**answer({"output": [said(f"answer {n}")]}), "id": f"b{n}"} for n in (1, 2)],
    }
    lines |= {"b": lines["a"][1:], "a": lines["a"][:1]}
    asked = iter(lines["i"] * 2)
    entries = [next(asked) if kind == "i" else lines[kind][0] for kind in order]
    pieces = [entries[::2], entries[1::2]] if together else [[entry] for entry in entries]
    paths = [write_lines(tmp_path / f"{n}.jsonl", piece) for n, piece in enumerate(pieces)]
    for _ in range(2):
        found = await stored(*paths, *paths)
        texts = [[step.parameters["content"] for step in episode.steps] for episode in found]
        assert sorted(texts) == [[f"question {n}", f"answer {n}"] for n in (1, 2)]
