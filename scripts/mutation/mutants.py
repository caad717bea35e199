"""The mutants of a file: each the file with one small change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators

_LEFT_OUT = {"operator_arg_removal": ("len", "isinstance", "cast", "TypeVar"), "operator_string": ()}
"""By operator: the calls that it leaves alone, because they cannot be made then, or are for mypy only."""
_PLAIN = (cst.BaseNumber, cst.BaseString, cst.Tuple, cst.List, cst.Dict)
_CODECS = ("encode", "decode")
_LOG = "_log"
"""What a log line says is for people, and no test holds its words. Neither does one those of an error."""


@dataclass(frozen=True)
class Mutant:
    """One change."""

    file: str
    function: str
    """The function or method that is changed, or the class; empty at the module's level."""
    was: str
    """The lines that are changed, without their indentation."""
    now: str
    """The same after the change."""
    nth: int
    """Which one of the equal changes in this function it is, from 1."""
    lines: range = field(compare=False)
    """From the line where the changed statement begins to the one where the change ends."""
    is_in_body: bool = field(compare=False)
    """Whether it is in the body of a function, and nowhere that runs when the module is imported."""
    source: str = field(compare=False, repr=False)
    """The whole changed file."""

    @property
    def key(self) -> tuple[str, str, str, str, int]:
        """By what it is known, wherever the lines move."""
        return self.file, self.function, self.was, self.now, self.nth


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """All mutants of a file, in its order."""
    text = (root / file).read_text()
    wrapper = MetadataWrapper(cst.parse_module(text))
    walk = _Walk(wrapper)
    walk.walk(wrapper.module, ())
    seen: set[str] = set()
    counted: Counter[tuple[str, str, str]] = Counter()
    made = []
    for change in walk.changes:
        source = change.apply(text)
        if source == text or source in seen:
            continue
        seen.add(source)
        was, now = _difference(text, source)
        counted[change.function, was, now] += 1
        nth = counted[change.function, was, now]
        made.append(Mutant(file, change.function, was, now, nth, change.lines, change.is_in_body, source))
    return made


@dataclass
class _Change:
    function: str
    is_in_body: bool
    lines: range
    span: CodeRange
    code: str

    def apply(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        start, end = self.span.start, self.span.end
        before = "".join(lines[: start.line - 1]) + lines[start.line - 1][: start.column]
        after = lines[end.line - 1][end.column :] + "".join(lines[end.line :])
        return before + self.code + after


class _Walk:
    """Goes through a module, and finds the changes."""

    def __init__(self, wrapper: MetadataWrapper) -> None:
        self.changes: list[_Change] = []
        self._module = wrapper.module
        self._spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
        self._names: list[str] = []
        self._in_body = False
        self._statement = 1

    def walk(self, node: cst.CSTNode, parents: tuple[cst.CSTNode, ...]) -> None:
        if isinstance(node, cst.Annotation) or _is_for_people(node):
            return
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._statement = self._first_line(node)
        for old, new in _changes(node, parents):
            self._note(old, new)
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._walk_definition(node, parents)
            return
        if isinstance(node, cst.Raise):
            return
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute) and node.func.attr.value in _CODECS:
            self.walk(node.func, (*parents, node))  # the names of codecs mean the same in any case
            return
        if isinstance(node, cst.Assert):
            self.walk(node.test, (*parents, node))
            return
        for child in node.children:
            self.walk(child, (*parents, node))

    def _walk_definition(self, node: cst.FunctionDef | cst.ClassDef, parents: tuple[cst.CSTNode, ...]) -> None:
        is_in_body, is_outermost = self._in_body, not self._in_body
        if is_outermost:
            self._names.append(node.name.value)
        for child in node.children:
            self._in_body = is_in_body or (isinstance(node, cst.FunctionDef) and child is node.body)
            self.walk(child, (*parents, node))
        self._in_body = is_in_body
        if is_outermost:
            self._names.pop()

    def _note(self, old: cst.CSTNode, new: cst.CSTNode) -> None:
        span = self._spans[old]
        lines = range(min(self._statement, span.start.line), span.end.line + 1)
        code = self._module.code_for_node(new)
        self.changes.append(_Change(".".join(self._names), self._in_body, lines, span, code))

    def _first_line(self, statement: cst.CSTNode) -> int:
        blank = statement.leading_lines if hasattr(statement, "leading_lines") else ()
        return int(self._spans[statement].start.line) + len(blank)


def _changes(node: cst.CSTNode, parents: tuple[cst.CSTNode, ...]) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    """What to put in place of what, at one node."""
    if not isinstance(node, cst.BaseCompoundStatement):
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and not _is_left_out(operator.__name__, node):
                yield from ((node, new) for new in operator(node))
    yield from _changes_of_ours(node, parents)


def _changes_of_ours(node: cst.CSTNode, parents: tuple[cst.CSTNode, ...]) -> Iterator[tuple[cst.CSTNode, cst.CSTNode]]:
    match node:
        # A condition that always holds, or never; and a statement that is left out.
        case cst.If() | cst.CompIf():
            yield node.test, _forced(node.test, cst.And(), "False")
            yield node.test, _forced(node.test, cst.Or(), "True")
        case cst.While() if not (isinstance(node.test, cst.Name) and node.test.value == "True"):
            yield node.test, _forced(node.test, cst.And(), "False")
        case cst.Assign() if any(not isinstance(target.target, cst.Name) for target in node.targets):
            yield node, cst.Pass()
        case cst.AugAssign() | cst.Del() | cst.Raise():
            yield node, cst.Pass()
        case cst.Expr() if isinstance(node.value, cst.Call | cst.Await):
            yield node, cst.Pass()
        case cst.Return() if node.value is None or _may_fall_through(parents):
            yield node, cst.Pass()
        case _:
            pass


def _forced(test: cst.BaseExpression, operator: cst.And | cst.Or, value: str) -> cst.BaseExpression:
    inner = test.with_changes(lpar=[cst.LeftParen(), *test.lpar], rpar=[*test.rpar, cst.RightParen()])
    whole = cst.BooleanOperation(inner, operator, cst.Name(value))
    # `if(…)` may stand without a space before it; and it binds as one.
    return whole.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])


def _may_fall_through(parents: tuple[cst.CSTNode, ...]) -> bool:
    """Not the last statement of its function: what comes after it could be done, too."""
    function = max((place for place, each in enumerate(parents) if isinstance(each, cst.FunctionDef)), default=None)
    if function is None:
        return False
    line = next(each for each in reversed(parents) if isinstance(each, cst.SimpleStatementLine))
    body = parents[function].body
    return isinstance(body, cst.IndentedBlock) and body.body[-1] is not line


def _is_left_out(operator: str, node: cst.CSTNode) -> bool:
    if operator == "operator_assignment":
        # A text in the place of `None`, or `None` in that of a value of a plain type: mypy refuses both.
        value = getattr(node, "value", None)
        return isinstance(value, _PLAIN) or (isinstance(value, cst.Name) and value.value in ("None", "True", "False"))
    called = node.func if isinstance(node, cst.Call) else None
    return isinstance(called, cst.Name) and called.value in _LEFT_OUT.get(operator, ())


def _is_for_people(node: cst.CSTNode) -> bool:
    if isinstance(node, cst.Expr):
        node = node.value
    if not (isinstance(node, cst.Call) and isinstance(node.func, cst.Attribute)):
        return False
    return isinstance(node.func.value, cst.Name) and node.func.value.value == _LOG


def _difference(text: str, source: str) -> tuple[str, str]:
    """The lines that differ, before and after, each stripped and joined by a space."""
    first, last, new = changed_lines(text, source)
    old = text.splitlines()[first - 1 : last]
    return " ".join(line.strip() for line in old), " ".join(line.strip() for line in new)


def changed_lines(text: str, source: str) -> tuple[int, int, list[str]]:
    """The first and the last line of a text that a change replaces, from 1, and what with."""
    before, after = text.splitlines(), source.splitlines()
    shorter = min(len(before), len(after))
    start = end = 0
    while start < shorter and before[start] == after[start]:
        start += 1
    while end < shorter - start and before[-1 - end] == after[-1 - end]:
        end += 1
    return start + 1, len(before) - end, after[start : len(after) - end]
