"""What is shown around a line of code, and when the line stands alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepscope.store.records import SourceLine
from stepscope.viewer.excerpt import Excerpt, excerpt
from stepscope.viewer.views.code_line import code_line

PROGRAM = """import torch


class Net:
    def forward(self, x):
        if self.last:
            x = x.relu()
        return x
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    return path


def test_two_lines_before_and_after_without_their_indentation(program: Path) -> None:
    shown = excerpt(SourceLine(str(program), 7, "x = x.relu()", "forward"))
    assert shown == Excerpt("def forward(self, x):\n    if self.last:", "        x = x.relu()", "    return x")


def test_the_ends_of_a_file_and_empty_lines(program: Path) -> None:
    assert excerpt(SourceLine(str(program), 1, "import torch")) == Excerpt("", "import torch", "")
    assert excerpt(SourceLine(str(program), 4, "class Net:")).before == ""


@pytest.mark.parametrize(
    ("line", "text"), [(7, "x = x.tanh()"), (6, "x = x.relu()"), (90, "x = x.relu()"), (0, "import torch")]
)
def test_a_file_that_was_edited_since_is_not_quoted(program: Path, line: int, text: str) -> None:
    assert excerpt(SourceLine(str(program), line, text)) == Excerpt("", text, "")


def test_an_edit_is_seen_at_once(program: Path) -> None:
    line = SourceLine(str(program), 7, "x = x.relu()")
    assert excerpt(line).before
    program.write_text(PROGRAM.replace("relu", "tanh"))
    assert not excerpt(line).before


@pytest.mark.parametrize("name", ["", "<stdin>", "no/such/file.py", "a\0b.py", "/dev/zero", "/etc/passwd"])
def test_no_file_to_quote(name: str) -> None:
    assert excerpt(SourceLine(name, 1, "x = 1")) == Excerpt("", "x = 1", "")


def test_a_file_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "old.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\nprice = 3  # \xa3\ny = price\n")
    assert excerpt(SourceLine(str(path), 3, "y = price")).before.endswith("# \u00a3")
    path.write_bytes(b"price = 3  # \xa3\ny = price\n")
    assert excerpt(SourceLine(str(path), 2, "y = price")) == Excerpt("", "y = price", "")


def test_the_markup_has_the_line_alone_as_code(program: Path) -> None:
    found = code_line(SourceLine(str(program), 7, "x = x.relu()", "forward"))
    assert found is not None
    assert [part[0] for part in found[2:]] == ["button.place", "pre.near", "code", "pre.near"]
    alone = code_line(SourceLine("gone.py", 7, "x = x.relu()", "forward"))
    assert alone is not None and [part[0] for part in alone[2:]] == ["button.place", "code"]
