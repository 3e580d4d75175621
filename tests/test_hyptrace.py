"""The command hyptrace as a whole: its help, its subcommands, and how it says errors."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

from hyptrace import cli
from hyptrace.cli import SUBCOMMANDS, main

_FAILED, _USAGE, _INTERRUPTED = 1, 2, 130


def made(name: str, body: click.Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A subcommand `name` that is not among ours."""
    module = ModuleType(f"hyptrace._{name}")
    module.command = body  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(cli.SUBCOMMANDS, name, module.__name__)


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def fail() -> None:
        """Fail."""
        raise error

    made("fail", fail, monkeypatch)


def test_help_lists_each_subcommand_and_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    for name in SUBCOMMANDS:
        [line] = [line for line in lines if line.startswith(f"  {name} ")]
        assert not line.endswith("...")  # a summary that fits
    for word in ("Examples:", "Exit status:", "hyptracefs model"):
        assert word in text


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_each_subcommand_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: hyptrace {name} ")
    assert "Example" in text


def test_no_subcommand_imports_what_serves_a_mount() -> None:
    """It is a tool: it starts at once."""
    names = ", ".join(SUBCOMMANDS.values())
    script = f"import sys, {names}; print(*({{'trio', 'pyfuse3'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert done.stdout == b"\n"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip().replace(".", "").isdigit()


def test_without_arguments_it_helps_and_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == _USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Commands:" in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "'frob' (see hyptrace --help)"),
        (["--frob"], "'--frob' (see hyptrace --help)"),
        (["exec"], "'COMMAND...' (see hyptrace exec --help)"),
        (["exec", "--frob", "true"], "'--frob' (see hyptrace exec --help)"),
        (["exec", "--mount"], "'--mount' requires an argument (see hyptrace --help)"),
    ],
)
def test_wrong_usage_is_status_2_and_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == _USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    [line] = captured.err.splitlines()
    assert line.startswith("hyptrace: ")
    assert line.endswith(said)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (click.ClickException("it is\n  so: do that"), _FAILED, "it is so: do that"),
        (OSError(errno.EINVAL, "/x: why: do that"), _FAILED, "/x: why: do that"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/x"), _FAILED, "/x: No such file"),
        (click.UsageError("not so."), _USAGE, "not so (see hyptrace fail --help)"),
        (KeyboardInterrupt(), _INTERRUPTED, "interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing(error, monkeypatch)
    assert main(["fail"]) == status
    assert capsys.readouterr().err.lstrip("\n") == f"hyptrace: {said}\n"


def test_the_status_of_a_subcommand_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    made("three", click.Command("three", callback=lambda: 3), monkeypatch)
    made("none", click.Command("none", callback=lambda: None), monkeypatch)
    assert main(["three"]) == 3
    assert main(["none"]) == 0


_PRINTS = """
import sys, types, click
from hyptrace import cli
module = sys.modules["printing"] = types.ModuleType("printing")
module.command = click.Command("printing", callback=lambda: print("events"))
cli.SUBCOMMANDS["printing"] = "printing"
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["printing"]])
def test_a_reader_that_has_seen_enough_is_no_error_to_talk_about(arguments: list[str]) -> None:
    unread, output = os.pipe()
    os.close(unread)
    command = [sys.executable, "-c", _PRINTS, *arguments]
    # Python is to hold back what is printed, until we flush.
    env = {name: text for name, text in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(command, check=False, stdout=output, stderr=subprocess.PIPE, env=env)
    os.close(output)
    assert (done.returncode, done.stderr) == (_FAILED, b"")


def test_completion() -> None:
    words = {"COMP_WORDS": "hyptrace re", "COMP_CWORD": "1"}
    environment = {**os.environ, **words, "_HYPTRACE_COMPLETE": "bash_complete"}
    command = [sys.executable, "-m", "hyptrace"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    assert done.stdout.splitlines() == ["plain,record", "plain,report"]


def test_man_pages_say_what_help_says(tmp_path: Path) -> None:
    pytest.importorskip("click_man")
    script = Path(__file__).parents[1] / "scripts" / "man"
    subprocess.run([script, tmp_path], check=True, capture_output=True)
    pages = {path.name for path in tmp_path.iterdir()}
    assert pages == {"hyptrace.1", *(f"hyptrace-{name}.1" for name in SUBCOMMANDS)}
    page = (tmp_path / "hyptrace-record.1").read_text(encoding="utf-8")
    for word in ("hyptrace record -e hyp_enter", "Exit status:", "buffer\\-size", "until ^C"):
        assert word in page
