r"""Read the final answer of a completion: the last one that is marked as such, else the last number or letter.

The reading has three steps, each linear in the length of the text:

1. Find the marks (`Answer:`, `####`, `\boxed{}`, "the answer is"), unless the whole text is the answer.
2. From the last mark back, read the text behind each one. It gives one value; or it says something that is not one
   value (`5 or 6`, `3\pi`, "A and B"), which ends the search without an answer; or it gives none, and the mark before
   it counts.
3. Where nothing is marked, take the last number or letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, NamedTuple

from emoprobe.graders.answers import LETTERS, NUMBER_KINDS, TOKEN, canonical, number_value, plain

# How an answer was found: behind a mark or as the whole text, in a box, as the last number or letter, or not at all.
Extraction = Literal["marker", "boxed", "last_number", "letter", "none"]

# No answer needs more text than this behind its mark; with it, a text with many marks is read in linear time.
_WINDOW = 400
_FLAGS = re.IGNORECASE | re.VERBOSE

_EMPHASIS = re.compile(
    r"""
      (?<!\d)(?<!\d[ ])\*{2,3} | (?<=\d)\*{2,3}(?![ ]?[\d(])            # `**5**`, not `2 ** 3`
    | (?<![\w*)}\s])\*(?=[^\s*]) | (?<=[^\s*])\*(?![\w*({$\\])          # `*5*`, not `2 * 3`
    | (?:(?<=\s)|^)\*(?=[^\s*][^*\n]{0,200}\*(?!\w))
    | ` | (?<!\w)_+ | _+(?!\w)
    | </?(?:b|strong|i|em|u|p|span|br|div|mark|center|code)\b[^<>\n]{0,80}>
    """,
    _FLAGS,
)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(?:s|del|strike)>[^<\n]{1,200}</(?:s|del|strike)>")
# A dash with a space behind it is a sign where no number can come before it.
_SIGN = re.compile(
    r"""
    (?:(?P<before>[=:(\[{≈][ ]? | \b(?:is|equals|of|to|be|was)[ ])[ ]?(?:-[ ]|—[ ]?|minus[ ]) | \bnegative\s)(?=[\d.])
    """,
    _FLAGS,
)

_ADJECTIVES = r"(?:(?:final|correct|right|best|only|most\ likely)\s+)*"
_MARK = re.compile(
    rf"""
      (?P<box>\\(?:boxed|fbox)\s*(?=\{{) | \\boxed\s*(?=\d))
    | (?P<hashes>(?<!\#)\#{{4}}(?!\#)[ \t]*)
    | (?P<tag><answer>)
    # `Answer: 5`, `Final answer (in km) - 5`, `ANSWER = 5`; not `2 points/answer = 48`
    | (?P<colon>(?<!/)(?<!per[ ])\b
        (?:answers? | ans | (?:correct|right|best|final)\s+(?:option|choice|result|value|solution))
        ["']?\s{{0,3}}(?:\([^)\n]{{0,30}}\)\s?)?(?:[:=—→⇒]|-(?=\s)|(?<=\s)(?=-\d)))
    # a heading or a line that is only `Answer`
    | (?P<heading>(?:^|(?<=\n))[ \t\#>]*(?:the\s)?{_ADJECTIVES}answer[ \t]*(?=\n|\Z))
    # `The answer is 5`, `the final answer to the problem would be: 5`, `the correct option is C`
    | (?P<sentence>(?<!if[ ]the[ ])(?<!whether[ ]the[ ])\b
        (?:answer | (?:correct|right|best)\s+(?:option|choice|letter) | final\s+(?:result|value))\b[^\n.:=]{{0,60}}?\b
        (?:is|are|was|equals|(?:would|will|must|should|has[ ]to)[ ]be | (?:comes|turns)[ ](?:out[ ])?to(?:[ ]be)?)
        (?:\b|(?=n['’]t))\s?:?)
    """,
    _FLAGS,
)
# `42 is the final answer`, `option C is correct`: the answer comes before the mark.
_MARK_BEHIND = re.compile(
    rf"""
      (?P<value>(?<![\w.,])-?\d[\d,.]{{0,30}} | (?<![\w'’])\(?[A-Z]\)?)
        \s+(?:is|would[ ]be)\s+(?:the|my|our)\s+{_ADJECTIVES}(?:answer|option|choice)\b
    | \b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+(?P<letter>\(?[A-Z]\)?)\s+is\s+(?:the\s+)?(?:correct|right|best)\b
    | (?<![\w'’])(?<![Ii]f[ ])(?<!whether[ ])(?P<bare>\(?[A-Z]\)?)\s+is\s+correct\b
    """,
    re.VERBOSE,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s?(?=\{)")
_BRACES = re.compile("[{}]")
_BETWEEN_BOXES = re.compile(r"\{([^{}\n]{0,100})\}[\s$]*(?:,|,?\s*(?:or|and)\b)[\s$]*(?:[A-Za-z]\s?=[\s$]*)?")
# `A: 5` as the last line, the answer to a `Q:`
_LAST_LINE = re.compile(r"(?:^|\n)[ \t]*A:[ \t]*(?=[^\n]*\s*\Z)")
# Lines around a value that has a line to itself: fences, displays, rules and headers of tables.
_EMPTY_LINE = re.compile(r"[\s`$|:=~\[\](){}_*#>.-]*|```\w*")
_NEXT_QUESTION = re.compile(r"\n\s*\W{0,4}(?:Q|Question|Problem)(?:\s\d+)?\s?:")
# A sentence about the answer, not the answer: "the answer is rounded to 2 decimal places".
_REMARK = re.compile(
    r"""\s*(?:(?:yes|no)\b | (?:rounded|given|expressed|written|stated|shown|based|found|obtained|calculated|derived
    |reasonable|verified|correct|incorrect|wrong|the[ ]same[ ]as|in|above|below|consistent|close|less|more|greater
    |between|not)\b(?!.*(?:=|\b(?:which|to[ ]be|option|is|but)\b)))""",
    _FLAGS,
)
_CORRECTION = re.compile(
    r"""
    \b(?:(?:wait|sorry|oops|no|hmm|hold[ ]on)(?=\s*[,.!:;…—-]|\s+(?:wait|no|it|that|sorry|the[ ]answer|actually|i)\b)
      | actually | correction | i[ ]meant? | make[ ]that | scratch[ ]that | or[ ]rather | rather)\b
    [\s,:.!…—'’-]*(?:(?:no|wait|sorry|actually|it|it's|that|that's|s|should|must|would|be|is|was|the|final|correct|answer|i
      |mean|meant|make|to|say|option|choice|equals)\b[\s,:.!…—'’-]*){0,8}
    """,
    _FLAGS,
)
_CORRECTED = re.compile(r"(?:\s*[^\W\d_]+){0,2}\s*(?:[.!;)\n]|$)")

# What surrounds the number of an answer. These see at most _WINDOW characters.
_VARIABLE = re.compile(r"\W*[a-z]\W*")
_DIGIT = re.compile(r"\d")
_SENTENCE_END = re.compile(r"[.!?;](?:\s(?!\s?=)|$)|\n")
_ASIDE = re.compile(r"(?<![\d\w)(×*/+-])(?<![×*/+=-] )\([^()\n]{0,200}\)")
_BRACKET = re.compile(r"\s*[\[({<]\s*([^\[\](){}<>\n]{1,100}?)\s*[\])}>](?!\s*[-+*/×÷^=(])")
_LIST_ITEM = re.compile(r"\s*1[.)]\s+[^\W\d]")
_NUMBERED_HEADING = re.compile(r"\s*\d+[.)]\s+[^\W\d]")
_BULLET = re.compile(r"\s*(?:[-•>]\s+)+")
_ASSIGNED = re.compile(r"[^\d\n]{0,60}=[^\w\n]*$")
# What may come before the number of a line that is an answer by itself.
_LEAD = re.compile(
    r"""[^\w\n]*(?:(?:it[ ]is|it's|that[ ]is|it[ ]equals|about|approximately|approx|roughly|around|exactly|only|just
    |simply|[A-Za-z]\s?[=≈])[^\w\n]*){0,3}""",
    _FLAGS,
)
_UNITS = re.compile(r"[\s%]*(?:[^\W\d_]+[\s/]*){0,4}[\s\W]*")
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
_DENIED = re.compile(
    r"""(?:\bnot|n't|\bnever|\bcannot|\brather[ ]than|\binstead[ ]of)\s+
    (?:(?:be|equal[ ]to|exactly|just|only|the|option|choice|answer|more[ ]than|less[ ]than)\s+){0,4}\W?$""",
    _FLAGS,
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
    _FLAGS,
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

# What surrounds the letter of an answer.
_ONE_LETTER = re.compile(r"[\W_]*(?:(?:option|choice)\s+[\W_]*)?([A-Za-z])[\W_]*", re.IGNORECASE)
_MENTION = re.compile(
    r"""(?<![\w'’\\.-])(?P<open>[(\[{"“‘'<]*\s?)(?P<letter>[A-Za-z])
    (?:\s?[)\]}"”’'>]|[.:,;!?]|(?=\s|$|[-/&+=]))(?![A-Za-z0-9'’])""",
    re.VERBOSE,
)
_NAMED = re.compile(
    r"(?:\b(?:option|choice|letter|answer|choose|select|pick|is|be)|[:=])\s*(?:(?:option|choice|letter)\s+)?$",
    re.IGNORECASE,
)
_LETTER_LEAD = re.compile(
    r"""[\s\[\](){}<>"'“”‘’:.,$]*(?:(?:the|correct|best|right|most|likely|probably|clearly|definitely|indeed|option|choice
    |letter|answer|is|it)\b[\s:]*){0,6}[\s\[({<"'“‘]*""",
    _FLAGS,
)
# Words after a letter which show that it is no article (`A dog`) and no pronoun (`I think`).
_NO_NOUN = re.compile(
    r"""\s+(?:is|was|are|because|since|as|for|and|or|which|that|would|will|must|should|seems|looks|due|given|with|not|but
    |here|in|by|represents|describes|states|says|does|can|the)\b""",
    re.VERBOSE,
)
_JOINED = re.compile(
    r"""[)\]}"'”’>]*\s*(?:,\s*(?:and|or)\s|,|/|&|\+|\band\b|\bor\b)\s*(?:(?:option|choice|maybe|perhaps|possibly)\s+)?
    [(\[{"']*(?P<letter>[A-Z])(?![\w'’])(?!\s+[a-z]{2,})""",
    re.VERBOSE,
)
_CORRECTED_LETTER = re.compile(r"[(\[\"']*([A-Z])[)\]\"']*(?=[.,!;\s]|$)(?!\s+[a-z])")
_LOOSE_LETTER = re.compile(
    r"""\((?P<bracketed>[A-Z])\)
    | \b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Cc]hoose|[Ss]elect|[Pp]ick)\s+(?P<named>[A-Z])\b(?!\s+[a-z])""",
    re.VERBOSE,
)
_LETTER_OF_LINE = re.compile(r"\s*([A-Z])(?:[.):]|\s*$)")
_ARTICLE = re.compile(r"^(?:the|an?)\s+")


class Extracted(NamedTuple):
    """An answer: its value (a number or a letter; None: there is none), its text, and how it was found."""

    value: Fraction | str | None
    text: str | None
    extraction: Extraction

    @property
    def notation(self) -> str | None:
        """The value as files and tables have it: a number in its shortest exact notation, or the letter."""
        return canonical(self.value) if isinstance(self.value, Fraction) else self.value


_NOTHING = Extracted(None, None, "none")


class _Reading(NamedTuple):
    """One value and its text; without a value: an answer that is not one value."""

    value: Fraction | str | None
    text: str


# Returns None for a text that holds no answer.
_Reader = Callable[[str], _Reading | None]


class _Candidate(NamedTuple):
    """The text that belongs to a mark, and the place where it begins."""

    kind: str
    rest: str
    start: int
    # Whether that text comes on a later line than the mark, and whether that line is the last one.
    later_line: bool = False
    last_line: bool = False


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
        return _value(self.numbers[0]) if len(self.numbers) == 1 and not self.operators and not self.symbols else None

    def reading(self) -> _Reading:
        return _Reading(self.value, self.numbers[0][0])


def extract_number(text: str) -> Extracted:
    """Return the final answer of a text as an exact number."""
    text = _prepared(text)
    if (marked := _marked(text, _read_number, letters=False)) is not None:
        return marked
    for run in reversed(_runs(text)):
        value = None if run.symbols or _is_aside(text, run) else _value(run.numbers[-1])
        if value is not None:
            return Extracted(value, run.numbers[-1][0], "last_number")
    return _NOTHING


def extract_letter(text: str, choices: list[str] | None = None) -> Extracted:
    """Return the final answer of a text as the letter of an option; the text of an option counts as well.

    Without `choices`, every letter may be one.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    options = [_spelled(plain(choice)) for choice in choices or []]
    text = _prepared(text)

    def read(rest: str) -> _Reading | None:
        return _read_letter(rest, letters, options)

    if (marked := _marked(text, read, letters=True)) is not None:
        return marked
    last_line = text.strip().rpartition("\n")[2]
    loose = [match["bracketed"] or match["named"] for match in _LOOSE_LETTER.finditer(text)]
    if match := _LETTER_OF_LINE.match(last_line):
        loose.append(match[1])
    loose = [letter for letter in loose if letter in letters]
    letter = loose[-1] if loose else _contained(last_line[-_WINDOW:], letters, options)
    return Extracted(letter, letter, "letter") if letter else _NOTHING


def _prepared(text: str) -> str:
    """A completion in plain notation, without emphasis and with its signs next to their numbers."""
    text = plain(_EMPHASIS.sub("", _STRUCK.sub(" ", text)))
    return _SIGN.sub(lambda match: (match["before"] or "") + "-", text)


def _marked(text: str, read: _Reader, *, letters: bool) -> Extracted | None:
    """The last marked answer of a text, `_NOTHING` where that is not one value; None where nothing is marked."""
    question = _NEXT_QUESTION.search(text)
    if question is not None and text[: question.start()].strip():
        # A model that goes on with a question of its own has answered ours before.
        text_before = text[: question.start()]
        if (answer := _last_marked(text_before, read, letters=letters)) is not None:
            return answer
    return _last_marked(text, read, letters=letters)


def _last_marked(text: str, read: _Reader, *, letters: bool) -> Extracted | None:
    if (whole := _whole(text, read, letters=letters)) is not None:
        return whole
    for candidate in _candidates(text, letters=letters):
        reading = _read_candidate(candidate, read, letters=letters)
        if reading is not None and reading.value is None:
            return _NOTHING
        if reading is not None:
            value, literal = _corrected(text[candidate.start :], letters=letters) or reading
            return Extracted(value, literal, "boxed" if candidate.kind == "box" else "marker")
    return None


def _whole(text: str, read: _Reader, *, letters: bool) -> Extracted | None:
    """The answer of a text that is nothing else: `7`, `$7$`, `7 apples.`, `(B)`, `B. Rome`."""
    text = text.strip()
    lines = [line for line in text[:_WINDOW].split("\n") if not _EMPTY_LINE.fullmatch(line)]
    if len(text) > _WINDOW or len(lines) != 1:
        return None
    line = lines[0].strip()
    if (reading := read(line)) is None or reading.value is None:
        return None
    if letters:
        alone = bool(_ONE_LETTER.fullmatch(line)) or reading.text == _OPTION
    else:
        before, _, after = line.partition(reading.text)
        alone = "=" not in after and bool(_LEAD.fullmatch(before) and _UNITS.fullmatch(after))
    return Extracted(reading.value, line, "marker") if alone else None


def _candidates(text: str, *, letters: bool) -> Iterator[_Candidate]:
    """The text that belongs to every mark, the last mark first."""
    marks = [(match.start(), match.end(), match.lastgroup or "", "") for match in _MARK.finditer(text)]
    for match in _MARK_BEHIND.finditer(text):
        value = match["value"] or match["letter"] or match["bare"]
        if letters or value[0] in "-0123456789":
            marks.append((match.start(), match.end(), "behind", value))
    tail = max(0, len(text) - _WINDOW)
    if last_line := _LAST_LINE.search(text[tail:]):
        marks.append((tail + last_line.start(), tail + last_line.end(), "line", ""))
    marks.sort(reverse=True)
    limit = len(text)
    for index, (start, end, kind, value) in enumerate(marks):
        if kind == "behind":
            yield _Candidate(kind, value, end)
        elif kind == "box":
            content = _braced(text, end)
            before = marks[index + 1] if index + 1 < len(marks) else (0, 0, "", "")
            if before[2] == "box" and (other := _BETWEEN_BOXES.fullmatch(text, before[1], start)):
                content = f"{other[1]} or {content}"
            yield _Candidate(kind, content, end)
        else:
            yield _behind(text, kind, end, max(end, limit))
        limit = start


def _behind(text: str, kind: str, start: int, limit: int) -> _Candidate:
    """The text behind a mark on its line, up to the next mark; where that is nothing, the next line that has text."""
    window = min(limit, start + _WINDOW)
    if kind == "tag":
        return _Candidate(kind, text[start:window].partition("</answer>")[0].strip(), start)
    end = text.find("\n", start, window)
    rest = text[start : end if end >= 0 else window]
    if end < 0 or not _EMPTY_LINE.fullmatch(rest):
        return _Candidate(kind, rest, start)
    for _ in range(8):
        start, end = end + 1, text.find("\n", end + 1, end + 1 + _WINDOW)
        rest = text[start : end if end >= 0 else start + _WINDOW]
        if end < 0 or not _EMPTY_LINE.fullmatch(rest):
            break
    last = end < 0 or not text[end : end + _WINDOW].strip()
    return _Candidate(kind, rest, start, later_line=True, last_line=last)


def _braced(text: str, start: int) -> str:
    """The text between the brace at `start` and the one that closes it, or the number there."""
    if text[start : start + 1] != "{":
        return text[start : start + 40].partition("\n")[0]
    depth = 0
    for brace in _BRACES.finditer(text, start, start + _WINDOW):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start + 1 : brace.start()]
    return text[start + 1 : start + _WINDOW].partition("\n")[0]


def _read_candidate(candidate: _Candidate, read: _Reader, *, letters: bool) -> _Reading | None:
    rest = candidate.rest
    if candidate.later_line:
        rest = _BULLET.sub("", rest, count=1) if _BULLET.match(rest) else rest
    if "\\" in rest and (box := _BOX.search(rest)):
        rest = _braced(rest, box.end())
    if candidate.kind == "sentence" and _REMARK.match(rest):
        return None
    reading = read(rest)
    if reading is None:
        return None
    if letters:
        # `A: Rome` may be the first option.
        return reading if candidate.kind != "line" or _MENTION.match(rest) else None
    if (candidate.later_line or candidate.kind == "hashes") and not _is_answer(rest, candidate):
        return None
    return reading


def _is_answer(line: str, candidate: _Candidate) -> bool:
    """Return whether a line begins with its number, or is the last one and has one number or result."""
    runs = _runs(line)
    if _LIST_ITEM.match(line) or (candidate.kind == "hashes" and _NUMBERED_HEADING.match(line)):
        return False
    if not runs or _LEAD.fullmatch(line[: runs[0].start]) or _ASSIGNED.match(line[: runs[0].start]):
        return True
    return candidate.last_line and candidate.kind != "hashes" and (len(runs) == 1 or "=" in line)


def _corrected(after: str, *, letters: bool) -> tuple[Fraction | str, str] | None:
    """The value that a correction behind an answer puts in its place: `Answer: 5. No, wait, 6`."""
    answer: tuple[Fraction | str, str] | None = None
    for match in _CORRECTION.finditer(after):
        rest = after[match.end() : match.end() + 80]
        if letters:
            if letter := _CORRECTED_LETTER.match(rest):
                answer = (letter[1], letter[1])
        elif number := _corrected_number(rest):
            answer = number
    return answer


def _corrected_number(rest: str) -> tuple[Fraction, str] | None:
    """The number that a correction consists of; None where more is said of it than a unit."""
    runs = _runs(rest)
    if not runs or rest[: runs[0].start].strip("( ") or not _CORRECTED.match(rest, runs[0].end):
        return None
    value = runs[0].value
    return None if value is None else (value, runs[0].numbers[0][0])


def _runs(text: str) -> list[_Run]:
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


def _value(token: re.Match[str]) -> Fraction | None:
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


def _is_aside(text: str, run: _Run) -> bool:
    """Return whether a run is no candidate for an answer: denied, the number of a step, or a number of digits."""
    before = text[max(0, run.start - 30) : run.start]
    return bool(_DENIED.search(before) or _REFERENCE.search(before) or _PRECISION.match(text, run.end))


def _read_number(rest: str) -> _Reading | None:
    """Read the text of an answer; see the module's docstring for the three outcomes."""
    if not _DIGIT.search(rest):
        # No number: another value, such as `x` or `\\pi`, or a word, which is none.
        return _Reading(None, rest) if "\\" in rest or _VARIABLE.fullmatch(rest) else None
    if (bracket := _BRACKET.match(rest)) and _runs(bracket[1]) and "=" not in _ASIDE.sub("", rest[bracket.end() :]):
        rest = bracket[1]
    # The answer is in the first sentence that has a number, outside of remarks in brackets.
    for clause in (*_SENTENCE_END.split(_ASIDE.sub(" ", rest)), rest):
        runs = [run for run in _runs(clause) if not _is_aside(clause, run)]
        if runs:
            return _read_clause(clause, runs)
    return None


def _read_clause(clause: str, runs: list[_Run]) -> _Reading:
    if _INEQUALITY.search(clause) or _INEQUALITY.search(clause[: runs[0].start]):
        return _Reading(None, clause)
    if _RELATION.search(clause):
        return _read_sides(clause, runs)
    first = runs[0]
    if len(runs) > 1 and not _LEAD.fullmatch(clause[: first.start]):
        # A sentence: its number is the one behind its last verb.
        spoken = [run for run in runs if _VERB.search(clause[max(0, run.start - 40) : run.start])]
        first = spoken[-1] if spoken else first
    following = runs[runs.index(first) + 1 :]
    results = [run for run in following if _RESULT.search(clause[max(0, run.start - 40) : run.start])]
    if first.value is None:
        return results[-1].reading() if results and not first.symbols else _Reading(None, clause)
    if following:
        operands = _OPERANDS.fullmatch(clause[first.end : following[0].start])
        if operands and results and results[-1] is not following[0]:
            return results[-1].reading()
        if _several(clause, first, following[0]):
            return _Reading(None, clause)
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


def _read_sides(clause: str, runs: list[_Run]) -> _Reading:
    """Read a chain of equalities: its last side that is a value, or the one before an approximation of it."""
    several = len(_ASSIGNMENT.findall(clause)) > 1 and _SEPARATOR.search(clause)
    if several and len({run.value for run in runs}) > 1:
        return _Reading(None, clause)  # `x = 3 or x = 4`
    best: _Run | None = None
    start, exact = 0, True
    for relation in [*_RELATION.finditer(clause), None]:
        end = relation.start() if relation else len(clause)
        side = [run for run in runs if start <= run.start < end]
        if side and side[0].value is not None and (exact or best is None):
            if len(side) > 1 and _several(clause, side[0], side[1]):
                return _Reading(None, clause)
            best = side[0]
        if relation:
            start, exact = relation.end(), relation[0] != "≈"
    return best.reading() if best is not None else _Reading(None, clause)


# The text of the reading of an answer that is a whole option.
_OPTION = "option"


def _read_letter(rest: str, letters: str, options: list[str]) -> _Reading | None:
    """Read the text of an answer as the letter of an option."""
    clause = rest.strip()
    alone = _ONE_LETTER.fullmatch(clause)
    if alone and alone[1].upper() in letters:
        return _Reading(alone[1].upper(), clause)
    spelled = [letter for letter, option in zip(letters, options, strict=False) if option == _spelled(clause)]
    if len(spelled) == 1:
        return _Reading(spelled[0], _OPTION)
    mentions = [match for match in _MENTION.finditer(clause) if _is_letter(clause, match, letters, options)]
    if not mentions:
        contained = _contained(_SENTENCE_END.split(clause)[0], letters, options)
        return _Reading(contained, clause) if contained else None
    first = mentions[0]
    leads = _LETTER_LEAD.fullmatch(clause[: first.start()]) is not None
    named = [match for match in mentions if match["open"].strip() or _NAMED.search(clause[: match.start()])]
    if named and not leads:
        first = named[-1]
    letter, after = first["letter"].upper(), clause[first.end("letter") :]
    option = options[letters.index(letter)] if options else None
    if leads and option in (_spelled(after), _spelled(re.split("[,;]", after.lstrip(" ,.:)"))[0])):
        return _Reading(letter, _OPTION)
    joined = _JOINED.match(after)
    if joined and joined["letter"] in letters and joined["letter"] != letter:
        return _Reading(None, clause)
    return _Reading(letter, clause)


def _is_letter(clause: str, match: re.Match[str], letters: str, options: list[str]) -> bool:
    """Return whether a single letter of an answer's text names an option, and is no word, unit or denied option."""
    letter, before, after = match["letter"], clause[: match.start()], clause[match.end("letter") :]
    if letter.upper() not in letters or _DENIED.search(before[-_WINDOW // 8 :]):
        return False
    enclosed = bool(match["open"].strip()) and after.lstrip()[:1] in set(")]}\"”’'>.")
    leads = _LETTER_LEAD.fullmatch(before) is not None
    if letter.islower():
        return enclosed or (leads and re.match(r"[).:]|$", after) is not None)
    if options and leads and options[letters.index(letter)] == _spelled(_SENTENCE_END.split(after.lstrip(" .,:)"))[0]):
        return True
    # `A dog` and `I think` begin with a word, `B dog` with a letter.
    return letter not in "AI" or enclosed or not re.match(r"\s+\w", after) or _NO_NOUN.match(after) is not None


def _contained(text: str, letters: str, options: list[str]) -> str | None:
    """The letter of the one option whose text is part of a text; options within others do not count beside them."""
    text = text.casefold()
    matches = [
        (letter, option)
        for letter, option in zip(letters, options, strict=False)
        if option and re.search(rf"(?<!\w)(?<!\bnot ){re.escape(option)}(?![\w.]?\w)", text)
    ]
    matches = [pair for pair in matches if not any(pair[1] != option and pair[1] in option for _, option in matches)]
    return matches[0][0] if len(matches) == 1 else None


def _spelled(text: str) -> str:
    """The words of an option, without what may surround them."""
    return _ARTICLE.sub("", text.strip(" \t\n.,:;!?\"'“”‘’()[]{}$").casefold())
