"""Files of a hub come to a node: the header, all of it, and what can go wrong on the way."""

import hashlib
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.catalog.fake_hub import FakeHub, fake_hub

import xinfer_runtime.catalog
from xinfer_runtime.catalog import hub_download
from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.hub_download import download, fetch_header
from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.errors import Cancelled, DoesNotFit, ModelFileError, Unavailable

CONTENT = (Path(xinfer_runtime.catalog.__file__).parent / "data" / "xinfer-demo-q8_0.gguf").read_bytes()
PATH = "hf://me/demo-GGUF/demo-q8_0.gguf"


def quiet(*_: int) -> None:
    pass


def never() -> bool:
    return False


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setattr(hub_download, "_PAUSE", 0.01)
    with fake_hub() as running:
        running.add("me/demo-GGUF/demo-q8_0.gguf", CONTENT)
        yield running


@pytest.fixture
def files(hub: FakeHub, tmp_path: Path) -> HubFiles:
    return HubFiles({"XINFER_HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "HF_ENDPOINT": hub.url})


def left_behind(files: HubFiles) -> list[str]:
    return [path.name for path in files.folder.rglob("*") if path.is_file() and not path.name.endswith(".lock")]


def test_the_header_alone_is_enough_to_look_at_a_model(
    hub: FakeHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_download, "_HEADERS", (1 << 12, 1 << 20))
    header = read_gguf(fetch_header(files.reference(PATH), files))
    assert header.architecture == "llama"
    assert header.weight_bytes > len(CONTENT) - (1 << 20)
    # The first thousands of bytes were too few, and no byte came twice.
    assert [(asked.start, asked.end) for asked in hub.asked] == [(0, 1 << 12), (1 << 12, 1 << 20)]
    assert files.complete(files.reference(PATH)) is None


def test_all_of_it_comes_after_its_header_and_is_not_fetched_again(hub: FakeHub, files: HubFiles) -> None:
    reference = files.reference(PATH)
    fetch_header(reference, files)
    path = download(reference, files, quiet, never)
    assert path.read_bytes() == CONTENT
    assert path == files.complete(reference)
    assert left_behind(files) == ["demo-q8_0.gguf"]
    before = len(hub.asked)
    assert download(reference, files, quiet, never) == path
    assert len(hub.asked) == before


def test_progress_is_told_in_bytes(hub: FakeHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_download, "_POLL", 0.0)
    told: list[tuple[int, int]] = []
    download(files.reference(PATH), files, lambda done, size: told.append((done, size)), never)
    assert {size for _, size in told} == {len(CONTENT)}
    assert told == sorted(told)
    assert told[-1][0] == len(CONTENT)


def test_an_answer_that_ends_early_is_continued(hub: FakeHub, files: HubFiles) -> None:
    hub.cut_after = 1 << 20
    assert download(files.reference(PATH), files, quiet, never).read_bytes() == CONTENT
    assert [asked.start for asked in hub.asked] == [0, 1, 1 + (1 << 20)]


def test_a_download_that_is_cancelled_goes_on_where_it_was(hub: FakeHub, files: HubFiles) -> None:
    reference = files.reference(PATH)
    calls = iter([False, False, True])  # The first byte, for the size; a chunk; no more.
    with pytest.raises(Cancelled):
        download(reference, files, quiet, lambda: next(calls, True))
    assert download(reference, files, quiet, never).read_bytes() == CONTENT
    assert hub.asked[-1].start >= 1 << 20


@pytest.mark.parametrize("sha256", [hashlib.sha256(b"another").hexdigest()])
def test_what_the_hub_has_not_is_thrown_away(hub: FakeHub, files: HubFiles, sha256: str) -> None:
    hub.sha256 = sha256
    with pytest.raises(Unavailable, match="SHA-256"):
        download(files.reference(PATH), files, quiet, never)
    assert left_behind(files) == []
    hub.sha256 = None
    assert download(files.reference(PATH), files, quiet, never).read_bytes() == CONTENT


def test_a_file_that_changes_on_the_hub_is_fetched_from_its_beginning(hub: FakeHub, files: HubFiles) -> None:
    reference = files.reference(PATH)
    fetch_header(reference, files)
    newer = CONTENT + bytes(32)
    hub.add("me/demo-GGUF/demo-q8_0.gguf", newer)
    assert download(reference, files, quiet, never).read_bytes() == newer


def test_a_file_that_became_shorter_is_fetched_from_its_beginning(hub: FakeHub, files: HubFiles) -> None:
    reference = files.reference(PATH)
    fetch_header(reference, files)
    shorter = CONTENT[: 1 << 20]
    hub.add("me/demo-GGUF/demo-q8_0.gguf", shorter)
    assert download(reference, files, quiet, never).read_bytes() == shorter


@pytest.mark.parametrize(
    ("status", "said"), [(404, "does not exist"), (401, "private or gated"), (403, "hf auth login")]
)
def test_what_cannot_be_had_is_refused_with_the_reason(hub: FakeHub, files: HubFiles, status: int, said: str) -> None:
    hub.status = status
    with pytest.raises(ModelFileError, match=said):
        fetch_header(files.reference(PATH), files)


def test_a_hub_in_trouble_is_asked_again_and_then_given_up(hub: FakeHub, files: HubFiles) -> None:
    hub.status = 503
    with pytest.raises(Unavailable, match="HTTP 503"):
        fetch_header(files.reference(PATH), files)
    hub.status = None
    assert download(files.reference(PATH), files, quiet, never).read_bytes() == CONTENT


def test_the_token_goes_to_the_hub_and_not_where_it_sends_us(hub: FakeHub, files: HubFiles, tmp_path: Path) -> None:
    hub.token = "hf_secret"
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text("hf_secret\n")
    assert download(files.reference(PATH), files, quiet, never).read_bytes() == CONTENT
    assert {asked.authorization for asked in hub.asked} == {None}


def test_a_disk_that_is_too_small_is_refused_in_numbers(
    hub: FakeHub, files: HubFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100 << 20, 96 << 20, 4 << 20))  # type: ignore[attr-defined]
    with pytest.raises(DoesNotFit, match=r"takes 0\.0\d GiB more on the node's disk"):
        fetch_header(files.reference(PATH), files)


def test_two_that_want_it_fetch_it_once(hub: FakeHub, files: HubFiles) -> None:
    hub.seconds_per_chunk = 0.005
    found: list[Path] = []
    wishes = [
        threading.Thread(target=lambda: found.append(download(files.reference(PATH), files, quiet, never)))
        for _ in range(3)
    ]
    for wish in wishes:
        wish.start()
    for wish in wishes:
        wish.join()
    assert len(found) == 3
    assert found[0].read_bytes() == CONTENT
    assert len(hub.asked) == 2  # The first byte, for the size, and the others.


def test_a_split_model_comes_with_all_its_parts(hub: FakeHub, files: HubFiles) -> None:
    for number in (1, 2):
        hub.add(f"me/demo-GGUF/big-0000{number}-of-00002.gguf", bytes([number]) * 1000)
    path = download(files.reference("hf://me/demo-GGUF/big-00001-of-00002.gguf"), files, quiet, never)
    assert path.read_bytes() == b"\1" * 1000
    assert path.with_name("big-00002-of-00002.gguf").read_bytes() == b"\2" * 1000


def test_what_hugging_faces_tools_have_is_used(hub: FakeHub, files: HubFiles, tmp_path: Path) -> None:
    model = tmp_path / "hf" / "hub" / "models--me--demo-GGUF"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("c0ffee")
    (model / "snapshots" / "c0ffee").mkdir(parents=True)
    (model / "snapshots" / "c0ffee" / "demo-q8_0.gguf").write_bytes(CONTENT)
    assert files.complete(files.reference(PATH)) == model / "snapshots" / "c0ffee" / "demo-q8_0.gguf"
    assert hub.asked == []


def test_a_node_without_network_says_so(tmp_path: Path) -> None:
    offline = HubFiles({"XINFER_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"})
    with pytest.raises(ModelFileError, match="HF_HUB_OFFLINE"):
        fetch_header(offline.reference(PATH), offline)
