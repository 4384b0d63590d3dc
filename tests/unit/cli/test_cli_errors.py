"""How errors look and which exit code they give: one table, in both languages."""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path
from typing import Final

import pytest
import typer

from kakoi.cli.i18n import catalogue
from kakoi.cli.ui import errors_as_exit_codes
from kakoi.core.errors import Fatal, KakoiError, Malformed, Misuse, Refused, Unavailable, cannot_open
from support.command_line import ERROR_LINE, HINT_LINE, runner

FAMILIES: Final = {Misuse: 2, Malformed: 3, Refused: 4, Unavailable: 5, Fatal: 6}
LABELS: Final = {"en": ("error:", "hint:"), "ja": ("エラー:", "ヒント:")}
KNOWN: Final = {
    Misuse: "party.missing",
    Malformed: "encoding.json",
    Refused: "contract.expired",
    Unavailable: "disk.full",
    Fatal: "ledger.chain",
}


def shown(error: KakoiError, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    with pytest.raises(typer.Exit) as ended, errors_as_exit_codes():
        raise error
    said = capsys.readouterr()
    assert said.out == "", "errors go to standard error"
    return ended.value.exit_code, said.err.splitlines()


def test_the_table_is_whole() -> None:
    assert set(FAMILIES) == set(KakoiError.__subclasses__()) | {Fatal}
    assert {cls: cls.exit_code for cls in FAMILIES} == FAMILIES


@pytest.mark.parametrize("language", LABELS)
@pytest.mark.parametrize("family", FAMILIES, ids=lambda cls: cls.__name__)
def test_form_and_exit_code(
    family: type[KakoiError], language: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAKOI_LANG", language)
    code, lines = shown(family(KNOWN[family], "expected one thing, got another", hint="do the first"), capsys)
    assert code == FAMILIES[family]
    assert len(lines) == 2
    first, second = ERROR_LINE.match(lines[0]), HINT_LINE.match(lines[1])
    assert first is not None
    assert second is not None
    assert (first[1], second[1]) == LABELS[language]
    assert first["code"] == KNOWN[family]
    assert "expected one thing, got another" in first["message"], "the English detail follows the Japanese sentence"
    if language == "ja":
        japanese = catalogue("errors.ja")
        assert first["message"].startswith(japanese[f"{KNOWN[family]}.message"])
        assert second["hint"] == japanese[f"{KNOWN[family]}.hint"]
    else:
        assert lines == [f"error: expected one thing, got another [{KNOWN[family]}]", "hint: do the first"]


@pytest.mark.parametrize("language", LABELS)
def test_without_a_hint_there_is_one_line(
    language: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAKOI_LANG", language)
    _, lines = shown(Refused("nobody.knows", "expected this, got that"), capsys)
    assert lines == [f"{LABELS[language][0]} expected this, got that [nobody.knows]"]


def test_long_messages_stay_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever searches a log for a code finds it beside its message."""
    _, lines = shown(Refused("a.code", "expected " + "x" * 500 + ", got none"), capsys)
    assert len(lines) == 1


def test_brackets_in_messages_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Markup of the console in somebody else's text is shown, not obeyed: it could hide what follows."""
    _, lines = shown(Refused("a.code", "expected [red]x[/red], got [conceal]y", hint="see [link=http://x]here"), capsys)
    assert lines == ["error: expected [red]x[/red], got [conceal]y [a.code]", "hint: see [link=http://x]here"]


def test_secret_dependent_failures_look_alike(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(cannot_open(), capsys) == shown(cannot_open(), capsys)


def test_interrupted_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, errors_as_exit_codes():
        raise KeyboardInterrupt
    assert ended.value.exit_code == 130
    assert capsys.readouterr().err == ""


def test_bugs_keep_their_traceback() -> None:
    """What is no error of ours is a bug, and must not be dressed up as a mistake of the user's."""
    with pytest.raises(ZeroDivisionError), errors_as_exit_codes():
        raise ZeroDivisionError


@pytest.mark.parametrize("language", LABELS)
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["nonsense"], "'nonsense'"),
        (["party", "nonsense"], "'nonsense'"),
        (["verify"], "'file'"),
        (["run", "a"], "'analysis'"),
        (["verify", "x", "--nonsense"], "--nonsense"),
        (["verify", "x", "y"], "y"),
        (["hub", "serve", "--directory", "x", "--port", "many"], "--port"),
        (["enclave", "serve", "--claim-seconds", "1"], "--claim-seconds"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_in_the_command_line_itself(
    arguments: list[str],
    part: str,
    language: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KAKOI_LANG", language)
    ran = runner(capsys)(*arguments)
    assert ran.code == 2
    assert ran.error == "cli.usage"
    assert part in ran.err
    assert re.search(r"kakoi.* --help$", ran.err.strip()), "the hint names the command to ask"


def test_a_group_without_a_command_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([], ["contract"]):
        ran = runner(capsys)(*arguments)
        assert ran.code == 2
        assert "Usage" in ran.out + ran.err
        assert "error:" not in ran.err


def test_help_is_no_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for arguments in (["--help"], ["-h"], ["contract", "sign", "--help"]):
        assert runner(capsys)(*arguments).code == 0


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    done = runner(capsys)("--version")
    assert (done.code, done.out) == (0, f"kakoi {version('kakoi')}\n")
