import itertools
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memory_core import Episode, Outcome, Relationship, TaskType
from memory_core.graph import GraphNode, RelationshipGraph

AWKWARD = [
    'say "hi"',
    "a[0]{1}(2)<3>|4",
    "two\nlines\r\tand tabs",
    "back\\slash\\n and \\",
    "Grüße, 世界 🙂",
    "a; b # c & d &quot; `e`",
    "nul\0 and bell\a",
    "end",
    "x" * 500,
]


def graph_of(*descriptions) -> RelationshipGraph:
    episodes = [Episode(task_description=text) for text in descriptions]
    edges = [
        Relationship(from_episode_id=a.id, to_episode_id=b.id, relationship_type="follows")
        for a, b in itertools.pairwise(episodes)
    ]
    return RelationshipGraph(tuple(map(GraphNode.of, episodes)), tuple(edges))


def test_mermaid():
    assert graph_of("first", "second").to_mermaid() == (
        'flowchart LR\n    n0["first"]\n    n1["second"]\n    n0 -->|follows| n1\n'
    )


def test_dot():
    graph = graph_of("first", "second")
    a, b = (node.id for node in graph.nodes)
    assert graph.to_dot().splitlines()[3:6] == [
        f'    "{a}" [label="first"];',
        f'    "{b}" [label="second"];',
        f'    "{a}" -> "{b}" [label="follows"];',
    ]


@pytest.mark.parametrize("text", AWKWARD)
def test_a_mermaid_label_is_one_line_and_stays_within_its_quotes(text):
    lines = graph_of(text, "other").to_mermaid().splitlines()
    assert len(lines) == 4
    label = re.fullmatch(r'    n0\["([^"]*)"\]', lines[1])[1]
    assert "\0" not in label
    shown = re.sub(r"#(\d+);", lambda match: chr(int(match[1])), label)
    assert shown == graph_of(text).nodes[0].label


def dot_label(line):
    quoted = re.search(r'label="((?:[^"\\]|\\.)*)"\];$', line)[1]
    return re.sub(r"\\(.)", r"\1", quoted).replace("&amp;", "&")


@pytest.mark.parametrize("text", AWKWARD)
def test_a_dot_label_is_one_line_and_stays_within_its_quotes(text):
    lines = graph_of(text, "other").to_dot().splitlines()
    assert len(lines) == 7
    assert dot_label(lines[3]) == graph_of(text).nodes[0].label


@settings(deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1))
def test_no_text_breaks_out(text):
    if not text.strip():
        return
    graph = graph_of(text, "other")
    assert len(graph.to_mermaid().splitlines()) == 4
    assert len(graph.to_dot().splitlines()) == 7
    assert graph.to_mermaid().count('"') == 4
    assert dot_label(graph.to_dot().splitlines()[3]) == graph.nodes[0].label


def test_a_label_keeps_its_text_and_is_only_shortened_when_long():
    assert graph_of("  Grüße,\n 世界 ").nodes[0].label == "Grüße, 世界"
    label = graph_of("x" * 500).nodes[0].label
    assert len(label) == 60
    assert label.endswith("…")


def test_json_has_everything():
    failed = Episode(
        task_description="x" * 500 + "\n", task_type="debugging", outcome=Outcome.failure("no")
    )
    other = Episode(task_description='"quoted"')
    edge = Relationship(
        from_episode_id=failed.id,
        to_episode_id=other.id,
        relationship_type="blocks",
        custom_fields={"by": "planner"},
    )
    nodes = (GraphNode.of(failed), GraphNode.of(other, 1))
    value = json.loads(RelationshipGraph(nodes, (edge,)).to_json())
    assert value["nodes"][0] == {
        "id": str(failed.id),
        "description": failed.task_description,
        "task_type": TaskType.DEBUGGING.value,
        "outcome": "failure",
        "distance": 0,
    }
    assert value["nodes"][1]["outcome"] is None
    assert value["edges"][0]["custom_fields"] == {"by": "planner"}
    assert value["edges"][0]["from_episode_id"] == str(failed.id)


def test_an_empty_graph_is_valid_in_every_format():
    empty = RelationshipGraph((), ())
    assert empty.to_mermaid() == "flowchart LR\n"
    assert empty.to_dot().startswith("digraph relationships {")
    assert json.loads(empty.to_json()) == {"nodes": [], "edges": []}


def test_entities_of_html_appear_literally_in_dot():
    (line,) = (
        line for line in graph_of("a &lt; b &amp; c & d").to_dot().splitlines() if "&" in line
    )
    assert line.endswith('[label="a &amp;lt; b &amp;amp; c &amp; d"];')
