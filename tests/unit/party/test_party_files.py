"""Files are whole or absent, whatever fails, and each complaint of the system has one meaning."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kakoi.core.errors import KakoiError, Misuse, Unavailable
from kakoi.party.files import disk_error, make_directory, read_limited, require_private, whole_or_absent, write_private


def test_written_whole_with_the_mode_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"one")
    write_private(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    write_private(tmp_path / "public", b"x", mode=0o644)
    assert (tmp_path / "public").stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in tmp_path.iterdir()) == ["public", "secret"]


@pytest.mark.parametrize("step", ["open", "fdopen", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failure_at_any_step_leaves_the_old_file(
    step: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path if step == "replace" else os, step, fail)
    with pytest.raises(Unavailable) as caught:
        write_private(path, b"new")
    monkeypatch.undo()
    assert caught.value.code == ("disk.error" if number == errno.EIO else "disk.full")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "no temporary file stays"


@pytest.mark.parametrize(
    ("error", "family", "code"),
    [
        (OSError(errno.ENOSPC, "full"), Unavailable, "disk.full"),
        (OSError(errno.EDQUOT, "quota"), Unavailable, "disk.full"),
        (OSError(errno.EIO, "broken"), Unavailable, "disk.error"),
        (FileNotFoundError(errno.ENOENT, "none"), Misuse, "file.missing"),
        (FileExistsError(errno.EEXIST, "there"), Misuse, "file.exists"),
        (PermissionError(errno.EACCES, "no"), Misuse, "file.permission"),
        (IsADirectoryError(errno.EISDIR, "directory"), Misuse, "file.kind"),
        (NotADirectoryError(errno.ENOTDIR, "file"), Misuse, "file.kind"),
    ],
)
def test_what_each_complaint_means(error: OSError, family: type[KakoiError], code: str) -> None:
    known = disk_error(error, Path("/some/file"))
    assert type(known) is family
    assert (known.code, bool(known.hint)) == (code, True)
    assert "file" in known.message


def test_reading_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    assert read_limited(path, limit=5) == b"12345"
    for bad, limit, code in (
        (path, 4, "file.size"),
        (tmp_path / "none", 5, "file.missing"),
        (tmp_path, 5, "file.kind"),
    ):
        with pytest.raises(Misuse) as caught:
            read_limited(bad, limit=limit)
        assert caught.value.code == code


@pytest.mark.parametrize("mode", range(0o001, 0o100, 0o007))
def test_others_must_not_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"")
    path.chmod(0o600 | mode)
    with pytest.raises(Misuse) as caught:
        require_private(path)
    assert caught.value.code == "key.permissions"
    path.chmod(0o600)
    require_private(path)


def fail_in(directory: Path, *files: Path) -> None:
    """Make a directory and files in it, then fail."""
    with whole_or_absent(directory) as made:
        make_directory(made)
        for file in files:
            file.write_bytes(b"x")
        raise ZeroDivisionError


def test_directories_are_whole_or_absent(tmp_path: Path) -> None:
    deep = tmp_path / "a/b/c"
    with pytest.raises(ZeroDivisionError):
        fail_in(deep, deep / "half")
    assert list(tmp_path.iterdir()) == []
    with whole_or_absent(deep) as made:
        make_directory(made)
    assert deep.is_dir()
    assert deep.stat().st_mode & 0o777 == 0o700


def test_what_was_there_before_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/old").write_bytes(b"x")
    for directory, files in (
        (tmp_path / "there", ()),
        (tmp_path / "there/new", ()),
        (tmp_path / "shared/mine", (tmp_path / "shared/others",)),
    ):
        with pytest.raises(ZeroDivisionError):
            fail_in(directory, *files)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        *("shared", "shared/others"),
        *("there", "there/old"),
    ]


def test_a_file_where_a_directory_belongs(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, code in ((tmp_path / "file", "file.exists"), (tmp_path / "file/below", "file.kind")):
        with pytest.raises(Misuse) as caught:
            make_directory(path)
        assert caught.value.code == code
