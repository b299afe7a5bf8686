"""The words of a resource, their score and the language that asks for them: https://hl7.org/fhir/R4/search.html#content."""

from __future__ import annotations

import time
from html import escape
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_server.fhir.outcome import TooCostly
from fhir_server.search.entries import Entries, TextParameter
from fhir_server.search.match import Candidate, matches
from fhir_server.search.parameters import Criteria
from fhir_server.search.query import And, Clause, Not, Or, Words
from fhir_server.search.registry import Registry
from fhir_server.search.text import parse_text_clause
from fhir_server.search.words import extract_texts, has_words, iterate_scored_words, list_non_prose, score, split_words
from fhir_server.store.memory import MemoryStore
from tests.r4 import R4

CRITERIA = Criteria(registry=Registry({"Observation": {}}), base="", now=0, full_text=True)
LEFT_OUT = list_non_prose(R4)

_letters = st.sampled_from(["a", "b", "ab", "ba", "x1"])


def clause(text: str) -> Clause:
    return parse_text_clause("Observation", "_content", text, CRITERIA)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" Bone,  marrow! ", ["bone", "marrow"]),
        ("ÉLAN élan Straße", ["elan", "elan", "strasse"]),
        ("x-ray 5.4 a_b", ["x", "ray", "5", "4", "a", "b"]),
        ("жаба ２ ½", ["жаба", "2", "1", "2"]),
        ("y" * 130, ["y" * 64, "y" * 64, "yy"]),
    ],
)
def test_words_are_runs_of_letters_and_digits(text: str, words: list[str]) -> None:
    assert split_words(text) == words


@given(st.text(max_size=40))
def test_words_of_words_are_the_same(text: str) -> None:
    """What is searched for is made of words in the way that what is stored is."""
    words = split_words(text)
    assert split_words(" ".join(words)) == words or not text.isascii()
    assert all(1 <= len(word) <= 64 and word.isalnum() for word in words)


def narrative(div: str) -> str:
    return extract_texts({"resourceType": "Patient", "text": {"div": div}}, LEFT_OUT).get("_text", "")


@pytest.mark.parametrize(
    ("div", "words"),
    [
        ("<div>Bo<b>ne</b> &amp; s<span class='x>y'>ki</span>n</div>", "bone skin"),
        ("<div><p>one</p><p>two</p>three<br/>four<hr />five</div>", "one two three four five"),
        ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
        ("<p title='hidden > seen'>text<!-- not <b>this</b> -->ed</p>", "texted"),
        ("<p><![CDATA[a <b> &amp;c]]>d</p>", "a b amp cd"),
        ("<p>1 &lt; 2 &#233;lan &#x41;&nbsp;b</p>", "1 2 elan a b"),
        ("<p>open", "open"),
        ("<!-- never closed", ""),
    ],
)
def test_markup_is_taken_off(div: str, words: str) -> None:
    assert narrative(div) == words


_INLINE = ("b", "i", "span", "a", "em", "sub")
_BLOCK = ("p", "div", "td", "li", "h1")
_xhtml = st.recursive(
    st.text("ab &<>\"'é", max_size=6).map(escape),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(st.sampled_from((*_INLINE, *_BLOCK)), st.text("ab>' ", max_size=3), inner).map(
            lambda made: f'<{made[0]} title="{made[1]}">{made[2]}</{made[0]}>'
        ),
        inner.map(lambda text: f"{text}<br/>"),
    ),
    max_leaves=8,
)


class _Parser(HTMLParser):
    """The standard library's reading of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.text += "" if tag in _INLINE else " "

    def handle_endtag(self, tag: str) -> None:
        self.handle_starttag(tag, None)


@given(_xhtml)
def test_markup_is_read_as_a_parser_does(div: str) -> None:
    parser = _Parser()
    parser.feed(f"<div>{div}</div>")
    parser.close()
    assert narrative(f"<div>{div}</div>").split() == split_words(parser.text)


@pytest.mark.parametrize("part", ["<a", "<!--", '<a "', "<a '\"", "<![CDATA[", "&", "<"])
def test_markup_without_an_end_takes_no_time(part: str) -> None:
    """Each character is looked at a few times at most: the square of the length would be minutes here."""
    started = time.process_time()
    narrative(part * 300_000)
    assert time.process_time() - started < 5


def test_content_is_every_string_that_is_prose() -> None:
    resource = {
        "resourceType": "Composition",
        "id": "never1",
        "meta": {"tag": [{"display": "never2"}]},
        "language": "en",
        "text": {"status": "never3", "div": "<div>narrative</div>"},
        "status": "final",
        "date": "2020-01-01",
        "subject": {"reference": "Patient/never4", "display": "somebody"},
        "title": "Title here",
        "identifier": {"system": "http://never5.example", "value": "V-1"},
        "section": [
            {"title": "S", "text": {"status": "generated", "div": "<div><p>in</p>side</div>"}, "entry": [None]}
        ],
        "contained": [{"resourceType": "Patient", "id": "never6", "name": [{"given": ["Within", None]}]}],
        "extension": [{"url": "http://never7.example", "valueString": "extended"}],
        "_title": {"extension": [{"url": "never8", "valueMarkdown": "*also*"}]},
        "author": [{"extension": [{"url": "x", "valueBase64Binary": "bmV2ZXI5"}]}],
    }
    found = extract_texts(resource, LEFT_OUT)
    assert found["_text"] == "narrative"
    expected = "narrative en final somebody title here v 1 s generated in side within extended also"
    assert found["_content"] == expected
    assert extract_texts({"resourceType": "Binary", "contentType": "a/b", "data": "bmV2ZXI="}, LEFT_OUT) == {
        "_content": "a b"
    }
    assert extract_texts({"resourceType": "Patient"}, LEFT_OUT) == {}


def test_the_score_rises_with_occurrences_and_falls_with_length() -> None:
    """n / (n + 0.5 + L / 200), the mean over what is searched."""
    bone, pair = Words("_content", ("bone",)), Words("_content", ("a", "b"))
    assert score((bone,), {"_content": "bone"}) == round(1 / 1.505, 6)
    assert score((bone,), {"_content": "bone bone bone"}) == round(3 / 3.515, 6)
    assert score((bone,), {"_content": " ".join(["bone"] + ["x"] * 199)}) == 0.4
    assert score((bone, pair), {"_content": "a b x bone"}) == round((1 / 1.52 + 1 / 1.52) / 2, 6)
    assert score((bone, pair), {"_content": "bone"}) == round(1 / 1.505 / 2, 6)
    assert score((bone,), {"_text": "bone"}) == score((), {"_content": "bone"}) == 0.0
    assert score((Words("_content", ("bo",), True),), {"_content": "bone body x"}) == round(2 / 2.515, 6)
    assert score((Words("_content", ("bo",)),), {"_content": "bone"}) == 0.0


@given(st.lists(_letters, min_size=1, max_size=8), st.lists(_letters, min_size=1, max_size=3), st.booleans())
def test_a_match_has_a_score_and_nothing_else_has(text: list[str], words: list[str], prefix: bool) -> None:
    wanted = Words("_content", tuple(words), prefix)
    found: dict[TextParameter, str] = {"_content": " ".join(text)}
    assert 0 <= score((wanted,), found) < 1
    assert (score((wanted,), found) > 0) == has_words(wanted, found)


def test_only_words_that_may_be_there_are_scored() -> None:
    words = [each.words[0] for each in iterate_scored_words(clause("a (b OR NOT (c d)) NOT e, f NOT NOT g"))]
    assert words == ["a", "b", "f", "g"]


_trees = st.recursive(
    st.builds(
        lambda words, prefix: Words("_content", tuple(words), prefix),
        st.lists(_letters, min_size=1, max_size=2),
        st.booleans(),
    ),
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=6,
)


def written(tree: Clause, random: int) -> str:
    """A tree in the language of the parameter, all groups in parentheses."""
    match tree:
        case Words(_, words, prefix):
            return f'"{" ".join(words)}"{"*" if prefix else ""}'
        case Not(inner):
            return f"{('NOT', 'not')[random % 2]} ({written(inner, random)})"
        case And(parts):
            return f"({(' AND ', ' and ', ' ')[random % 3].join(written(part, random) for part in parts)})"
        case Or(parts):
            return f"({(' OR ', ' or ')[random % 2].join(written(part, random) for part in parts)})"
    raise AssertionError(tree)


@given(_trees, st.integers(0, 5), st.lists(_letters, max_size=5))
def test_what_is_written_is_what_is_read(tree: Clause, random: int, text: list[str]) -> None:
    candidate = Candidate("Patient", "a", 0, Entries(texts={"_content": " ".join(text)}))
    store = MemoryStore(lambda: 0)
    assert matches(clause(written(tree, random)), candidate, store) == matches(tree, candidate, store)


def test_bounds() -> None:
    clause(" ".join(f"w{number}" for number in range(50)))
    with pytest.raises(TooCostly, match="`_content` has more than 50 words"):
        clause(" ".join(f"w{number}" for number in range(51)))
    with pytest.raises(TooCostly, match="more than 50 words"):
        clause('"' + "w " * 51 + '"')
    clause("(" * 30 + "a" + ")" * 30)
    with pytest.raises(TooCostly, match="`_content` is nested more than 30 deep"):
        clause("(" * 31 + "a" + ")" * 31)
    assert clause("NOT " * 5001 + "a") == Not(Words("_content", ("a",)))
