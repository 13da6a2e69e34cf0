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
from fractions import Fraction
from typing import Literal, NamedTuple

from emoprobe.graders.answers import LETTERS, canonical, plain
from emoprobe.graders.letter_reading import (
    MENTION,
    ONE_LETTER,
    WHOLE_OPTION,
    contained_option,
    read_letter,
    spelled_option,
)
from emoprobe.graders.number_reading import LEAD, find_runs, is_aside, read_number, token_value
from emoprobe.graders.reading import FLAGS, WINDOW, Reading

# How an answer was found: behind a mark or as the whole text, in a box, as the last number or letter, or not at all.
Extraction = Literal["marker", "boxed", "last_number", "letter", "none"]
_EMPHASIS = re.compile(
    r"""
      (?<!\d)(?<!\d[ ])\*{2,3} | (?<=\d)\*{2,3}(?![ ]?[\d(])            # `**5**`, not `2 ** 3`
    | (?<![\w*)}\s])\*(?=[^\s*]) | (?<=[^\s*])\*(?![\w*({$\\])          # `*5*`, not `2 * 3`
    | (?:(?<=\s)|^)\*(?=[^\s*][^*\n]{0,200}\*(?!\w))
    | ` | (?<!\w)_+ | _+(?!\w)
    | </?(?:b|strong|i|em|u|p|span|br|div|mark|center|code)\b[^<>\n]{0,80}>
    """,
    FLAGS,
)
_STRUCK = re.compile(r"~~[^~\n]{1,200}~~|<(?:s|del|strike)>[^<\n]{1,200}</(?:s|del|strike)>")
# A dash with a space behind it is a sign where no number can come before it.
_SIGN = re.compile(
    r"""
    (?:(?P<before>[=:(\[{≈][ ]? | \b(?:is|equals|of|to|be|was)[ ])[ ]?(?:-[ ]|—[ ]?|minus[ ]) | \bnegative\s)(?=[\d.])
    """,
    FLAGS,
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
    FLAGS,
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
    FLAGS,
)
_CORRECTION = re.compile(
    r"""
    \b(?:(?:wait|sorry|oops|no|hmm|hold[ ]on)(?=\s*[,.!:;…—-]|\s+(?:wait|no|it|that|sorry|the[ ]answer|actually|i)\b)
      | actually | correction | i[ ]meant? | make[ ]that | scratch[ ]that | or[ ]rather | rather)\b
    [\s,:.!…—'’-]*(?:(?:no|wait|sorry|actually|it|it's|that|that's|s|should|must|would|be|is|was|the|final|correct|answer|i
      |mean|meant|make|to|say|option|choice|equals)\b[\s,:.!…—'’-]*){0,8}
    """,
    FLAGS,
)
_CORRECTED = re.compile(r"(?:\s*[^\W\d_]+){0,2}\s*(?:[.!;)\n]|$)")
_LIST_ITEM = re.compile(r"\s*1[.)]\s+[^\W\d]")
_NUMBERED_HEADING = re.compile(r"\s*\d+[.)]\s+[^\W\d]")
_BULLET = re.compile(r"\s*(?:[-•>]\s+)+")
_ASSIGNED = re.compile(r"[^\d\n]{0,60}=[^\w\n]*$")
_UNITS = re.compile(r"[\s%]*(?:[^\W\d_]+[\s/]*){0,4}[\s\W]*")
_CORRECTED_LETTER = re.compile(r"[(\[\"']*([A-Z])[)\]\"']*(?=[.,!;\s]|$)(?!\s+[a-z])")
_LOOSE_LETTER = re.compile(
    r"""\((?P<bracketed>[A-Z])\)
    | \b(?:[Oo]ption|[Cc]hoice|[Aa]nswer|[Cc]hoose|[Ss]elect|[Pp]ick)\s+(?P<named>[A-Z])\b(?!\s+[a-z])""",
    re.VERBOSE,
)
_LETTER_OF_LINE = re.compile(r"\s*([A-Z])(?:[.):]|\s*$)")


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
# Returns None for a text that holds no answer.
_Reader = Callable[[str], Reading | None]


class _Candidate(NamedTuple):
    """The text that belongs to a mark, and the place where it begins."""

    kind: str
    rest: str
    start: int
    # Whether that text comes on a later line than the mark, and whether that line is the last one.
    later_line: bool = False
    last_line: bool = False


def extract_number(text: str) -> Extracted:
    """Return the final answer of a text as an exact number."""
    text = _prepared(text)
    if (marked := _marked(text, read_number, letters=False)) is not None:
        return marked
    for run in reversed(find_runs(text)):
        value = None if run.symbols or is_aside(text, run) else token_value(run.numbers[-1])
        if value is not None:
            return Extracted(value, run.numbers[-1][0], "last_number")
    return _NOTHING


def extract_letter(text: str, choices: list[str] | None = None) -> Extracted:
    """Return the final answer of a text as the letter of an option; the text of an option counts as well.

    Without `choices`, every letter may be one.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    options = [spelled_option(plain(choice)) for choice in choices or []]
    text = _prepared(text)

    def read(rest: str) -> Reading | None:
        return read_letter(rest, letters, options)

    if (marked := _marked(text, read, letters=True)) is not None:
        return marked
    last_line = text.strip().rpartition("\n")[2]
    loose = [match["bracketed"] or match["named"] for match in _LOOSE_LETTER.finditer(text)]
    if match := _LETTER_OF_LINE.match(last_line):
        loose.append(match[1])
    loose = [letter for letter in loose if letter in letters]
    letter = loose[-1] if loose else contained_option(last_line[-WINDOW:], letters, options)
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
    lines = [line for line in text[:WINDOW].split("\n") if not _EMPTY_LINE.fullmatch(line)]
    if len(text) > WINDOW or len(lines) != 1:
        return None
    line = lines[0].strip()
    if (reading := read(line)) is None or reading.value is None:
        return None
    if letters:
        alone = bool(ONE_LETTER.fullmatch(line)) or reading.text == WHOLE_OPTION
    else:
        before, _, after = line.partition(reading.text)
        alone = "=" not in after and bool(LEAD.fullmatch(before) and _UNITS.fullmatch(after))
    return Extracted(reading.value, line, "marker") if alone else None


def _candidates(text: str, *, letters: bool) -> Iterator[_Candidate]:
    """The text that belongs to every mark, the last mark first."""
    marks = [(match.start(), match.end(), match.lastgroup or "", "") for match in _MARK.finditer(text)]
    for match in _MARK_BEHIND.finditer(text):
        value = match["value"] or match["letter"] or match["bare"]
        if letters or value[0] in "-0123456789":
            marks.append((match.start(), match.end(), "behind", value))
    tail = max(0, len(text) - WINDOW)
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
    window = min(limit, start + WINDOW)
    if kind == "tag":
        return _Candidate(kind, text[start:window].partition("</answer>")[0].strip(), start)
    end = text.find("\n", start, window)
    rest = text[start : end if end >= 0 else window]
    if end < 0 or not _EMPTY_LINE.fullmatch(rest):
        return _Candidate(kind, rest, start)
    for _ in range(8):
        start, end = end + 1, text.find("\n", end + 1, end + 1 + WINDOW)
        rest = text[start : end if end >= 0 else start + WINDOW]
        if end < 0 or not _EMPTY_LINE.fullmatch(rest):
            break
    last = end < 0 or not text[end : end + WINDOW].strip()
    return _Candidate(kind, rest, start, later_line=True, last_line=last)


def _braced(text: str, start: int) -> str:
    """The text between the brace at `start` and the one that closes it, or the number there."""
    if text[start : start + 1] != "{":
        return text[start : start + 40].partition("\n")[0]
    depth = 0
    for brace in _BRACES.finditer(text, start, start + WINDOW):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start + 1 : brace.start()]
    return text[start + 1 : start + WINDOW].partition("\n")[0]


def _read_candidate(candidate: _Candidate, read: _Reader, *, letters: bool) -> Reading | None:
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
        return reading if candidate.kind != "line" or MENTION.match(rest) else None
    if (candidate.later_line or candidate.kind == "hashes") and not _is_answer(rest, candidate):
        return None
    return reading


def _is_answer(line: str, candidate: _Candidate) -> bool:
    """Return whether a line begins with its number, or is the last one and has one number or result."""
    runs = find_runs(line)
    if _LIST_ITEM.match(line) or (candidate.kind == "hashes" and _NUMBERED_HEADING.match(line)):
        return False
    if not runs or LEAD.fullmatch(line[: runs[0].start]) or _ASSIGNED.match(line[: runs[0].start]):
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
    runs = find_runs(rest)
    if not runs or rest[: runs[0].start].strip("( ") or not _CORRECTED.match(rest, runs[0].end):
        return None
    value = runs[0].value
    return None if value is None else (value, runs[0].numbers[0][0])
