from xinfer_runtime.routing.silence import Silence


def test_silence_grows_with_time_and_ends_with_a_frame() -> None:
    silence = Silence(now=0.0, interval=1.0)
    assert [silence.tick(now) for now in (1.0, 2.0, 3.0)] == [1.0, 2.0, 3.0]
    silence.heard()
    assert silence.tick(4.0) == 1.0


def test_a_loop_that_was_held_up_does_not_take_its_peer_for_dead() -> None:
    silence = Silence(now=0.0, interval=1.0)
    assert silence.tick(60.0) == 1.5
