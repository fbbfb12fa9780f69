"""How tests and the messages of errors are written."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from facts import says, tells
from serzoo.zoo.core import errors

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
OURS = {name for name in vars(errors) if name.endswith("Error")} | {
    "EmptyAudioError",
    "MissingAudioError",
}
SENTENCE = re.compile(r"(?<![\w./=-])[a-z]+(?: [a-z]+){3,}(?![\w/=-])")


def patterns(code: str) -> Iterator[tuple[int, list[str]]]:
    """Line and texts of each ``match=``; a name stands for its column of ``parametrize``."""
    tree = ast.parse(code)
    functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "match":
            used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
            columns = [c for f in around for name in used for c in _column(f, name)]
            texts = [t for value in [node.value, *columns] for t in _texts(value)]
            yield node.value.lineno, texts


def _column(function: ast.FunctionDef, name: str) -> Iterator[ast.expr]:
    """What ``parametrize`` or the body gives to a name of a test."""
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("parametrize"):
            names = re.findall(r"\w+", ast.unparse(mark.args[0]))
            if name in names and isinstance(mark.args[1], ast.List | ast.Tuple):
                for row in mark.args[1].elts:
                    alone = len(names) == 1 or not isinstance(row, ast.Tuple)
                    yield row if alone else row.elts[names.index(name)]
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and name in map(ast.unparse, node.targets):
            yield node.value
        if isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
            names = [ast.unparse(t) for t in node.target.elts]
            if name in names and isinstance(node.iter, ast.List | ast.Tuple):
                for row in node.iter.elts:
                    yield row.elts[names.index(name)] if isinstance(row, ast.Tuple) else row


def _texts(value: ast.expr) -> Iterator[str]:
    for node in ast.walk(value):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_patterns_match_facts_and_not_sentences() -> None:
    found = [
        (f"{path.relative_to(TESTS)}:{line}", text)
        for path in sorted(TESTS.rglob("*.py"))
        for line, texts in patterns(path.read_text("utf-8"))
        for text in texts
    ]
    assert len(found) > 900  # if few are found, this test looks in the wrong place
    assert [f"{where}: {text}" for where, text in found if SENTENCE.search(text)] == []


CODE = """
@pytest.mark.parametrize(("value", "message"), [(1, "{0}"), (2, "lr=2")])
def test_it(value, message):
    with pytest.raises(ValueError, match=message):
        pass
    told = "{1}"
    with pytest.warns(match=told):
        pass
    for value, words in ((1, "{2}"),):
        with pytest.raises(ValueError, match=words):
            pass
    with pytest.raises(ValueError, match=says("{3}") + f"{4}"):
        pass
"""


@pytest.mark.parametrize("place", range(5))
def test_a_sentence_is_found_wherever_it_stands(place: int) -> None:
    texts = [f"fact={i}" for i in range(5)]
    texts[place] = "lr=0: it is not a number of ours"
    code = CODE
    for i, text in enumerate(texts):
        code = code.replace(f"{{{i}}}", text)
    found = [t for _, texts in patterns(code) for t in texts]
    assert len(found) == 6
    assert [t for t in found if SENTENCE.search(t)] == [texts[place]]


def test_facts_are_found_in_any_order_and_as_a_whole() -> None:
    text = "speaker f2 of a.b(1) is missing in\n98 of 0.75 parts; set lr=-1."
    for facts in (["f2", 98], [98, "f2"], ["a.b(1)", 1], ["lr=-1"], ["0.75", "set"], [-1]):
        assert re.search(says(*facts), text), facts
    for facts in (["f2", 97], ["f"], [9], [75], [0], ["axb(1)"], ["miss"], [98, "other"]):
        assert not re.search(says(*facts), text), facts
    assert not re.search(says(1), "lr=-1")
    assert tells(["other", text], "f2", 98)
    assert not tells(["speaker f2", "98"], "f2", 98)  # in one and the same message


@cache
def library() -> list[tuple[str, str]]:
    """Name and code of each file outside the tests."""
    folders = ("benchmarks", "datamodules", "heads", "zoo")
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), path.read_text("utf-8")) for path in paths]


def raised(code: str) -> Iterator[tuple[int, str]]:
    """Line and words of the message of each error of ours that is raised with a literal."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            name, message = ast.unparse(node.exc.func).split(".")[-1], node.exc.args[0]
            literal = isinstance(message, ast.Constant | ast.JoinedStr | ast.BinOp)
            if name in OURS and literal and (words := "".join(_texts(message))):
                names = re.search(r"suggest\(|_near\(|\{known\}", ast.unparse(message))
                yield node.lineno, words + ("; have " if names else "")


def test_an_error_goes_on_after_what_was_found() -> None:
    """With what is allowed or what to do: a second part of the sentence, a list, a command."""
    found = [(f"{name}:{line}", words) for name, code in library() for line, words in raised(code)]
    assert len(found) > 500
    assert [f"{where}: {words}" for where, words in found if not re.search("[;:(?`]", words)] == []


RIDDLES = re.compile(r"\bwhere there (?:is|are)\b|\bof which\b|\bstands? (?:for|in|beside)\b", re.I)


def riddles(code: str) -> list[str]:
    """Docstrings that begin with "Of ", and texts of the code that speak in one of the riddles."""
    tree = ast.parse(code)
    # docstrings, also those below the name of a constant
    alone = [n.value for n in ast.walk(tree) if isinstance(n, ast.Expr)]
    texts = [t for value in alone if isinstance(value, ast.Constant) for t in _texts(value)]
    found = [t for t in texts if t.startswith("Of ")]
    return found + [t for t in _texts(tree) if RIDDLES.search(" ".join(t.split()))]


def test_a_riddle_is_found_in_docstrings_and_messages() -> None:
    assert riddles('"""Of a table."""')
    assert riddles('FLOOR = 2\n"""Of nobody else."""')
    assert riddles('def f():\n    """A mean;\n    zero where\n    there is none."""')
    assert riddles('raise ValueError(f"{n} files, of which none is audio; give a folder")')
    assert riddles('raise ValueError("-1 stands for unlabelled")')
    assert riddles('"""Mean of a table; 0 if it is empty. The standard form."""') == []


def test_docstrings_and_messages_are_plain() -> None:
    assert {name: n for name, code in library() if (n := len(riddles(code)))} == {}


LONGEST = 20
"""Words of a sentence in docstrings, comments and documentation, and of a part of a message."""
SECTION = re.compile(r"(?:Args|Attributes|Returns|Yields|Raises):")
NOT_PROSE = re.compile(r"^ *```.*?^ *```|^=+ +=.*^=+ +=[= ]*$|<!--.*?-->", re.M | re.S)
ITEM = re.compile(r" *(?:[-*#]+|\d+\.) |    [\w`*., ]+: ")


def sentences(text: str) -> Iterator[str]:
    """Sentences of Markdown or of a docstring, without code blocks, tables and link targets."""
    blocks, section = [""], False
    for line in NOT_PROSE.sub("\n", text).splitlines():
        deep = line.startswith("    ")
        heading = bool(SECTION.fullmatch(line))
        section = heading or (section and (deep or not line))
        item = ITEM.match(line)
        if not line or heading or item:
            blocks.append("")
        if not (heading or line.startswith("|") or (deep and not section)):
            blocks[-1] += f" {line[item.end() if item else 0 :].strip()}"
    for block in blocks:
        plain = re.sub(r"\]\([^)]*\)|(?<=et al)\.", " ", block)
        plain = re.sub(r"(?::\w+:)?(?:``.+?``|`.+?`)", "CODE", plain)
        yield from filter(None, re.split(r"(?<=[.!?])[)\"*_]*\s+|; (?=CODE|None)", plain.strip()))


def words(sentence: str) -> int:
    """Number of words; ``key=value`` is not one."""
    return sum(bool(re.search(r"\w", w)) and "=" not in w for w in sentence.split())


def prose(code: str) -> Iterator[str]:
    """Docstrings, and blocks of lines of comments."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield from map(inspect.cleandoc, _texts(node.value))
    for block in re.findall(r"(?:^ *#(?!!).*\n)+", code, re.M):
        yield re.sub(r"^ *#:? ?", "", block, flags=re.M)


def test_sentences_are_counted_as_people_count_them() -> None:
    words_19 = " ".join(["word"] * 19)
    for fine in (
        f"Says {words_19}.",
        f"Says {words_19}. (It ends.) It goes on",
        f"Says ``a b c`` and {' '.join(['word'] * 17)}.",
        f"Says [{words_19}](of/a/file.md).",
        f"- Says {words_19}\n- says {words_19}\n1. says {words_19}",
        f"Text.\n\n```\n{words_19} {words_19}\n```\n| {words_19} | {words_19} |\n",
        f"Text:\n\n    {words_19} {words_19}\n",
        f"Args:\n    one: {words_19}\n    two: {words_19}",
        f"Tell ``a``; ``b`` = {words_19}; None = {words_19}.",
        f"Settings: a=1 b=2 c=3 {words_19}",
        f"See Chao et al. 2016, {' '.join(['word'] * 15)}.",
    ):
        assert max(map(words, sentences(fine))) <= LONGEST, fine
    for long in (
        f"It says {words_19}.",
        f"It says, {words_19}; and so on.",
        f"It is (see below): {words_19}.",
        f"- It says\n  {words_19}",
        f"Args:\n    one: says {words_19}\n        and goes on.",
        f"Returns:\n    It says {words_19}.",
        f"Chao et al. say {words_19}.",
    ):
        assert max(map(words, sentences(long))) > LONGEST, long
    code = f'"""It says {words_19}."""\n# It says\n# {words_19}\nx = 1  # a\n# b\n'
    assert [words(s) for text in prose(code) for s in sentences(text)] == [21, 21, 1]


def test_sentences_of_the_library_are_short() -> None:
    found = [
        (name, sentence)
        for name, code in library()
        for text in prose(code)
        for sentence in sentences(text)
    ]
    assert len(found) > 6000
    assert [f"{where}: {s}" for where, s in found if words(s) > LONGEST] == []


def test_sentences_of_the_documentation_are_short() -> None:
    folders = ("benchmarks", "configs", "datamodules", "docs", "heads", "tests", "zoo")
    paths = [ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    paths += [
        p for f in folders for p in sorted((ROOT / f).rglob("*.md")) if p.parent.name != "tables"
    ]
    texts = {p: p.read_text("utf-8") for p in paths}
    for p in sorted((ROOT / "docs" / "notebooks").glob("*.py")):
        code = re.compile(r"^(?!#(?: |$)).*|^# [!%].*", re.MULTILINE)
        texts[p] = re.sub(r"^# ?", "", code.sub("", p.read_text("utf-8")), flags=re.MULTILINE)
    found = [(f"{p.relative_to(ROOT)}", s) for p, text in texts.items() for s in sentences(text)]
    assert len(found) > 1500
    assert [f"{where}: {s}" for where, s in found if words(s) > LONGEST] == []


def test_parts_of_messages_are_short() -> None:
    found = [
        (f"{name}:{line}", part)
        for name, code in library()
        for line, message in raised(code)
        for part in re.split(r"[;:.?] |\(.*?\)", message)
    ]
    assert len(found) > 1000
    assert [f"{where}: {part}" for where, part in found if words(part) > LONGEST] == []
