"""Tokens per second and seconds per step, lately."""

from xinfer_runtime.engines.llama_cpp.throughput import StepTime, Throughput


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


def test_the_time_of_steps_is_their_mean_and_follows_them() -> None:
    time = StepTime()
    time.count(0.1)
    assert time.seconds == 0.1
    for step in range(200):
        time.count(0.02 if step % 2 else 0.04)
    assert 0.025 < time.seconds < 0.035
