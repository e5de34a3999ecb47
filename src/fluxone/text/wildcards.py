"""Prompts with choices: `a {red|blue} __animal__`, drawn by the picture's seed.

    {red|blue}    one of them, each as likely; they may be empty, and hold choices themselves
    __animal__    a line of FOLDER/animal.txt (`__zoo/animal__`: of FOLDER/zoo/animal.txt); blank lines and lines that
                  begin with # do not count, and a line may hold choices and wildcards itself

A backslash before a brace or a bar makes it the character itself. Braces without a bar are characters too, and so are
wildcards where no folder is given. All is drawn by the seed alone, from left to right, inner choices before outer ones,
and wildcards apart from choices: two prompts that begin with the same choices, such as those for T5 and for CLIP, draw
the same.
"""

from __future__ import annotations

import difflib
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from fluxone.errors import BadFile, BadRequest
from fluxone.request import MAX_PROMPT

WILDCARD = re.compile(r"__([A-Za-z0-9][\w-]*?(?:/[A-Za-z0-9][\w-]*?)*)__")
INNERMOST = re.compile(r"\{([^{}]*)\}")
DEEPEST = 20  # rounds: a file that names itself would never end
LONGEST = MAX_PROMPT  # characters
HIDDEN = {"\\{": "\ue000", "\\}": "\ue001", "\\|": "\ue002"}  # of no script: what is escaped, while choices are drawn
BRACES = {"{": "\ue003", "}": "\ue004"}  # braces without a bar, likewise


def drawn(prompt: str, seed: int, folder: str | None = None) -> str:
    """The prompt with its choices made.

    Args:
        folder: with the files of wildcards; None or empty leaves wildcards as they are.

    Raises:
        BadFile: there is no file for a wildcard, it cannot be read, or it has no line.
        BadRequest: the files name each other without end.
    """
    sources = {name: random.Random(f"{name} {seed}") for name in ("choices", "wildcards")}
    return _Draw(sources, Path(folder) if folder else None).of(prompt)


@dataclass
class _Draw:
    sources: dict[str, random.Random]
    folder: Path | None
    lines: dict[str, list[str]] = field(default_factory=dict)

    def of(self, prompt: str) -> str:
        text = prompt
        for plain, hidden in HIDDEN.items():
            text = text.replace(plain, hidden)
        for _ in range(DEEPEST):
            before = text
            if self.folder is not None:
                text = WILDCARD.sub(lambda found: self.one("wildcards", self.read(found[1])), text)
            while (after := INNERMOST.sub(self.choice, text)) != text:
                text = after
            if text == before:
                break
            if len(text) > LONGEST:
                raise BadRequest(f"wildcards make the prompt longer than {LONGEST} characters", hint="use fewer")
        else:
            raise BadRequest("the wildcards of a prompt never end", hint="a file of theirs names itself: change it")
        for plain, hidden in (*HIDDEN.items(), *BRACES.items()):
            text = text.replace(hidden, plain[-1])
        return text

    def choice(self, found: re.Match[str]) -> str:
        options = found[1].split("|")
        return self.one("choices", options) if len(options) > 1 else BRACES["{"] + found[1] + BRACES["}"]

    def one(self, source: str, options: list[str]) -> str:
        # Not `choice`: how that draws may change with Python's version, and pictures would.
        return options[int(self.sources[source].random() * len(options))]

    def read(self, name: str) -> list[str]:
        assert self.folder is not None
        if name not in self.lines:
            path = self.folder / f"{name}.txt"
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                raise BadFile(f"there is no file {path} for __{name}__", hint=self.hint(name)) from None
            except (OSError, UnicodeDecodeError) as error:
                raise BadFile(f"{path} cannot be read: {error}", hint="it should be a text file in UTF-8") from None
            rows = [line.strip() for line in text.splitlines()]
            self.lines[name] = [row for row in rows if row and not row.startswith("#")]
            if not self.lines[name]:
                raise BadFile(f"{path} has no line to choose", hint="write one choice a line")
        return self.lines[name]

    def hint(self, name: str) -> str:
        assert self.folder is not None
        there = sorted(path.relative_to(self.folder).with_suffix("").as_posix() for path in self.folder.rglob("*.txt"))
        near = difflib.get_close_matches(name, there, n=1)
        if near:
            return f"did you mean __{near[0]}__?"
        return f"there are: {', '.join(there[:8])}" if there else "the folder has no .txt file"
