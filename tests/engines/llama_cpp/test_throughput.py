"""Tokens per second over the last seconds."""

from xinfer_runtime.engines.llama_cpp.throughput import Throughput


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_steady_stream_gives_its_rate_soon_and_later() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    for step in range(200):
        throughput.count(5)
        clock.now += 0.1
        if step > 10:
            assert 45 < throughput.rate() < 60


def test_the_rate_falls_to_nothing_when_generation_stops() -> None:
    clock = Clock()
    throughput = Throughput(clock)
    throughput.count(100)
    clock.now += 10
    assert throughput.rate() == 0.0
