"""README and docs name only commands, options, make targets and links that exist; the licences are all there."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from fluxone.cli.main import COMMANDS, fluxone
from house.tree import ROOT, tracked

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMAND = re.compile(r"(?:^|[`$\s/])fluxone +(?!import)(?=[a-z-])([^`|#\n]+)")
MAKE = re.compile(r"(?:^|`|\$ )make ([a-z]+)")
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")


def quoted(page: Path) -> Iterator[tuple[int, str]]:
    """Lines of code blocks, and the code spans of the other lines."""
    block = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            block = not block
        elif block:
            yield number, line
        else:
            yield from ((number, span) for span in re.findall(r"`([^`]+)`", line))


def resolve(words: list[str]) -> click.Command | None:
    """The command that the words begin with, or None if there is no such command."""
    command: click.Command = fluxone
    for word in words:
        if not isinstance(command, click.Group) or word.startswith("-"):
            break
        names = COMMANDS if command is fluxone else command.commands
        if word not in names:
            return None
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


def faults(page: Path) -> list[str]:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    found = []
    for number, line in quoted(page):
        place = f"{page.name}:{number}"
        for tail in COMMAND.findall(line):
            words = tail.split()
            command = resolve(words)
            if command is None:
                found.append(f"{place}: there is no command fluxone {tail}")
                continue
            known = {option for parameter in command.params for option in parameter.opts} | {"--help", "--version"}
            unknown = [w for w in re.findall(r"(?<!\S)--?[a-z][a-z0-9-]*", tail) if w not in known]
            found += [f"{place}: {words[0]} has no option {option}" for option in unknown]
        found += [f"{place}: there is no make {name}" for name in MAKE.findall(line) if name not in targets]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_only_what_exists(page: Path) -> None:
    assert not faults(page), "\n".join(faults(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(re.sub(r"`[^`]*`", "", page.read_text(encoding="utf-8")))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_check_sees_what_does_not_exist(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`fluxone paint x` and\n```\n$ fluxone generate a --colour red\n```\n`make tea`, `make test`\n")
    assert faults(page) == [
        "page.md:1: there is no command fluxone paint x",
        "page.md:3: generate has no option --colour",
        "page.md:5: there is no make tea",
    ]


def test_readme_has_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert 'make image PROMPT="' in text
    assert "make test" in text


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [name for name in COMMANDS if f"fluxone {name}" not in text] == []


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    options = {
        option
        for name in COMMANDS
        for parameter in resolve([name]).params  # type: ignore[union-attr]
        for option in parameter.opts
        if option.startswith("--")
    }
    assert sorted(option for option in options if f"{option}" not in text) == []


def test_licences_are_there() -> None:
    licence, notice = (ROOT / "LICENSE").read_text("utf-8"), (ROOT / "NOTICE").read_text("utf-8")
    assert "Apache License" in licence
    assert "END OF TERMS AND CONDITIONS" in licence
    for words in ("SIL OPEN FONT LICENSE", "MIT License", "Microsoft", "Fredoka", "Baloo 2", "Titan One", "Nunito"):
        assert words in notice, words
    assert "Luckiest Guy" in notice


def test_the_wheel_holds_everything(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    source = ROOT / "src"
    wanted = {str(path.relative_to(source)) for path in tracked() if path.is_relative_to(source)}
    assert wanted <= held
    assert [name for name in held if name.endswith("licenses/NOTICE")]
