"""How a policy is written on the command line: ``snapkv``, ``snapkv(window=16)``, ``ada(h2o)``.

A parameter in parentheses is a policy too: ``kvpress:AdaKVPress(press=SnapKVPress())``.
"""

from __future__ import annotations

import ast
import math
import re
from dataclasses import dataclass

from kvharness.errors import UsageProblem

_TOKEN = re.compile(
    r"""\s*([A-Za-z0-9][\w.+:-]*|'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|-?\.?\d[\w.+-]*|[(),=])"""
)
_SLUG = re.compile(r"[^A-Za-z0-9.+-]+")
_DEEPEST = 8
_LONGEST = 2000
#: Characters of a list that a message shows: of its start, and of where it cannot be read.
_LINE, _SHOWN = 80, 40


#: Stands for all policies but wrappers.
EVERY = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """A policy name with the policies it wraps and the parameters it is given."""

    name: str
    arguments: tuple[PolicySpec, ...] = ()
    parameters: tuple[tuple[str, object], ...] = ()

    @property
    def parts(self) -> tuple[PolicySpec, ...]:
        """Itself and every specification inside it."""
        named = [value for _, value in self.parameters if isinstance(value, PolicySpec)]
        return (self, *(inner for part in (*self.arguments, *named) for inner in part.parts))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(part.name for part in self.parts)

    @property
    def slug(self) -> str:
        """Safe in test ids: ``snapkv+window16``, ``ada+h2o``; equal to the name alone."""
        parts = [self.name, *(part.slug for part in self.arguments)]
        for key, value in self.parameters:
            parts.append(f"{key}{value.slug if isinstance(value, PolicySpec) else value}")
        return "+".join(_SLUG.sub("-", part) for part in parts)

    def __str__(self) -> str:
        inner = [str(part) for part in self.arguments]
        inner += [f"{key}={_shown(value)}" for key, value in self.parameters]
        return f"{self.name}({', '.join(inner)})" if inner else self.name

    @classmethod
    def parse_list(cls, text: str) -> list[PolicySpec]:
        """Read a comma list.

        Raises:
            UsageProblem: not a list of policies.
        """
        parser = _Parser(text)
        specs = [parser.policy()]
        while parser.take(","):
            specs.append(parser.policy())
        parser.end()
        return specs


def _shown(value: object) -> str:
    """As it reads again: a policy without parentheses would be a text."""
    if not isinstance(value, PolicySpec):
        return repr(value)
    text = str(value)
    return text if text.endswith(")") else f"{text}()"


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[str] = []
        self.starts: list[int] = []
        if len(text) > _LONGEST:
            raise self.problem(f"{len(text)} characters, of which {_LONGEST} can be read")
        position = 0
        while text[position:].strip():
            match = _TOKEN.match(text, position)
            if match is None:
                self.tokens.clear()
                raise self.problem()
            self.tokens.append(match[1])
            self.starts.append(match.start(1))
            position = match.end()

    def problem(self, reason: str = "") -> UsageProblem:
        reason = reason and f"{reason}; "
        where = f" near {self.text[self.reached() :].strip()[:_SHOWN]!r}"
        long = len(self.text) > _LINE
        shown = f"{self.text[:_LINE]}..." if long else self.text
        return UsageProblem(
            f"--policy {shown!r}{where if long else ''}: {reason}expected names such as snapkv, "
            f"snapkv(window=16) or ada(snapkv), separated by commas"
        )

    def reached(self) -> int:
        """Where the last token that was taken begins."""
        taken = len(self.starts) - len(self.tokens)
        return self.starts[max(0, taken - 1)] if self.starts else 0

    def take(self, token: str) -> bool:
        if self.tokens[:1] == [token]:
            self.tokens.pop(0)
            return True
        return False

    def end(self) -> None:
        if self.tokens:
            raise self.problem()

    def word(self) -> str:
        if not self.tokens or self.tokens[0] in "(),=":
            raise self.problem()
        return self.tokens.pop(0)

    def policy(self, depth: int = 0) -> PolicySpec:
        name = self.word()
        if depth > _DEEPEST:
            raise self.problem(f"more than {_DEEPEST} parentheses in each other")
        if not name[0].isalnum():
            raise self.problem()
        arguments: list[PolicySpec] = []
        parameters: list[tuple[str, object]] = []
        if self.take("(") and not self.take(")"):
            while True:
                if self.tokens[1:2] == ["="]:
                    parameters.append(self.parameter([key for key, _ in parameters], depth))
                else:
                    arguments.append(self.policy(depth + 1))
                if self.take(")"):
                    break
                if not self.take(","):
                    raise self.problem("" if self.tokens else "a parenthesis is not closed")
        return PolicySpec(
            name=name, arguments=tuple(arguments), parameters=tuple(sorted(parameters))
        )

    def parameter(self, known: list[str], depth: int) -> tuple[str, object]:
        key = self.word()
        self.take("=")
        if key in known:
            raise self.problem(f"{key} is given twice")
        if not key.isidentifier():
            raise self.problem()
        return key, self.policy(depth + 1) if self.tokens[1:2] == ["("] else self.value()

    def value(self) -> object:
        """A number, a quoted text, True, False or None; every other word is text as it stands."""
        word = self.word()
        try:
            value: object = ast.literal_eval(word)
        except (ValueError, SyntaxError):
            if word[0] in "'\"":
                raise self.problem() from None
            return word
        plain = isinstance(value, str | int | None) or (
            isinstance(value, float) and math.isfinite(value)
        )
        return value if plain else word
