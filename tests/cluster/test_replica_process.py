"""The replica process on its own, with an engine that loads at once, slowly, wrongly or with a child of its own."""

import asyncio
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest
from tests.cluster.conftest import spec

from xinfer_runtime.cluster.credentials import TlsCredentials
from xinfer_runtime.cluster.replica_process import ReplicaProcess
from xinfer_runtime.cluster.replica_protocol import (
    BeatLine,
    FailedLine,
    ListeningLine,
    ProgressLine,
    ReadyLine,
    ReplicaConfig,
    ReplicaLine,
    encode_line,
)
from xinfer_runtime.messages import GenerateRequest, SamplingParams
from xinfer_runtime.routing.link import Link

PROGRAM = """
import asyncio, subprocess, sys, time
sys.path[:0] = {path!r}
from tests.routing.conftest import CountingEngine
from xinfer_runtime.cluster.replica_main import main
from xinfer_runtime.errors import ModelFileError

class Engine(CountingEngine):
    async def load(self, spec, emit, progress):
        print("engines print to stdout", flush=True)
        match spec.name:
            case "slow":
                await asyncio.to_thread(time.sleep, 600)
            case "broken":
                raise ModelFileError("broken.gguf is broken")
            case "bug":
                raise ZeroDivisionError("a bug")
            case "parent":
                progress(0.6, str(subprocess.Popen(["sleep", "600"]).pid))
        return await super().load(spec, emit, progress)

    def use_cores(self, cores):
        print("engine has cores:", cores, flush=True)

main(lambda name, kind: Engine())
"""

Line = TypeVar("Line", ListeningLine, ProgressLine, ReadyLine, FailedLine, BeatLine)


class Run:
    """A replica process and what it said."""

    def __init__(self, name: str, folder: Path, credentials: TlsCredentials) -> None:
        self.lines: list[ReplicaLine] = []
        self.exit: tuple[int | None, str] | None = None
        self.news = asyncio.Event()
        self.log = folder / "m-0.log"
        self.process = ReplicaProcess("m-0", self.log, self._line, self._exit)
        self.credentials = credentials
        config = replica_config(name, credentials)
        command = (sys.executable, "-c", PROGRAM.format(path=sys.path))
        self.task = asyncio.create_task(self.process.run(command, config))

    def _line(self, line: ReplicaLine) -> None:
        self.lines.append(line)
        self.news.set()

    def _exit(self, returncode: int | None, tail: str) -> None:
        self.exit = returncode, tail
        self.news.set()

    async def said(self, kind: type[Line]) -> Line:
        async with asyncio.timeout(20):
            while True:
                for line in self.lines:
                    if isinstance(line, kind):
                        return line
                assert self.exit is None, self.exit
                self.news.clear()
                await self.news.wait()

    async def ended(self) -> tuple[int | None, str]:
        await asyncio.wait_for(self.task, 20)
        assert self.exit is not None
        return self.exit

    async def link(self) -> Link:
        address = (await self.said(ListeningLine)).address
        return await Link.connect(address, "secret", "m-0", self.credentials.client_context())


def replica_config(name: str, credentials: TlsCredentials) -> ReplicaConfig:
    return ReplicaConfig(
        replica_id="m-0",
        parent=os.getpid(),
        host="127.0.0.1",
        token="secret",
        credentials=credentials,
        spec=spec(name),
        cores=5,
    )


Start = Callable[[str], Run]


@pytest.fixture(scope="module")
def credentials() -> TlsCredentials:
    return TlsCredentials.create()


@pytest.fixture
async def start(tmp_path: Path, credentials: TlsCredentials) -> AsyncIterator[Start]:
    runs: list[Run] = []

    def start_one(name: str) -> Run:
        runs.append(Run(name, tmp_path, credentials))
        return runs[-1]

    yield start_one
    for run in runs:
        run.process.kill()
        await run.ended()


async def test_it_listens_loads_serves_and_ends_in_order(start: Start) -> None:
    run = start("m")
    await run.said(ReadyLine)
    link = await run.link()
    stream = link.submit(GenerateRequest(id="r", prompt="1", sampling=SamplingParams(max_tokens=200)))
    await stream.receive("r")
    run.process.drain(10)
    tokens = 1
    while not (delta := await stream.receive("r")).last:
        tokens += len(delta.token_ids)
    assert await run.ended() == (0, run.exit[1] if run.exit else "")
    assert tokens + len(delta.token_ids) >= 199
    await link.close()
    assert "engines print to stdout" in await asyncio.to_thread(run.log.read_text)


async def test_it_is_told_how_many_cores_it_may_use(start: Start) -> None:
    run = start("m")
    await run.said(ReadyLine)
    run.process.use_cores(3)
    text = ""
    for _ in range(600):
        text = await asyncio.to_thread(run.log.read_text)
        if "engine has cores: 3" in text:
            break
        await asyncio.sleep(0.05)
    # First what its configuration says.
    assert re.findall(r"engine has cores: (\d+)", text) == ["5", "3"]


async def test_a_bad_model_is_reported_and_ends_the_process(start: Start) -> None:
    run = start("broken")
    assert (await run.said(FailedLine)).error.message == "broken.gguf is broken"
    assert (await run.ended())[0] == 1


async def test_an_engines_bug_is_an_engine_error_with_a_traceback_in_the_log(start: Start) -> None:
    run = start("bug")
    error = (await run.said(FailedLine)).error
    assert error.code == "engine_error"
    assert "a bug" in error.message
    _, tail = await run.ended()
    assert "Traceback" in tail


async def test_a_replica_that_loads_can_be_stopped(start: Start) -> None:
    run = start("slow")
    await run.said(ListeningLine)
    await asyncio.sleep(0.1)
    started = time.monotonic()
    run.process.drain(5)
    assert (await run.ended())[0] == 0
    assert time.monotonic() - started < 2


async def test_a_killed_replica_takes_its_children_along(start: Start) -> None:
    run = start("parent")
    child = psutil.Process(int((await run.said(ProgressLine)).stage))
    await run.said(ReadyLine)
    run.process.kill()
    assert (await run.ended())[0] == -9
    await asyncio.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_the_end_of_stdin_ends_it_and_its_children(credentials: TlsCredentials) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM.format(path=sys.path)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(encode_line(replica_config("parent", credentials)))
    while b"progress" not in (line := await process.stdout.readline()):
        assert line
    child = psutil.Process(int(line.split(b'"stage":"')[1].split(b'"')[0]))
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 5) == -9
    await asyncio.sleep(0.1)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


async def test_a_command_that_is_not_there_is_an_exit(tmp_path: Path, credentials: TlsCredentials) -> None:
    exits: list[tuple[int | None, str]] = []
    process = ReplicaProcess("m-0", tmp_path / "log", lambda _line: None, lambda *exit: exits.append(exit))
    await process.run(("/nowhere/python",), replica_config("m", credentials))
    assert exits[0][0] is None
    assert "/nowhere/python" in exits[0][1]


async def test_a_process_that_is_unwanted_before_it_starts_does_not_start(
    tmp_path: Path, credentials: TlsCredentials
) -> None:
    exits: list[tuple[int | None, str]] = []
    process = ReplicaProcess("m-0", tmp_path / "log", lambda _line: None, lambda *exit: exits.append(exit))
    process.drain(5)
    await process.run(("/nowhere/python",), replica_config("m", credentials))
    assert exits == [(None, "")]
