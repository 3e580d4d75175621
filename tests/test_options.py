"""Mount options: what is understood, given on, ignored, refused."""

from __future__ import annotations

import re

import pytest

from hyptracefs.options import OPTIONS, Options, UsageError, options_help, parse_options


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Options()),
        ([""], Options()),
        ([",,"], Options()),
        (["cpus=1"], Options(cpus=1)),
        (["cpus=1024"], Options(cpus=1024)),
        (["cpus=2,cpus=3"], Options(cpus=3)),
        (["cpus=2", "workload=idle"], Options(cpus=2, workload="idle")),
        (["workload=guest:2:7"], Options(workload="guest:2:7")),
        (["workload=replay,poll_ms=10000"], Options(workload="replay", poll_ms=10_000)),
        (["uid=root,gid=root"], Options(uid=0, gid=0)),
        (["uid=1,gid=1000,mode=0750"], Options(uid=1, gid=1000, mode=0o750)),
        (["max_buffer_mb=64"], Options(max_buffer_mb=64)),
        (["log=/tmp/a=b"], Options(log="/tmp/a=b")),  # noqa: S108 - never made
        (
            ["rw,nosuid,user,noauto,_netdev,x-systemd.automount"],
            Options(fuse=frozenset(["nosuid"])),
        ),
        (
            ["allow_other,fsname=a=b,ro"],
            Options(fuse=frozenset(["allow_other", "fsname=a=b", "ro"])),
        ),
        (["x-anything=1"], Options()),
    ],
)
def test_options_are_understood(texts: list[str], expected: Options) -> None:
    assert parse_options(texts) == expected


def test_nothing_chosen_leaves_the_model_its_own_and_takes_the_better_way_to_learn_of_events() -> (
    None
):
    assert Options() == Options(cpus=None, workload=None, poll_ms=None, wakeup=None, log=None)
    assert Options().remote.wants_doorbell


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("wakeup=doorbell", True),
        ("wakeup=doorbell,poll_ms=5", True),
        ("wakeup=poll", False),
        ("poll_ms=5", False),
    ],
)
def test_doorbell_is_wanted_unless_polling_is_asked_for(text: str, wanted: bool) -> None:
    assert parse_options([text]).remote.wants_doorbell == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "nosuch",
            "unknown option 'nosuch': there are cpus, workload, poll_ms, wakeup, max_buffer_mb",
        ),
        ("nosuch=1", "unknown option 'nosuch'"),
        ("Cpus=1", "unknown option 'Cpus'"),
        ("cpus", "option cpus=: not a number from 1 to 1024"),
        ("cpus=0", "option cpus=0: not a number from 1 to 1024"),
        ("cpus=1025", "option cpus=1025: not a number"),
        ("cpus=-1", "option cpus=-1: not a number"),
        ("cpus=1.5", "option cpus=1.5: not a number"),
        ("cpus=²", "option cpus=²: not a number"),
        ("cpus= 1", "option cpus= 1: not a number"),
        ("poll_ms=0", "option poll_ms=0: not a number from 1 to 10000"),
        ("max_buffer_mb=0", "option max_buffer_mb=0: not a number from 1 to "),
        ("gid=-1", "option gid=-1: no group of this name, and not a number from 0 to"),
        ("uid=nosuch", "option uid=nosuch: no user of this name, and not a number from 0 to"),
        ("mode=8", "option mode=8: not an octal number up to 7777"),
        ("mode=10000", "option mode=10000: not an octal number"),
        ("mode=0o7", "option mode=0o7: not an octal number"),
        ("mode=", "option mode=: not an octal number"),
        ("poll_ms=10001", "option poll_ms=10001: not a number"),
        ("wakeup=", "option wakeup=: not one of doorbell, poll"),
        ("wakeup=nap", "option wakeup=nap: not one of doorbell, poll"),
        ("workload=nap", "option workload=nap: no workload 'nap': there are chaos, guest, idle"),
        ("workload=", "option workload=: no workload ''"),
        ("workload=storm", "option workload=storm: workload storm:RATE[:MIX]: RATE '' is not"),
        ("workload=replay:/nosuch", "workload replay[:FILE]: /nosuch: No such file"),
        ("log=here", "option log=here: not an absolute path"),
    ],
)
def test_error_says_which_option_and_what_there_is(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        parse_options(["cpus=2", f"workload=idle,{text}"])


def test_help_has_a_line_for_each_option() -> None:
    lines = options_help().splitlines()
    names = [
        line.split("=")[0].strip() for line in lines if line.startswith("  ") and line[2] != " "
    ]
    assert names == list(OPTIONS)
