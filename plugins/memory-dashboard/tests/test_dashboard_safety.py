"""Hostile text is shown as text, and requests that nobody should make are refused."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import httpx
import pytest
from attrs import evolve
from dashboard_support import BASE, dashboard, episode, everything, step

from memory_core import Outcome, Query, Relationship, TaskContext
from memory_core.records import (
    Checkpoint,
    ContextPattern,
    DecisionPoint,
    Episode,
    ErrorRecovery,
    Evidence,
    Feedback,
    Heuristic,
    Pattern,
    RecallRecord,
    Reflection,
    SalientFeatures,
)
from memory_dashboard.security import Access
from memory_dashboard.text import FOLD, folded, visible

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "<svg/onload=alert(1)>",
    "' onfocus='alert(1)' autofocus='",
    "</title></textarea></style><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{ 7*7 }}{% raw %}",
    "\x1b]0;title\x07\x1b[31mred",
    "abc\u202edcba\u2066\u200f\u061c",
    "zero\u200bwidth\ufeff\u2028line\U000e0041",
    "&lt;b&gt; &amp; <b>",
]
HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]"
)


def foreign_navigation(to):
    return {
        "sec-fetch-site": "cross-site",
        "sec-fetch-mode": "navigate",
        "sec-fetch-dest": to,
    }


class Elements(HTMLParser):
    """What a browser makes of a page: its elements and their attributes."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


async def pages_of(client, memory):
    addresses = [
        "/", "/?by=tool", "/?by=task", "/episodes", "/graph", "/patterns", "/heuristics", "/recalls",
        "/namespaces", "/running",
    ]  # fmt: skip
    for kind, path in ((Episode, "episodes"), (Pattern, "patterns"), (Heuristic, "heuristics")):
        for record in (await memory.query(Query(kind))).records:
            addresses.append(f"/{path}/{record.id}")
            if kind is Episode:
                addresses += [
                    f"/episodes/{record.id}/steps", f"/episodes/{record.id}/steps/1/parameters",
                    f"/episodes/{record.id}/steps/1/output", f"/episodes/{record.id}/steps/2/output",
                    f"/graph?episode={record.id}",
                ]  # fmt: skip
    for address in addresses:
        yield address, await client.get(address)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
async def test_hostile_text_in_every_field_of_every_kind_is_shown_as_text(text):
    seen = 0
    async with dashboard(records=everything(text)) as (client, memory):
        async for address, answer in pages_of(client, memory):
            assert answer.status_code == 200, address
            page = Elements(answer.text)
            for tag, attributes in page.found:
                assert not any(name.startswith("on") for name in attributes), (address, attributes)
                assert "style" not in attributes
                if tag == "script":
                    assert attributes["src"].startswith("/static/")
                assert tag not in {"img", "iframe", "object", "embed", "style", "base"}, address
                for name in ("href", "src", "action", "hx-get", "formaction"):
                    target = attributes.get(name) or "/"
                    assert target.startswith(("/", "#")), (address, target)
                    assert not target.startswith("//")
            assert HIDDEN.search(answer.text) is None, address
            plain = visible(text)
            seen += plain in page.text
    assert seen > 15


async def test_hostile_parameters_are_shown_as_text():
    async with dashboard(records=[episode(1)]) as (client, _):
        for path in ("/", "/episodes", "/graph", "/patterns", "/heuristics", "/recalls"):
            for name in (
                "q",
                "domain",
                "tool",
                "tag",
                "episode",
                "from",
                "order",
                "by",
                "span",
                "type",
                "x",
            ):
                answer = await client.get(path, params={name: '"><script>alert(1)</script>\u202e'})
                assert answer.status_code in {200, 400}
                assert "<script>alert" not in answer.text
                assert "\u202e" not in answer.text


async def test_ten_megabytes_are_not_sent_at_once():
    long = episode(1, steps=(step(1, result={"text": "<b>" * 3_500_000}),))
    async with dashboard(records=[long]) as (client, _):
        page = await client.get(f"/episodes/{long.id}")
        assert len(page.content) < 30_000
        piece = await client.get(f"/episodes/{long.id}/steps/1/output")
        assert len(piece.content) < 1_000_000
        assert "further characters" in piece.text
        listed = await client.get("/episodes")
    assert len(listed.content) < 30_000


def large_records(text):
    """Records of each kind with a long text in one field each, of all fields that are not indexed."""
    one, two = episode(1), episode(2).replace(task_description=text)
    context, outcomes, texts = TaskContext(), Outcome, (text,)
    yield from (
        one,
        two,
        episode(3).replace(outcome=outcomes.success(text, texts)),
        episode(4).replace(outcome=outcomes.partial_success(text, texts, texts)),
        episode(5).replace(outcome=outcomes.failure(text, text)),
        episode(6).replace(outcome=outcomes.abstained(text, 1, texts)),
        episode(7).replace(
            reflection=Reflection(successes=texts, improvements=texts, insights=texts)
        ),
        episode(8).replace(
            salient_features=SalientFeatures(critical_decisions=texts, key_insights=texts)
        ),
        episode(9).replace(checkpoints=(Checkpoint(step_number=1, reason=text, note=text),)),
        episode(10).replace(steps=(evolve(step(1), action=text), step(2, error=text))),
        episode(11).replace(
            steps=(evolve(step(1), parameters={text: text}), step(2, result=[text]))
        ),
        episode(12).replace(steps=(evolve(step(1), metadata={"key": text}),)),
    )
    yield DecisionPoint(context=context, condition=text, action=text)
    yield ErrorRecovery(context=context, error_type="e", recovery_steps=texts)
    yield ContextPattern(context=context, context_features=texts, recommended_approach=text)
    yield Heuristic(
        condition=text, action=text, confidence=0.5,
        evidence=Evidence(episode_ids=(one.id,), success_rate=1, sample_size=1),
    )  # fmt: skip
    yield Relationship(
        from_episode_id=one.id, to_episode_id=two.id, relationship_type="related_to", reason=text,
        created_by=text, custom_fields={"key": text},
    )  # fmt: skip
    recall = RecallRecord(task=text, shown=(one.id,), confidence=0.5)
    yield recall
    yield Feedback(
        recall_id=recall.id, task=text, used=(one.id,), outcome=Outcome.failure(text, text)
    )


async def test_a_long_text_in_any_field_of_any_kind_is_cut():
    long = "<b>\u202e" * 250_000
    seen = 0
    async with dashboard(records=large_records(long)) as (client, memory):
        async for address, answer in pages_of(client, memory):
            missing = answer.status_code == 404 and "/steps/" in address
            assert answer.status_code == 200 or missing, address
            whole = (
                address.endswith(("/parameters", "/output")) or "<h3>The whole task" in answer.text
            )
            assert len(answer.content) < (1_500_000 if whole else 200_000), address
            assert "<b>" not in answer.text, address
            assert HIDDEN.search(answer.text) is None, address
            seen += 1
    assert seen > 70


def test_characters_that_cannot_be_seen_are_written_by_number():
    assert visible("a\u202eb\x1b") == "a\u27e8U+202E\u27e9b\u27e8U+001B\u27e9"
    assert visible("line\r\nline\ttab") == "line\nline\ttab"
    # Joiners are part of words and of emoji.
    assert visible("\u0645\u200c\u06cc") == "\u0645\u200c\u06cc"
    # Letters with as many marks as languages put on them.
    assert (
        visible("\u1e3f\u0301\u0323 \u0e01\u0e34\u0e48") == "\u1e3f\u0301\u0323 \u0e01\u0e34\u0e48"
    )
    assert visible("a" + "\u0300" * 1_000) == "a" + "\u0300" * 8 + "\u27e8992 more marks\u27e9"
    assert visible("\u0e47\u20dd" * 9) == "\u0e47\u20dd" * 4 + "\u27e810 more marks\u27e9"
    assert folded("x" * (FOLD + 1)).whole is False
    assert folded("x" * FOLD).whole
    assert folded({}) is None


@pytest.mark.parametrize(
    "path", ["/", "/episodes", "/static/dashboard.css", "/nothing", "/episodes/1"]
)
async def test_every_answer_has_the_headers(path):
    async with dashboard() as (client, _):
        answer = await client.get(path)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers
    if not path.startswith("/static"):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8321", 200), ("localhost:8321", 200), ("[::1]:8321", 200), ("LOCALHOST", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:8321", 421),
        ("192.168.1.7:8321", 421), ("evil.example@127.0.0.1", 421), ("127.0.0.1@evil.example", 421),
        ("", 421), ("[", 421), ("localhost:evil", 421), ("localhost/x", 421), ("localhost?x", 421),
        ("localhost#x", 421), ("localhost\\x", 421), ("[::1", 421), ("[::1]:", 200), ("[localhost]", 421),
        ("localhost.", 421), ("127.9.9.9", 200), ("0177.0.0.1", 421), ("localhost:1:1", 421),
        ("local host", 421), ("localhost,evil.example", 421),
    ],
)  # fmt: skip
async def test_a_name_that_was_pointed_here_is_refused(host, status):
    async with dashboard() as (client, _):
        assert (await client.get("/", headers={"host": host})).status_code == status


async def test_two_hosts_are_refused():
    async with dashboard() as (client, _):
        headers = [("host", "127.0.0.1:8321"), ("host", "evil.example")]
        request = httpx.Request("GET", BASE, headers=headers)
        assert (await client.send(request)).status_code == 421


async def test_further_names_are_allowed():
    access = Access.of("127.0.0.1", None, ["memory.example"])
    async with dashboard(access=access) as (client, _):
        assert (await client.get("/", headers={"host": "Memory.example"})).status_code == 200
        assert (await client.get("/", headers={"host": "other.example"})).status_code == 421


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": BASE}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://["}, 403),
        ({"origin": ""}, 403),
        ([("origin", BASE), ("origin", "http://evil.example")], 403),
        ({"content-length": "5"}, 413),
        ({"transfer-encoding": "chunked"}, 413),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        (foreign_navigation("document"), 200),
        (foreign_navigation("iframe"), 403),
        (foreign_navigation("frame"), 403),
        (foreign_navigation("object"), 403),
        (foreign_navigation("embed"), 403),
    ],
)
async def test_other_sites_are_refused(headers, status):
    async with dashboard() as (client, _):
        assert (await client.get("/", headers=headers)).status_code == status


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
async def test_nothing_but_reading_is_answered(method):
    async with dashboard() as (client, _):
        assert (await client.request(method, "/")).status_code == 405


async def test_dashboards_on_two_ports_of_a_host_keep_their_tokens_apart():
    access = Access.of("0.0.0.0", "right-token-of-24-letters")
    named = set()
    async with dashboard(access=access) as (client, _):
        for port in (8321, 8322):
            url = f"http://192.168.1.7:{port}/"
            moved = await client.get(url, params={"token": "right-token-of-24-letters"})
            named.add(moved.headers["set-cookie"].partition("=")[0])
    assert len(named) == 2


async def test_beyond_loopback_a_token_is_needed():
    access = Access.of("0.0.0.0", "right-token-of-24-letters")
    host = {"host": "192.168.1.7:8321"}
    async with dashboard(access=access) as (client, _):
        for path in ("/", "/episodes", "/static/dashboard.css", "/nothing"):
            assert (await client.get(path, headers=host)).status_code == 401
        token = {"token": "right-token-of-24-letters", "domain": "web"}
        moved = await client.get("/episodes", params=token, headers=host)
        assert (moved.status_code, moved.headers["location"]) == (303, "/episodes?domain=web")
        cookie = moved.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        client.cookies.clear()
        named = cookie.partition("=")[0]
        for wrong in ("wrong", "", "right-token-of-24-letter", "right-token-of-24-letters\u00e9"):
            assert (await client.get("/", params={"token": wrong}, headers=host)).status_code == 401
            other = {"cookie": f"{named}={wrong}".encode()}
            assert (await client.get("/", headers={**host, **other})).status_code == 401
            bearer = {"authorization": f"Bearer {wrong}".encode()}
            assert (await client.get("/", headers={**host, **bearer})).status_code == 401
        seen = {"cookie": cookie.partition(";")[0]}
        assert (await client.get("/", headers={**host, **seen})).status_code == 200
        bearer = {"authorization": "Bearer right-token-of-24-letters"}
        assert (await client.get("/", headers={**host, **bearer})).status_code == 200
        assert (
            await client.get("/", headers={**bearer, "host": "evil.example"})
        ).status_code == 421


async def test_the_token_does_not_lead_elsewhere():
    access = Access.of("127.0.0.1", "right-token-of-24-letters")
    async with dashboard(access=access) as (client, _):
        for path in ("//evil.example/", "/\\evil.example", "///evil.example"):
            request = httpx.Request("GET", BASE)
            request.url = httpx.URL(BASE).copy_with(
                raw_path=path.encode() + b"?token=right-token-of-24-letters"
            )
            answer = await client.send(request)
            assert answer.headers["location"].startswith("/")
            assert not answer.headers["location"].startswith(("//", "/\\"))


@pytest.mark.parametrize(
    "path",
    [
        "/static/../application.py", "/static/%2e%2e/application.py", "/static/..%2fapplication.py",
        "/static/%2e%2e%2fapplication.py", "/static//etc/passwd", "/static/..%5capplication.py",
        "/static/", "/static", "/static/dashboard.css%00", "/application.py",
    ],
)  # fmt: skip
async def test_no_other_file_is_served(path):
    async with dashboard() as (client, _):
        request = httpx.Request("GET", BASE, headers={"host": "127.0.0.1:8321"})
        request.url = httpx.URL(BASE).copy_with(raw_path=path.encode())
        answer = await client.send(request, follow_redirects=True)
    assert answer.status_code in {404, 405}
    assert "import" not in answer.text


async def test_static_files_are_kept_and_named_by_content():
    async with dashboard() as (client, _):
        page = await client.get("/")
        addresses = re.findall(r'(?:src|href)="(/static/[^"]*)"', page.text)
        assert len(addresses) >= 4
        for address in addresses:
            answer = await client.get(address)
            assert answer.status_code == 200
            assert "immutable" in answer.headers["cache-control"]
            assert "?" in address
