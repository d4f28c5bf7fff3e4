"""Names are quoted, and queries of SQLite looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bettong.drivers import sql, sql_errors
from bettong.errors import BadInput


@given(st.lists(st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text), min_size=1, max_size=2))
def test_a_quoted_name_reads_back_as_itself(names: list[str]) -> None:
    for mark in ('"', "`"):
        assert sql.table_named(sql.quoted(names, mark)) == tuple(names)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("daily", ("daily",)),
        ("sales.daily", ("sales", "daily")),
        ('"My Sales"."da""ily"', ("My Sales", 'da"ily')),
        ("  ümlaut  ", ("ümlaut",)),
        ("select 1", None),
        ("a.b.c", None),
        ("a;b", None),
        ("", None),
        ("1a", None),
        ('"a', None),
    ],
)
def test_what_is_a_name_and_what_is_a_query(text: str, parts: tuple[str, ...] | None) -> None:
    assert sql.table_named(text) == parts


@pytest.mark.parametrize(
    "query",
    ["SELECT 1;", "select ';' as a -- ;", "WITH x AS (SELECT 1) SELECT * FROM x ;  ;", 'SELECT 1 AS ";"', "VALUES (1)"],
)
def test_one_reading_statement_passes(query: str) -> None:
    assert not sql.one_query(query).endswith(";")


@pytest.mark.parametrize(
    "query", ["", ";", "ATTACH 'x' AS y", "SELECT 1; SELECT 2", "/* SELECT */ DELETE FROM t", "PRAGMA x"]
)
def test_anything_else_does_not(query: str) -> None:
    with pytest.raises(BadInput):
        sql.one_query(query)


def test_parameters_are_told_from_texts_that_look_like_them() -> None:
    query = "SELECT ?, ?1, :name, '?', \"?\" FROM t -- ?"

    assert sql.without_parameters(query) == "SELECT NULL, NULL, NULL, '?', \"?\" FROM t -- ?"


@given(st.text(max_size=60))
def test_the_pieces_of_a_text_make_it_up(text: str) -> None:
    assert "".join(piece for _, piece in sql.tokens(text)) == text


def test_of_a_databases_words_only_names_that_the_query_holds_are_repeated() -> None:
    query = "SELECT nope FROM t WHERE password = 'x'"

    assert sql_errors.named('column "nope" does not exist', query) == " 'nope'"
    assert sql_errors.named('role "hunter2" is not permitted', query) == ""


def test_a_table_that_may_not_be_read_is_named_when_the_query_names_it() -> None:
    said = "permission denied for table salaries"

    assert sql_errors.named(said, 'SELECT * FROM "hr"."salaries"') == " 'salaries'"
    assert sql_errors.named(said, "SELECT * FROM a_view_of_them") == ""
