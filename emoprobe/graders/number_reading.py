"""Read the text of an answer as an exact number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

from emoprobe.graders.answers import NUMBER_KINDS, TOKEN, number_value
from emoprobe.graders.reading import DENIED, FLAGS, SENTENCE_END, Reading

# What surrounds the number of an answer. These see at most WINDOW characters.
_VARIABLE = re.compile(r"\W*[a-z]\W*")
_DIGIT = re.compile(r"\d")
_ASIDE = re.compile(r"(?<![\d\w)(×*/+-])(?<![×*/+=-] )\([^()\n]{0,200}\)")
_BRACKET = re.compile(r"\s*[\[({<]\s*([^\[\](){}<>\n]{1,100}?)\s*[\])}>](?!\s*[-+*/×÷^=(])")
# What may come before the number of a line that is an answer by itself.
LEAD = re.compile(
    r"""[^\w\n]*(?:(?:it[ ]is|it's|that[ ]is|it[ ]equals|about|approximately|approx|roughly|around|exactly|only|just
    |simply|[A-Za-z]\s?[=≈])[^\w\n]*){0,3}""",
    FLAGS,
)
# `3 and 4, which is 7`: what introduces the result of a calculation.
_RESULT = re.compile(
    r"""\b(?:(?:which|that|it)[ ](?:is|equals|makes|gives|comes[ ]to|adds[ ]up[ ]to|totals)|is|are|equals|makes|gives
    |is[ ]equal[ ]to|to[ ]get|gets|becomes|totals|leaves|so|or)\b
    [^\w-]*(?:(?:about|approximately|only|exactly|a[ ]total[ ]of|now)\s)?$""",
    re.VERBOSE,
)
_VERB = re.compile(
    r"""\b(?:is|are|was|were|be|equals|has|have|had|costs?|gets?|needs?|earns?|pays?|makes?|gives?|spends?|takes?|sells?
    |leaves?)\b[^\w-]*(?:(?:about|approximately|only|exactly|now|a[ ]total[ ]of)\s)?$""",
    re.VERBOSE,
)
_REFERENCE = re.compile(
    r"\b(?:steps?|questions?|problem|parts?|equations?|eq|figure|line|nearest)\.?\s?[(#]?$", re.IGNORECASE
)
_PRECISION = re.compile(r"[\s-]?(?:decimals?\b|significant|sig\b|d\.?p\b|s\.?f\b)", re.IGNORECASE)
_INEQUALITY = re.compile(r"[≤≥≠]|\s[<>]\s|\b(?:more|less|fewer|greater|larger|smaller)\sthan\s*$")
_OPERATION = re.compile(r"(?:\s+[^\W\d]+){0,2}\s*(?:plus|minus|times|divided by|multiplied by)\s*")
_OPERANDS = re.compile(rf"{_OPERATION.pattern}|(?:\s+[^\W\d]+){{0,2}},?\s*and\s*")
_ALTERNATIVE = re.compile(
    r"""(?:\s*[^\W\d_]+){0,2}?\s*(?:,\s*(?:and|or)\b|\bor\b|\bto\b|\band\b|\bthrough\b|[,/&~]|\s[-—]\s|—)\s*
    (?:(?:about|perhaps|maybe|possibly|even|the)\s+)?[A-Za-z]?\W*""",
    re.VERBOSE,
)
_END = re.compile(
    r"""(?:\s*(?!(?:of|is|are|was|were|more|less|fewer|each|per|left|remain|if|for|because|than)\b)[^\W\d_]+){0,2}
    \s*(?:[.,;:!?)\]}\n]|\band\b|\bor\b|$)""",
    re.VERBOSE,
)
# `5 hours and 30 minutes`: two units of one quantity.
_LARGE_UNIT = re.compile(
    r"""\s*(?:year|month|week|day|hour|hr|h|minute|min|feet|foot|ft|dollar|pound|lb|kilogram|kg|km|kilometer|m|meter)s?\b
    \.?,?\s*(?:and\s*)?""",
    FLAGS,
)
_SMALL_UNIT = re.compile(
    r"\s*(?:month|week|day|hour|minute|min|second|sec|inche?|in|cent|ounce|oz|gram|g|cm|meter|m)s?\b", re.IGNORECASE
)
_RANGE = re.compile(r"\b(?:between|from)\s*$")
_ASSIGNMENT = re.compile(r"(?<![^\W\d_])[A-Za-z]\s?=")
_SEPARATOR = re.compile(r"\b(?:or|and)\b|,")
_RELATION = re.compile("=|≈|⇒")
# Letters that are variables where they touch a number or an operator; the others may be units.
_VARIABLES = frozenset("xyznijabqruvwXYZNeAB")


@dataclass
class _Run:
    """Numbers of a text with the mathematics around them, such as `5`, `3 + 4` or `5x`, and their place."""

    start: int
    end: int
    numbers: list[re.Match[str]] = field(default_factory=list)
    operators: bool = False
    symbols: bool = False

    @property
    def value(self) -> Fraction | None:
        """The value of a run that is one number."""
        return (
            token_value(self.numbers[0]) if len(self.numbers) == 1 and not self.operators and not self.symbols else None
        )

    def reading(self) -> Reading:
        return Reading(self.value, self.numbers[0][0])


def find_runs(text: str) -> list[_Run]:
    """The numbers of a text, each with the operators and symbols that belong to it."""
    tokens = [token for token in TOKEN.finditer(text) if token.lastgroup != "space"]
    runs: list[_Run] = []
    run: _Run | None = None
    operator, symbol = False, -1  # an operator behind the run; the start of a symbol before the next number
    for index, token in enumerate(tokens):
        kind, literal = _kind(tokens, index), token[0]
        if kind == "number":
            signed = literal[0] in "+-" and run is not None
            if run is None or not (operator or signed or text[run.end : token.start()] in (")(", "}{")):
                run = _Run(token.start() if symbol < 0 else symbol, token.end(), symbols=symbol >= 0)
                runs.append(run)
            else:
                run.operators = True
            run.numbers.append(token)
            run.end, operator, symbol = token.end(), False, -1
        elif kind == "operator":
            operator = run is not None or symbol >= 0
        elif kind == "symbol":
            if run is None:
                symbol = token.start() if symbol < 0 else symbol
            else:
                run.symbols, run.end = True, token.end()
        elif kind != "bracket":
            run, operator, symbol = None, False, -1
    return runs


def token_value(token: re.Match[str]) -> Fraction | None:
    """The value of a number; None for a date, a time or a ratio."""
    return None if token.lastgroup == "other" else number_value(token[0])


def _kind(tokens: list[re.Match[str]], index: int) -> str:
    """Classify a token in a run: a number, an operator, a symbol, a bracket, or no part of one."""
    token = tokens[index]
    group, literal = token.lastgroup or "", token[0]
    if group in NUMBER_KINDS or (group == "other" and literal[0].isdigit()):
        return "number"
    if group == "command" or literal in "±∞":
        return "symbol"
    if group == "operator":
        return "operator"
    if literal in "()[]{}":
        return "bracket"
    before = tokens[index - 1] if index else None
    if group != "word" or len(literal) > 1:
        attached = before is not None and before.end() == token.start() and set(literal) <= set("xyz")
        return "symbol" if group == "word" and attached else ""
    after = tokens[index + 1] if index + 1 < len(tokens) else None
    numbers = [other is not None and other.lastgroup in NUMBER_KINDS for other in (before, after)]
    if literal in "xX" and all(numbers):
        return "operator"
    touches = (
        before is not None and before.end() == token.start() and (before.lastgroup != "mark" or before[0] in "{}")
    ) or (after is not None and after.start() == token.end() and after.lastgroup in ("operator", "command"))
    beside = any(other is not None and other.lastgroup == "operator" and other[0] != "-" for other in (before, after))
    return "symbol" if literal in _VARIABLES and (touches or beside) else ""


def is_aside(text: str, run: _Run) -> bool:
    """Return whether a run is no candidate for an answer: denied, the number of a step, or a number of digits."""
    before = text[max(0, run.start - 30) : run.start]
    return bool(DENIED.search(before) or _REFERENCE.search(before) or _PRECISION.match(text, run.end))


def read_number(rest: str) -> Reading | None:
    """Read the text of an answer; see `emoprobe.graders.extraction` for the three outcomes."""
    if not _DIGIT.search(rest):
        # No number: another value, such as `x` or `\\pi`, or a word, which is none.
        return Reading(None, rest) if "\\" in rest or _VARIABLE.fullmatch(rest) else None
    if (bracket := _BRACKET.match(rest)) and find_runs(bracket[1]) and "=" not in _ASIDE.sub("", rest[bracket.end() :]):
        rest = bracket[1]
    # The answer is in the first sentence that has a number, outside of remarks in brackets.
    for clause in (*SENTENCE_END.split(_ASIDE.sub(" ", rest)), rest):
        runs = [run for run in find_runs(clause) if not is_aside(clause, run)]
        if runs:
            return _read_clause(clause, runs)
    return None


def _read_clause(clause: str, runs: list[_Run]) -> Reading:
    if _INEQUALITY.search(clause) or _INEQUALITY.search(clause[: runs[0].start]):
        return Reading(None, clause)
    if _RELATION.search(clause):
        return _read_sides(clause, runs)
    first = runs[0]
    if len(runs) > 1 and not LEAD.fullmatch(clause[: first.start]):
        # A sentence: its number is the one behind its last verb.
        spoken = [run for run in runs if _VERB.search(clause[max(0, run.start - 40) : run.start])]
        first = spoken[-1] if spoken else first
    following = runs[runs.index(first) + 1 :]
    results = [run for run in following if _RESULT.search(clause[max(0, run.start - 40) : run.start])]
    if first.value is None:
        return results[-1].reading() if results and not first.symbols else Reading(None, clause)
    if following:
        operands = _OPERANDS.fullmatch(clause[first.end : following[0].start])
        if operands and results and results[-1] is not following[0]:
            return results[-1].reading()
        if _several(clause, first, following[0]):
            return Reading(None, clause)
    return first.reading()


def _several(clause: str, first: _Run, second: _Run) -> bool:
    """Return whether two numbers of a clause are two answers, a range, a product or the parts of one quantity."""
    between, rest = clause[first.end : second.start], clause[second.end :]
    one, other = first.value, second.value
    if one is None or other is None or one in (other, 100 * other, other / 100):  # also `0.5 or 50%`
        return False
    if _RANGE.search(clause[: first.start]) or _OPERATION.fullmatch(between):
        return True
    if _LARGE_UNIT.fullmatch(between) and _SMALL_UNIT.match(rest):
        return True
    return bool(_ALTERNATIVE.fullmatch(between) and _END.match(rest))


def _read_sides(clause: str, runs: list[_Run]) -> Reading:
    """Read a chain of equalities: its last side that is a value, or the one before an approximation of it."""
    several = len(_ASSIGNMENT.findall(clause)) > 1 and _SEPARATOR.search(clause)
    if several and len({run.value for run in runs}) > 1:
        return Reading(None, clause)  # `x = 3 or x = 4`
    best: _Run | None = None
    start, exact = 0, True
    for relation in [*_RELATION.finditer(clause), None]:
        end = relation.start() if relation else len(clause)
        side = [run for run in runs if start <= run.start < end]
        if side and side[0].value is not None and (exact or best is None):
            if len(side) > 1 and _several(clause, side[0], side[1]):
                return Reading(None, clause)
            best = side[0]
        if relation:
            start, exact = relation.end(), relation[0] != "≈"
    return best.reading() if best is not None else Reading(None, clause)
