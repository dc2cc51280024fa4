"""Rows that follow each other are inserted together, in order, by few different statements."""

from __future__ import annotations

import sqlite3

import pytest

from memory_storage_turso.sql.statement import RowStatement, Statement, as_one, merged

OTHER = Statement("DELETE FROM t WHERE a = ?", (3,))


def row(number: int, table: str = "t") -> RowStatement:
    return RowStatement(f"INSERT INTO {table} VALUES (?, ?)", (number, str(number)), "(?, ?)")


def put_together(statements) -> list[Statement]:
    return [as_one(group) for group in merged(statements, (64, 16, 4, 1))]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 63, 64, 65, 500])
def test_every_row_is_inserted_once_and_in_order(count):
    database = sqlite3.connect(":memory:")
    database.execute("CREATE TABLE t (a, b)")
    for statement in put_together(map(row, range(count))):
        database.execute(statement.sql, statement.args)
    found = database.execute("SELECT a, b FROM t ORDER BY rowid").fetchall()
    database.close()
    assert found == [(number, str(number)) for number in range(count)]


def test_few_statements_of_few_texts():
    assert len(put_together(map(row, range(500)))) == 11
    texts = {
        statement.sql for count in range(300) for statement in put_together(map(row, range(count)))
    }
    assert len(texts) == 4


def test_other_statements_keep_their_places():
    found = put_together([row(1), row(2), OTHER, row(3), row(4, "u"), row(5, "u")])
    assert [statement.args for statement in found] == [
        (1, "1"), (2, "2"), (3,), (3, "3"), (4, "4"), (5, "5"),
    ]  # fmt: skip
    assert found[2] == OTHER


def test_statements_are_taken_as_they_are_needed():
    taken = []

    def lazy():
        for number in range(100):
            taken.append(number)
            yield row(number)

    groups = merged(lazy(), (16, 1))
    assert [len(next(groups)) for _ in range(2)] == [16, 16]
    assert len(taken) <= 33
