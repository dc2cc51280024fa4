"""Stores to look at, and the application over them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx

from memory_core import (
    Episode,
    ExecutionStep,
    Heuristic,
    Outcome,
    Relationship,
    RewardScore,
    StepResult,
    TaskContext,
    open_memory,
)
from memory_core.plugins import PluginRegistry
from memory_core.records import (
    Checkpoint,
    ContextPattern,
    DecisionPoint,
    ErrorRecovery,
    Evidence,
    Feedback,
    RecallRecord,
    Reflection,
    SalientFeatures,
    ToolSequence,
)
from memory_dashboard.application import application
from memory_dashboard.security import Access

START = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "http://127.0.0.1:8321"


def step(number, *, tool="search", error=None, result=None, tokens=10):
    done = StepResult.error(error) if error else StepResult.success(result)
    return ExecutionStep(
        number=number,
        timestamp=START + timedelta(seconds=number),
        tool=tool,
        action=f"action {number}",
        parameters={"number": number},
        result=done,
        latency_ms=250,
        tokens_used=tokens,
    )


def episode(number, *, domain="web", failed=False, steps=(), **fields):
    start = START + timedelta(days=number)
    return Episode(
        task_description=f"task {number}",
        task_type="debugging" if number % 2 else "testing",
        context=TaskContext(domain=domain, tags=("nightly",)),
        start_time=start,
        end_time=start + timedelta(seconds=30),
        outcome=Outcome.failure(f"gave up after {number} tries")
        if failed
        else Outcome.success("done"),
        reward=RewardScore(total=0.1 if failed else 0.9),
        steps=steps or (step(1), step(2, tool="read")),
        **fields,
    )


def some_episodes(count=20):
    """Every fourth failed, with the same error of one tool; then it tried another."""
    return [
        episode(
            number,
            domain="web" if number % 3 else "data",
            failed=number % 4 == 0,
            steps=(step(1), step(2, tool="fetch", error=f"HTTP 50{number}"), step(3, tool="read"))
            if number % 4 == 0
            else (),
        )
        for number in range(count)
    ]


def everything(text):
    """A record of every kind that a page shows, with a text in each field that takes one."""
    texts = (text, text)
    context = TaskContext(domain=text, language=text, framework=text, tags=texts)
    long = text + "x" * 3_000
    said = ExecutionStep(
        number=1, tool=text, action=text, parameters={text: long}, metadata={text: text},
        result=StepResult.success({text: long}), timestamp=START,
    )  # fmt: skip
    failed = ExecutionStep(number=2, tool=text, result=StepResult.error(long), timestamp=START)
    outcomes = (
        Outcome.success(text, texts),
        Outcome.partial_success(text, texts, texts),
        Outcome.failure(text, text),
        Outcome.abstained(text, 1, texts),
    )
    episodes = [
        Episode(
            task_description=text if number else long,
            context=context,
            start_time=START + timedelta(days=number),
            end_time=START + timedelta(days=number, seconds=9),
            outcome=outcome,
            steps=(said, failed),
            tags=texts,
            metadata={text: text},
            reflection=Reflection(successes=texts, improvements=texts, insights=texts),
            salient_features=SalientFeatures(
                critical_decisions=texts,
                tool_combinations=texts,
                error_recovery_patterns=texts,
                key_insights=texts,
            ),
            checkpoints=(Checkpoint(step_number=1, reason=text, note=text),),
        )
        for number, outcome in enumerate(outcomes)
    ]
    first, second = episodes[:2]
    heuristic = Heuristic(
        condition=text, action=text, confidence=0.5, domain=text, language=text, tags=texts,
        evidence=Evidence(episode_ids=(first.id,), success_rate=1, sample_size=1),
    )  # fmt: skip
    recall = RecallRecord(task=text, shown=(first.id, heuristic.id), confidence=0.5)
    return [
        *episodes,
        ToolSequence(context=context, tools=texts),
        DecisionPoint(context=context, condition=text, action=text),
        ErrorRecovery(context=context, error_type=text, recovery_steps=texts),
        ContextPattern(
            context=context, context_features=texts, recommended_approach=text, evidence=(first.id,)
        ),
        heuristic,
        Relationship(
            from_episode_id=first.id,
            to_episode_id=second.id,
            relationship_type="follows",
            reason=text,
            created_by=text,
            custom_fields={text: text},
        ),
        recall,
        Feedback(recall_id=recall.id, task=text, used=(first.id,), outcome=outcomes[0]),
    ]


@asynccontextmanager
async def dashboard(url="inmemory:", *, access=None, records=(), **options):
    """A client of the application over a store, and the memory."""
    registry = PluginRegistry()
    async with open_memory(url, registry=registry, cache=None, **options) as memory:
        if records:
            await memory.put(*records)
        app = application(memory, registry.record_types, access or Access(), "a store")
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url=BASE) as client,
        ):
            yield client, memory
