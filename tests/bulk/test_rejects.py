from __future__ import annotations

import errno
import gzip
import json
import os
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, cast

import pytest

from airflow_provider_feedamp.bulk import rejects as rejects_module
from airflow_provider_feedamp.bulk.paths import open_storage
from airflow_provider_feedamp.bulk.rejects import RejectsFile
from airflow_provider_feedamp.bulk.source import parse_order
from airflow_provider_feedamp.exceptions import InputError, RejectsFileError
from tests.bulk.feedamps import read_orders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from airflow_provider_feedamp.bulk.source import SourceOrder

ORDER = parse_order(7, b'{"mp_order_number": "A-1", "p": 1.10}')


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rejects.ndjson"


def reject(path: object, *orders: SourceOrder, times: int = 1, **options: Any) -> RejectsFile:
    """Write rejects to a file, and return it closed."""
    with RejectsFile(str(path), **options) as rejects:
        for order in orders or (ORDER,) * times:
            rejects.add(order, "refused")
    return rejects


def test_a_reject_is_one_line_with_all_that_is_known(path: Path) -> None:
    with RejectsFile(str(path)) as rejects:
        rejects.add(ORDER, "refused", ("TOO_OLD", "TOO_BIG"))

    assert path.read_bytes() == (
        b'{"line": 7, "mp_order_number": "A-1", "reason": "refused", "codes": ["TOO_OLD", "TOO_BIG"], '
        b'"order": {"mp_order_number": "A-1", "p": 1.10}}\n'
    )


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (b'{"mp_order_number": 5}', {"mp_order_number": None, "order": {"mp_order_number": 5}}),
        (b'{"n":\r\n [1,\n 2]}', {"mp_order_number": None, "order": {"n": [1, 2]}}),
        ('{"n": "ü\\n\u2028"}'.encode(), {"mp_order_number": None, "order": {"n": "ü\n\u2028"}}),
        (
            b'{"mp_order_number": "\\ud800"}',
            {"mp_order_number": "\ud800", "order": {"mp_order_number": "\ud800"}},
        ),
        (b"[1]", {"mp_order_number": None, "order": [1]}),
        (b"null", {"mp_order_number": None, "raw": "null"}),
        (b'{"n": "\xff', {"mp_order_number": None, "raw": '{"n": "\\xff'}),
        ('{"n": "ü'.encode(), {"mp_order_number": None, "raw": '{"n": "ü'}),
        (b"", {"mp_order_number": None, "raw": ""}),
    ],
)
def test_whatever_was_read_is_kept_on_one_line(path: Path, text: bytes, kept: dict[str, Any]) -> None:
    reject(path, parse_order(1, text))

    [line] = path.read_bytes().splitlines()
    assert json.loads(line) == {"line": 1, "reason": "refused", "codes": []} | kept


def test_a_rejects_file_can_be_read_again_with_the_bytes_of_its_orders(path: Path) -> None:
    reject(path, ORDER, parse_order(9, b'{"mp_order_number": "A-2",'))
    path.write_bytes(path.read_bytes().replace(rb'"A-2\",', rb'"A-2\"}'))

    again = list(read_orders(str(path)))

    assert [(found.line, found.body, found.problem) for found in again] == [
        (1, b'{"mp_order_number": "A-1", "p": 1.10}', None),
        (2, b'{"mp_order_number": "A-2"}', None),
    ]


def test_without_a_reject_there_is_no_file_and_an_old_one_is_gone(path: Path) -> None:
    path.write_text("of an earlier run\n")

    with RejectsFile(str(path)) as rejects:
        assert not path.exists()

    assert (rejects.count, path.exists()) == (0, False)


def test_an_old_file_is_replaced(path: Path) -> None:
    path.write_text("of an earlier run\n" * 100)

    reject(path)

    assert [json.loads(line)["line"] for line in path.read_text().splitlines()] == [7]


@pytest.mark.parametrize(
    "form", ["{folder}/new/deep/rejects.ndjson", "file://{folder}/new/deep/rejects.ndjson"]
)
def test_the_folder_of_a_local_file_is_made(tmp_path: Path, form: str) -> None:
    reject(form.format(folder=tmp_path))

    assert (tmp_path / "new/deep/rejects.ndjson").read_text().count("\n") == 1


def test_each_reject_is_on_the_disk_at_once(path: Path) -> None:
    with RejectsFile(str(path)) as rejects:
        for count in (1, 2, 3):
            rejects.add(ORDER, "refused")
            assert path.read_text().count("\n") == count == rejects.count


def test_a_compressed_file_is_compressed(tmp_path: Path) -> None:
    path = tmp_path / "rejects.ndjson.gz"

    reject(path, times=2)

    assert gzip.decompress(path.read_bytes()).count(b"\n") == 2
    assert len(list(read_orders(str(path)))) == 2


def test_without_a_path_rejects_are_counted() -> None:
    with RejectsFile(None) as rejects:
        rejects.add(ORDER, "refused")

    assert rejects.count == 1


def test_what_was_rejected_stays_when_the_run_breaks_off(path: Path) -> None:
    with suppress(RuntimeError), RejectsFile(str(path)) as rejects:
        rejects.add(ORDER, "refused")
        raise RuntimeError

    assert path.read_text().count("\n") == 1


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = f"{tmp_path}/file/rejects.ndjson"

    with pytest.raises(InputError, match=f"{path} cannot be written"), RejectsFile(path):
        pytest.fail("the run began")


def test_a_file_that_cannot_be_made_is_told_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(rejects_module, "open", full, raising=False)

    with pytest.raises(InputError, match="Read-only file system"), RejectsFile(f"{tmp_path}/rejects.ndjson"):
        pytest.fail("the run began")


@pytest.mark.parametrize(
    ("path", "why"),
    [("{folder}", "a directory or a device"), ("https://127.0.0.1:9/r.ndjson?sig=x", "web server")],
)
def test_what_is_no_place_for_a_file_is_refused_and_left_alone(tmp_path: Path, path: str, why: str) -> None:
    with pytest.raises(InputError, match=why), RejectsFile(path.format(folder=tmp_path)):
        pytest.fail("the run began")
    assert tmp_path.is_dir()


class FullDisk:
    """A file on a disk without room: it fails at the given call."""

    def __init__(self, fails_at: str, file: IO[bytes]) -> None:
        self._fails_at = fails_at
        self._file = file

    def write(self, data: bytes) -> int:
        return self._call("write") or self._file.write(data)

    def flush(self) -> None:
        self._call("flush")

    def close(self) -> None:
        self._file.close()
        self._call("close")

    def _call(self, name: str) -> int:
        if name == self._fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return 0


def fill_the_disk(monkeypatch: pytest.MonkeyPatch, fails_at: str) -> None:
    """Let a rejects file be opened, and fail later."""
    real = rejects_module._private

    def opened(local: str, mode: str) -> IO[bytes]:
        file = real(local, mode)
        return cast("IO[bytes]", FullDisk(fails_at, file)) if mode == "wb" else file

    monkeypatch.setattr(rejects_module, "_private", opened)


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz"])
@pytest.mark.parametrize(("fails_at", "counted"), [("write", 0), ("flush", 0), ("close", 1)])
def test_a_full_disk_is_a_clear_error_that_a_retry_can_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: str, counted: int, suffix: str
) -> None:
    path = f"{tmp_path}/rejects{suffix}"

    fill_the_disk(monkeypatch, fails_at)
    rejects = RejectsFile(path)
    with pytest.raises(RejectsFileError) as error, rejects:
        rejects.add(ORDER, "refused")

    assert error.value.retryable
    assert path in str(error.value)
    assert "No space left on device" in str(error.value)
    assert rejects.count == counted


def test_the_order_that_could_not_be_kept_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill_the_disk(monkeypatch, "write")

    with (
        pytest.raises(RejectsFileError, match=r"line 7 .*\(quantity is 0\)") as error,
        RejectsFile(f"{tmp_path}/r") as rejects,
    ):
        rejects.add(ORDER, "quantity is 0", words="Jane Secretname")
    assert "Jane" not in str(error.value)


def test_the_words_of_feedamp_stand_beside_the_order(path: Path) -> None:
    with RejectsFile(str(path)) as rejects:
        rejects.add(ORDER, "refused.", words="A: 'Jane' is odd")
    assert json.loads(path.read_text())["reason"] == "refused. FeedAMP said: A: 'Jane' is odd"


def rights(path: Path) -> str:
    return oct(path.stat().st_mode & 0o777)


@pytest.fixture
def loose_umask() -> Iterator[None]:
    """Files that nobody takes care of can be read and written by all."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("loose_umask")
@pytest.mark.parametrize("name", ["rejects.ndjson", "rejects.ndjson.gz"])
@pytest.mark.parametrize("old", [None, 0o644])
def test_a_local_file_can_be_read_by_its_owner_only(tmp_path: Path, name: str, old: int | None) -> None:
    path = tmp_path / name
    if old:
        path.touch(old)

    with RejectsFile(str(path)) as rejects:
        rejects.add(ORDER, "refused")
        assert rights(path) == "0o600"


@pytest.mark.usefixtures("loose_umask")
@pytest.mark.parametrize(("old", "new"), [(0o666, 0o600), (0o640, 0o600), (0o600, 0o600)])
def test_a_file_that_is_gone_on_with_is_narrowed_before_anything_is_added(
    path: Path, old: int, new: int
) -> None:
    path.touch(old)
    path.write_text("kept\n")

    with RejectsFile(str(path), 1, 5) as rejects:
        assert rights(path) == oct(new)
        rejects.add(ORDER, "refused")

    assert (path.read_text()[:5], rights(path)) == ("kept\n", oct(new))


@pytest.mark.usefixtures("loose_umask")
def test_a_file_that_somebody_made_meanwhile_is_narrowed(path: Path) -> None:
    with RejectsFile(str(path)) as rejects:
        path.touch(0o666)
        rejects.add(ORDER, "refused")
    assert rights(path) == "0o600"


@pytest.fixture
def not_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file's rights be changed, as if all were somebody else's."""

    def refuse(file: int, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "fchmod", refuse)


@pytest.mark.usefixtures("loose_umask", "not_the_owner")
def test_a_new_file_is_private_from_its_first_moment(path: Path) -> None:
    reject(path)
    assert rights(path) == "0o600"


@pytest.mark.usefixtures("not_the_owner")
def test_a_file_of_somebody_else_is_refused_before_anything_is_sent(path: Path) -> None:
    path.write_text("kept\n")
    path.chmod(0o666)
    with pytest.raises(InputError, match="Operation not permitted"), RejectsFile(str(path), 1, 5):
        pass


def read(path: str) -> bytes:
    with open_storage(path, "rb", "Test") as file:
        return file.read()


@pytest.mark.parametrize("suffix", [".ndjson", ".ndjson.gz"])
def test_any_storage_keeps_the_rejects_of_the_latest_run_alone(bucket: str, suffix: str) -> None:
    path = f"{bucket}/deep/rejects{suffix}"

    for line in (1, 2):
        reject(path, parse_order(line, b'{"n": 1}'))

    content = read(path) if suffix == ".ndjson" else gzip.decompress(read(path))
    assert [json.loads(each)["line"] for each in content.splitlines()] == [2]
    with RejectsFile(path), pytest.raises(FileNotFoundError):
        read(path)
