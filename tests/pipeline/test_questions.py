"""The page of questions and errors has a row for each error message, and no row without one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("models", "components", "pipeline", "capsad")
ERRORS = {"UserError", "UnreadableError", "Refused"}
ERRORS |= {"ClickException", "UsageError", "BadParameter", "fail"}  # of click
GAP = "…"  # what differs from time to time
PAGE = (ROOT / "docs" / "questions.md").read_text(encoding="utf-8")


def text_of(node):
    """The text that an expression makes, with a gap for what only a run knows."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text_of(node.left) + text_of(node.right)
    return GAP


def flat(text):
    """A text as it is compared: one gap for several, single spaces, no back quotes."""
    return " ".join(re.sub(f"{GAP}+", GAP, text.replace("`", "")).split())


def found_in(root):
    """Place -> message of each error in the sources; and all their texts but docstrings."""
    messages, texts = {}, set()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        texts |= {flat(text_of(node)) for node in nodes if id(node) not in docstrings}
        for call in (node for node in nodes if isinstance(node, ast.Call) and node.args):
            message = flat(text_of(call.args[0]))
            name = getattr(call.func, "id", getattr(call.func, "attr", ""))
            if name in ERRORS and re.search(r"\w", message):  # and not only passed on
                messages[f"{path.relative_to(root)}:{call.lineno}"] = message
    return messages, texts


def opening(message):
    """The first clause of a message, and more where this is short."""
    for end in re.finditer(rf"[:;.](?= |{GAP}?$)", message):
        if len(re.findall(r"\w", message[: end.start()])) >= 12:
            return message[: end.start()]
    return re.sub(rf"\.{GAP}?$", "", message)


def tells(error, message):
    """Whether the error of a row is a message, or one that is passed on with a sentence more."""
    start = opening(message)
    more = re.fullmatch(f"{GAP} ([A-Z].*)", start)
    return error.startswith(start) or bool(more and error.endswith(more[1]))


def rows():
    """The cells of each row of the tables of errors."""
    lines = PAGE.partition("\n## Errors\n")[2].splitlines()
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| ")]
    return [list(map(flat, row)) for row in cells if row[0] != " error "]


def test_every_error_has_a_row():
    missing = [
        f"{place}: {message}"
        for place, message in found_in(ROOT)[0].items()
        if not any(tells(error, message) for error, _ in rows())
    ]
    assert not missing, "docs/questions.md lacks a row for\n" + "\n".join(missing)


def test_no_row_outlives_its_message():
    _, texts = found_in(ROOT)
    sentences = [sentence for error, _ in rows() for sentence in error.split(". ")]
    idle = [each for each in sentences if not any(each.rstrip(f" {GAP}") in text for text in texts)]
    assert not idle, "no source has what docs/questions.md says of\n" + "\n".join(idle)


def test_every_row_says_what_to_do_and_lines_are_short():
    assert len(rows()) > 100 and all(remedy.endswith(".") for _, remedy in rows())
    assert max(len(line) for line in PAGE.splitlines() if not line.startswith("|")) <= 120
