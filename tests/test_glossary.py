"""The glossary: plain technical English in every string, comment, document and name."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIPELINE = sorted((ROOT / "pipeline").rglob("*.py"))
CODE = [
    *PIPELINE,
    *(
        path
        for folder in ("served_image_classifier", "benchmarks", "docs")
        for path in (ROOT / folder).rglob("*.py")
    ),
]
TEMPLATES = ("*.j2", "*.js", "*.css")
TEXTS = [
    ROOT / "params.yaml",
    ROOT / "MLproject",
    ROOT / "conda.yaml",
    ROOT / "pyproject.toml",
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "benchmarks").glob("*.md"),
    *(path for pattern in TEMPLATES for path in (ROOT / "pipeline").rglob(pattern)),
]
UNITS = (
    "core|cell|class|worker|GPU|machine|second|minute|step|image|epoch|job|run|day|split|batch|thread|pixel"
    "|processor|finalist|command|module|line|file|folder"
)
# What is not written, by what is written in its place.
PHRASES = {
    "image": r"pictures?\b",
    "resume, resumes, is resumed": r"(go|goes|going|gone|went) on\b(?! (GPUs?|disk))",
    "read from, recognised by, not significantly worse than": r"told\b",
    "classify": r"(tell|tells|telling)\b[^.;]{0,60}? apart\b",
    "status": r"becomes? of\b",
    "score": r"what [^.;]{0,40}?\bworth\b|(is|are) worth\b",
    "composition": r"what (it|they|an? \w+|the \w+) (is|are) made of\b",
    "is in, is listed under": r"(stand|stands|stood|standing) (in|under|twice)\b(?! for)",
    "if present, if missing": r"where (there (is|are) (one|none)|(it|they|that) (is|are) (not )?there)\b",
    "parameters that … does not have": r"(mean|means|meant) nothing\b",
    "most confident errors": r"surest\b",
    "dtype policy": r"numbers that training computes with\b",
    "fix": r"(mend|mends|mended|mending)\b",
    "per": r"(one|two|three|\d[\d.,]*|[kMG]i?B|ms|s|bytes?|seconds?|process|figure|folder|kilobyte) "
    rf"an? ({UNITS})\b"
    r"|(once|twice|times?) an? (core|cell|worker|GPU|machine|run|epoch|step)\b",
}
# Names that are not given, whole or between underscores, by better ones.
WORDS = {
    "go_on": "resume",
    "settle": "sync",
    "judge": "report_epoch",
    "leave": "release",
    "opened": "open_dataset",
    "known": "existing",
    "told": "parsed",
    "begin": "configure",
    "choose": "configure",
    "calm": "silence",
    "Here": "InProcessExecutor",
    "OnCluster": "DaskExecutor",
    "PATIENCE": "DRIVER_TIMEOUT_SECONDS",
    "BUSY": "RETRY_INTERVAL_SECONDS",
    "ENOUGH": "MIN_SPEEDUP",
}


def prose(path: Path) -> str:
    """A file's words on one line: of code its strings and comments, of others everything."""
    text = path.read_text()
    if path.suffix == ".py":
        kinds = (tokenize.STRING, tokenize.COMMENT)
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        text = "\n".join(
            re.sub(r"^[rbuf]*['\"#]+|['\"]+$", "", token.string) for token in tokens if token.type in kinds
        )
    return re.sub(r"[\s#*]+", " ", text)


def forbidden_phrases(path: Path) -> Iterator[str]:
    """Each phrase of a file that the glossary replaces, with the words around it."""
    text = prose(path)
    for better, pattern in PHRASES.items():
        for match in re.finditer(rf"(?<![\w.-])(?:{pattern})", text, re.IGNORECASE):
            around = text[max(0, match.start() - 40) : match.end() + 30]
            yield f"{path.relative_to(ROOT)}: {match[0]!r} (write: {better}) in: …{around}…"


def names(path: Path) -> set[tuple[str, int]]:
    """Each name that a file defines or reads, with a line; keywords of a call are the callee's."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        for field in ("id", "attr", "arg", "name", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str) and not isinstance(node, ast.keyword | ast.alias):
                found.add((name, node.lineno))
    return found


def forbidden_names(path: Path) -> Iterator[str]:
    """Each name of a file that holds a word which the glossary replaces."""
    for name, line in sorted(names(path)):
        for word, better in WORDS.items():
            if f"_{word}_" in f"_{name}_":
                yield f"{path.relative_to(ROOT)}:{line}: {name} (rather: {better})"


@pytest.mark.parametrize("path", [*CODE, *TEXTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_text_keeps_the_glossary(path):
    assert not list(forbidden_phrases(path))


@pytest.mark.parametrize("path", PIPELINE, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_keep_the_glossary(path):
    assert not list(forbidden_names(path))


@pytest.mark.parametrize(
    "text",
    [
        "the pictures are read", "is gone on with", "the same command\ngoes on", "cannot be told from it",
        "tells cats and dogs apart", "what becomes of it", "what the maps are worth", "what it is made of",
        "stands in conda.yaml", "stands under a class", "Where there is one, it is", "mean nothing to it",
        "surest mistakes", "numbers that training computes with", "mend that", "one process a core",
        "2.1 MB a cell", "One a core", "# one\n# a core",
    ],
)  # fmt: skip
def test_a_phrase_is_found(tmp_path, monkeypatch, text):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "text.md").write_text(text)
    assert list(forbidden_phrases(tmp_path / "text.md"))
    (tmp_path / "code.py").write_text(f"value = '''{text}'''\n")
    assert list(forbidden_phrases(tmp_path / "code.py"))


def test_a_name_is_found(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    code = tmp_path / "code.py"
    code.write_text("def _judge(known, leave_it):\n    PATIENCE_SECONDS = tqdm(leave=patience).opened\n")
    found = {line.partition(": ")[2].split()[0] for line in forbidden_names(code)}
    assert found == {"_judge", "known", "leave_it", "PATIENCE_SECONDS", "opened"}
