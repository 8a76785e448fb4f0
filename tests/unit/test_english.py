"""Phrases to avoid in docs, code and messages, and what to write instead.

A space in a pattern also matches a line break: in prose, in a comment, or between two parts of a string literal.
Patterns are case-sensitive.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]

COVERED: Final = (
    "*.md",
    "mkdocs.yml",
    "Makefile",
    "docs",
    "examples",
    "benchmarks",
    "scripts",
    "src",
    "tests",
)
"""Files and folders to check."""

SUFFIXES: Final = frozenset({".md", ".py", ".yml", ".yaml", ".toml", ""})


class Phrase(NamedTuple):
    """A phrase to avoid.

    Attributes:
        pattern: A regular expression for it.
        instead: What to write.
        wrong: A text that the pattern matches.
        right: A similar text that it must not match.
    """

    pattern: str
    instead: str
    wrong: str
    right: str


PHRASES: Final = (
    # Private vocabulary
    Phrase(r"(?<![A-Za-z])[Vv]erbs?(?![A-Za-z])", "method", "each verb; audio_verbs.py", "verbose, verbatim"),
    Phrase(r"[Cc]olour", "sync or async; of colors: color", "both colours", "colors"),
    Phrase(r"\b[Aa]waiting\b", "async; waiting for", "The same, awaiting.", "await it"),
    Phrase(r"\b(?:a?sync|asynchronous|blocking) twins?\b", "async version", "its async twin", "twin primes"),
    Phrase(r"\b[Tt]wins? that awaits?\b", "async version", "The twins that await", "two that await"),
    Phrase(r"\b(?:[Tt]he|[Uu]nchecked) doors?\b", "escape hatch: extra_body", "the doors", "outdoors"),
    Phrase(r"\bby heart\b", "memorized", "knows a dialogue by heart", "at the heart of"),
    # Of servers, models and responses
    Phrase(
        r"\b(?:[Ss]ervers?|vLLM|[Ee]ngines?|[Pp]roxy|[Pp]roxies) (?:tells?|told|said)\b",
        "reports; returns",
        "a server told its version",
        "the error tells you what to write",
    ),
    Phrase(r"\bthe server said\b", "the server returned", "what the server said", "the server returned"),
    Phrase(r"\b(?:says|said) no\b", "returns an error", "a server that says no", "it says nothing"),
    Phrase(
        r"\b[Mm]odels? that (?:hears?|sees?)\b",
        "speech model; vision model",
        "a model that hears",
        "a model that reads",
    ),
    Phrase(
        r"\bhow the model goes on\b",
        "the model's continuation",
        "gives how the model goes on",
        "the model goes on",
    ),
    Phrase(
        r"\b[Rr]outes of administration\b", "admin routes", "the routes of administration", "the admin routes"
    ),
    Phrase(
        r"\b(?:stood|stands?) in (?:its|the) environment\b",
        "was set in its environment",
        "only if X=1 stood in its environment",
        "is in its environment",
    ),
    Phrase(
        r"\b[Rr]equests? in work\b",
        "requests being processed",
        "how many requests in work",
        "requests in flight",
    ),
    Phrase(
        r"\bas far as (?:it has|they have) come\b",
        "so far",
        "the reply as far as it has come",
        "as far as possible",
    ),
    Phrase(
        r"\bc[ao]mes? to no answer\b",
        "ends without a reply",
        "a run that came to no answer",
        "no answer came",
    ),
    # Unidiomatic
    Phrase(r"\bwithout a word\b", "silently", "ignored without a word", "without an error"),
    Phrase(
        r"(?<!there )(?<!There )\bis no (?!longer\b|more\b|less\b|fewer\b|better\b|worse\b|different\b|other\b|one\b)",
        "is not a",
        "the answer is no JSON",
        "there is no model; it is no longer open",
    ),
    Phrase(
        r"(?<!there )(?<!There )\b(?:is|are) none\b",
        "say what it is; is not one of",
        "they are none",
        "there is none; x is None",
    ),
    Phrase(
        r"\bthat there (?:is|are) not\b",
        "unknown; that does not exist",
        "a tool that there is not",
        "that is not there",
    ),
    Phrase(r"\b[Aa]s of `", "see `x`", "The limits, as of `Timeout`.", "As of vLLM 0.12"),
    Phrase(r"\b[Bb]eside\b", "next to; alongside; in addition to", "prompts beside tokens", "besides"),
    Phrase(r"\btakes? besides\b", "also accepts", "What it takes besides", "Besides, it takes a list."),
    Phrase(
        r"\b(?:goes|go|went) before\b", "takes precedence over", "an argument goes before the default", "gone"
    ),
    Phrase(r"\bheld to\b", "constrained to", "a reply that is held to a schema", "held together"),
    Phrase(
        r"\b[Hh]olds? (?:it|them|nothing|the (?:arguments|completion|model|output|reply|response|text)|a model) to\b",
        "constrain ... to",
        "Hold the reply to a schema",
        "hold the lock",
    ),
    Phrase(
        r"(?<!onnection )\b(?:is|are) refused\b",
        "raises; is rejected",
        "a name that is refused",
        "if the connection is refused",
    ),
    Phrase(
        r"\bin the end, also\b", "even if", "it is closed in the end, also when you leave early", "in the end"
    ),
    Phrase(
        r"\balso (?:when|where|if) you leave\b", "even if you leave", "also when you leave early", "even if"
    ),
    Phrase(r"\bhardly to be\b", "unreliable", "hardly to be trusted", "hardly ever"),
    Phrase(r"\bgoodbye\b", "close_notify; closes the connection", "says goodbye and waits", "good"),
    Phrase(r"\bwell as one\b|\bit was well\b", "healthy", "it was well and served m", "it works well"),
    Phrase(
        r'"""Gives?\b',
        "Returns; Sends; Attaches",
        '"""Gives the reply.',
        '"""Returns the reply. Gives up after three.',
    ),
    # American spelling
    Phrase(r"\b[Mm]isspelt\b", "misspelled", "a misspelt name", "misspelled"),
    Phrase(r"[Bb]ehaviour", "behavior", "misbehaviour", "behavior"),
    Phrase(
        r"\b(?:[Rr]ecogni|[Ss]eriali|[Ii]nitiali|[Nn]ormali|[Ss]ummari|[Tt]okeni|[Oo]ptimi|[Aa]uthori)s(?:e|es|ed|ing)\b",
        "-ize",
        "serialised",
        "serialized",
    ),
)

QUOTED: Final = re.compile(
    r"^```text\n.*?^```$"  # program output
    r"|^ *#>.*?$"
    r"|^<!-- Generated by .*?: begin -->$.*?^<!-- Generated by .*?: end -->$"
    r"|^\| 0\..*?$",  # differences between versions
    re.MULTILINE | re.DOTALL,
)
"""Parts of a page that are copied from the source code or its output, and checked there."""

_SPACE: Final = re.compile(r"""(?:\s*["']\s*\n\s*[rf]*["']\s*|\s*\n\s*#\s*|\s+)""")
"""What may separate two words: white space, or a line break in a comment or a string literal."""

PATTERNS: Final = [(re.compile(phrase.pattern), phrase) for phrase in PHRASES]


def found(text: str) -> list[tuple[int, str, str]]:
    """Find phrases in a text: line number, the words found, what to write instead."""
    pieces = [""]
    starts, lines = [0], [1]  # offsets in the joined text, and the line numbers that begin there
    end = 0
    for match in _SPACE.finditer(text):
        pieces += [text[end : match.start()], " "]
        starts.append(starts[-1] + match.start() - end + 1)
        lines.append(lines[-1] + match[0].count("\n"))
        end = match.end()
    joined = "".join([*pieces, text[end:]])
    return [
        (lines[bisect_right(starts, match.start()) - 1], match[0], phrase.instead)
        for pattern, phrase in PATTERNS
        for match in pattern.finditer(joined)
    ]


def covered() -> list[Path]:
    files = set[Path]()
    for name in COVERED:
        for path in ROOT.glob(name):
            files.update(path.rglob("*") if path.is_dir() else [path])
    return sorted(
        path
        for path in files
        if path.is_file()
        and path.suffix in SUFFIXES
        and "__pycache__" not in path.parts
        and path != Path(__file__)
    )


def read(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":  # keep the line numbers
        text = QUOTED.sub(lambda match: "\n" * match[0].count("\n"), text)
    return text


@pytest.mark.parametrize("path", covered(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_listed_phrase_is_used(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    lines = [f"{name}:{line}: {words!r}: write {instead!r}" for line, words, instead in found(read(path))]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("phrase", PHRASES, ids=lambda phrase: phrase.wrong)
def test_each_pattern_matches_its_phrase_and_nothing_similar(phrase: Phrase) -> None:
    pattern = re.compile(phrase.pattern)
    assert pattern.search(phrase.wrong)
    assert not pattern.search(phrase.right)
    assert not pattern.search(phrase.instead)


@pytest.mark.parametrize(
    "text",
    [
        "ignored without\na word",
        "    # ignored without\n    # a word",
        '    "ignored without "\n    f"a word"',
        "ignored\nwithout  a word",
    ],
)
def test_a_phrase_is_found_across_lines(text: str) -> None:
    assert [words.split()[0] for _, words, _ in found(text)] == ["without"]


def test_quoted_parts_are_skipped_and_line_numbers_are_kept(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```text\nwithout a word\n```\n#> without a word\n\nwithout a word\n", encoding="utf-8")
    assert [line for line, _, _ in found(read(page))] == [6]
