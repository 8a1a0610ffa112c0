"""Downloads a model from a hub to this node: its header first, which placement needs, and all of it when it is placed.

What came is kept when a download stops, for whatever reason, and the next one goes on from there. Blocks, so it runs in
threads; several processes of a node may want the same file, and one of them fetches it.
"""

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from xinfer_runtime.catalog.gguf_file import read_gguf
from xinfer_runtime.catalog.hub_files import HubFiles
from xinfer_runtime.catalog.hub_reference import HubReference
from xinfer_runtime.catalog.hub_transfer import Part, ask, open_client
from xinfer_runtime.errors import Cancelled, DoesNotFit, ModelFileError, Unavailable

Report = Callable[[int, int], None]
"""Gets the bytes that are here, and all there are."""

_HEADERS = (4 << 20, 16 << 20, 64 << 20)
"""Bytes from the beginning in which a header is looked for."""

_ATTEMPTS = 5
_DOUBTFUL = 3
_PAUSE = 0.5
"""Seconds before asking again, doubled each time."""

_POLL = 0.3
_KEPT_FREE = 1 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")


class _State(Struct):
    """What is known of a file that is not complete; the first `done` bytes are here."""

    size: int
    etag: str
    done: int = 0


def fetch_header(reference: HubReference, files: HubFiles) -> Path:
    """A file of the model's size of which the header is here. Raises ModelFileError, DoesNotFit, Unavailable."""
    return _Download(reference, files, lambda *_: None, lambda: False).headers()


def download(reference: HubReference, files: HubFiles, report: Report, stopped: Callable[[], bool]) -> Path:
    """The complete file. Raises ModelFileError for one that is not there or not what the hub says, DoesNotFit for a
    disk that is too small, Unavailable for a hub that cannot be reached, Cancelled when `stopped` says so."""
    return _Download(reference, files, report, stopped).run()


class _Download:
    def __init__(self, reference: HubReference, files: HubFiles, report: Report, stopped: Callable[[], bool]) -> None:
        self._reference = reference
        self._files = files
        self._report = report
        self._stopped = stopped
        self._told = 0.0

    def headers(self) -> Path:
        first = self._files.partial(self._reference, self._reference.files[0])
        for length in _HEADERS:
            with self._locked(unless=lambda length=length: self._have(length)):  # type: ignore[misc]
                for file in () if self._have(length) else self._reference.files:
                    self._extend(file, length)
            try:
                if read_gguf(first).data_start <= length or self._have(None):
                    return first
            except ModelFileError:
                if length == _HEADERS[-1] or self._have(None):
                    raise
        raise ModelFileError(f"{self._reference.file}: its header is longer than {_HEADERS[-1]} bytes")

    def run(self) -> Path:
        with self._locked(unless=lambda: self._files.complete(self._reference) is not None):
            if (there := self._files.complete(self._reference)) is not None:
                return there
            for file in self._reference.files:  # Their sizes, before the first is fetched.
                self._extend(file, 1)
            for file in self._reference.files:
                self._extend(file, None)
                self._verify(file)
            for file in self._reference.files:
                final = self._files.final(self._reference, file)
                final.parent.mkdir(parents=True, exist_ok=True)
                partial = self._files.partial(self._reference, file)
                with partial.open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(partial, final)
                _state_file(partial).unlink(missing_ok=True)
        return self._files.final(self._reference, self._reference.file)

    # ---- one file

    def _extend(self, file: str, length: int | None) -> None:
        """Fetch the first `length` bytes, or all, as far as they are not here."""
        failures = 0
        while True:
            state = self._state(file)
            before = state.done if state is not None else 0
            try:
                if state is None or state.done < (state.size if length is None else min(length, state.size)):
                    self._fetch(file, state, length)
                return
            except DoesNotFit:
                raise
            except Unavailable:
                state = self._state(file)
                failures = 0 if state is not None and state.done > before else failures + 1
                if failures >= _ATTEMPTS:
                    raise
                if failures == _DOUBTFUL:  # The hub may have another file by now, which ends before ours.
                    _state_file(self._files.partial(self._reference, file)).unlink(missing_ok=True)
                self._pause(_PAUSE * 2.0**failures)

    def _fetch(self, file: str, state: _State | None, length: int | None) -> None:
        reference = self._reference
        if self._files.offline:
            raise ModelFileError(
                f"{reference.file} of {reference.owner}/{reference.model} is not on this node, which is not to use the "
                "network (HF_HUB_OFFLINE)",
                param="model_path",
            )
        url = reference.url(file, self._files.endpoint(reference.hub))
        token = self._files.token(reference.hub)
        start = state.done if state is not None else 0
        end = None if length is None else max(length, start + 1)
        with open_client() as client, ask(client, url, token, start, end) as part:
            if state is None or part.start != start or (part.size, part.etag) != (state.size, state.etag):
                self._begin(file, part)
                if part.start:
                    return self._fetch(file, self._state(file), length)
            self._write(file, part, end)
        return None

    def _begin(self, file: str, part: Part) -> None:
        """An empty file of the right size, which takes no room yet."""
        path = self._files.partial(self._reference, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as empty:
            empty.truncate(part.size)
        _state_file(path).write_bytes(msgspec.json.encode(_State(part.size, part.etag)))
        self._check_room(path)

    def _check_room(self, path: Path) -> None:
        states = [state for file in self._reference.files if (state := self._state(file)) is not None]
        missing = sum(state.size - state.done for state in states)
        disk = shutil.disk_usage(path.parent)
        kept = min(_KEPT_FREE, disk.total // 20)
        if missing + kept > disk.free:
            raise DoesNotFit(
                f"{self._reference.file} takes {missing / 2**30:.2f} GiB more on the node's disk, which has "
                f"{disk.free / 2**30:.2f} GiB free, of which {kept / 2**30:.2f} stay free",
                place=str(self._files.folder),
            )

    def _write(self, file: str, part: Part, end: int | None) -> None:
        path = self._files.partial(self._reference, file)
        state = _State(part.size, part.etag, part.start)
        if end is None:
            self._check_room(path)
        try:
            with path.open("r+b") as target:
                target.seek(part.start)
                for chunk in part.chunks:
                    if self._stopped():
                        raise Cancelled(f"The download of {self._reference.file} was cancelled")
                    target.write(chunk)
                    state.done += len(chunk)
                    if self._tell(state.done, file):
                        target.flush()
                        _state_file(path).write_bytes(msgspec.json.encode(state))
                    if state.done >= (state.size if end is None else end):
                        break
        finally:
            with suppress(OSError):
                _state_file(path).write_bytes(msgspec.json.encode(state))
        if state.done < (state.size if end is None else min(end, state.size)):
            raise Unavailable(f"the hub ended its answer at {state.done} of {state.size} bytes of {file}")

    def _verify(self, file: str) -> None:
        """Compare the checksum where the hub has told one."""
        path = self._files.partial(self._reference, file)
        state = self._state(file)
        if state is None or not _SHA256.fullmatch(state.etag):
            return
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while chunk := source.read(8 << 20):
                if self._stopped():
                    raise Cancelled(f"The download of {self._reference.file} was cancelled")
                digest.update(chunk)
                self._tell(state.size, file)
        if digest.hexdigest() != state.etag:
            path.unlink()
            _state_file(path).unlink(missing_ok=True)
            raise Unavailable(f"{file} did not arrive as the hub has it: its SHA-256 is another one")

    # ---- bookkeeping

    def _have(self, length: int | None) -> bool:
        """Whether the beginnings of all files are here, or all of them."""
        states = [self._state(file) for file in self._reference.files]
        return all(
            state is not None and state.done >= (state.size if length is None else min(length, state.size))
            for state in states
        )

    def _state(self, file: str) -> _State | None:
        path = self._files.partial(self._reference, file)
        try:
            state = msgspec.json.decode(_state_file(path).read_bytes(), type=_State)
            return state if path.stat().st_size == state.size and 0 <= state.done <= state.size else None
        except (OSError, msgspec.MsgspecError):
            return None

    def _tell(self, done: int, file: str) -> bool:
        """Report, where the last report is a while ago."""
        now = time.monotonic()
        if now - self._told < _POLL:
            return False
        self._told = now
        states = {each: state for each in self._reference.files if (state := self._state(each)) is not None}
        others = sum(state.done for each, state in states.items() if each != file)
        self._report(others + done, sum(state.size for state in states.values()))
        return True

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._stopped():
                raise Cancelled(f"The download of {self._reference.file} was cancelled")
            time.sleep(min(_POLL, seconds))

    def _unwritable(self, error: OSError) -> DoesNotFit:
        reason = error.strerror or type(error).__name__
        return DoesNotFit(
            f"{self._reference.file} cannot be written on this node: {reason}", place=f"{self._files.folder}: {error}"
        )

    @contextmanager
    def _locked(self, unless: Callable[[], bool]) -> Iterator[None]:
        """Alone among all processes of the node; or not, when `unless` says that there is nothing to do."""
        folder = self._files.partial(self._reference, "")
        name = hashlib.sha256(self._reference.file.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(folder / f".{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error
        try:
            while not unless():
                with suppress(BlockingIOError):
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                states = [state for file in self._reference.files if (state := self._state(file)) is not None]
                self._report(sum(state.done for state in states), sum(state.size for state in states))
                self._pause(_POLL)
            yield
        except OSError as error:
            raise self._unwritable(error) from error
        finally:
            os.close(handle)


def _state_file(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.state")
