"""When guessing pays: told what steps cost and which guesses were right, not measured here."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from xinfer_runtime.engines.llama_cpp.draft_control import Acceptance, DraftControl

Cost = Callable[[int], float]


def flat(rows: int) -> float:
    """A step that waits for memory: more rows cost nearly nothing."""
    return 1 + 0.01 * rows


def linear(rows: int) -> float:
    """A step that computes all the time."""
    return float(rows)


def simulate(cost: Cost, right: float, sequences: int, steps: int = 2000, most: int = 8) -> tuple[float, int]:
    """Tokens per second of so many steps against those without guesses, and guesses in the last 500 steps."""
    control = DraftControl()
    acceptances = [Acceptance(control.overall) for _ in range(sequences)]
    tokens, seconds, late, luck = 0, 0.0, 0, 0.0
    for step in range(steps):
        lengths = [0] * sequences
        if not control.rests():
            rates = [each.rate for each in acceptances]
            lengths = control.lengths(rates, [most] * sequences, sequences, sequences * most)
        for acceptance, length in zip(acceptances, lengths, strict=True):
            came = 0
            while came < length:
                luck = (luck + 0.618034) % 1  # As even as chance can be.
                if luck >= right:
                    break
                came += 1
            tokens += 1 + came
            if length:
                control.judge(acceptance, length, came)
        rows = sequences + sum(lengths)
        control.stepped(rows, cost(rows))
        seconds += cost(rows)
        late += sum(lengths) if step >= steps - 500 else 0
    return tokens / seconds * cost(sequences) / sequences, late


def test_it_guesses_far_where_guesses_are_right_and_cost_little() -> None:
    gain, _ = simulate(flat, right=0.9, sequences=1)
    assert gain > 3


def test_it_turns_itself_off_where_guesses_are_wrong() -> None:
    gain, late = simulate(flat, right=0.0, sequences=4)
    assert gain > 0.98
    assert late < 4 * 8


def test_it_turns_itself_off_where_a_row_costs_as_much_as_a_step() -> None:
    gain, late = simulate(linear, right=0.7, sequences=16)
    assert gain > 0.95
    assert late < 16 * 8


def test_it_comes_back_when_guesses_become_right() -> None:
    control, acceptance = DraftControl(), Acceptance()
    for right in (False, True):
        guessed = 0
        for _ in range(6000):
            length = 0 if control.rests() else control.lengths([acceptance.rate], [4], 1, 4)[0]
            control.stepped(1 + length, flat(1 + length))
            if length:
                control.judge(acceptance, length, length if right else 0)
                guessed += length
        assert (guessed > 6000) is right


def test_a_sequence_whose_guesses_are_right_gets_them_and_another_does_not() -> None:
    control = DraftControl()
    control.stepped(2, 1.0)
    control.stepped(16, 2.0)
    good, bad = control.lengths([0.95, 0.05], [8, 8], 2, 16)
    assert good >= 4
    assert bad == 0


@given(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8)), min_size=1, max_size=20),
    st.integers(0, 64),
    st.lists(st.tuples(st.integers(1, 200), st.floats(1e-6, 10)), max_size=20),
)
def test_no_more_is_taken_than_there_is_and_than_fits(
    guesses: list[tuple[float, int]], room: int, times: list[tuple[int, float]]
) -> None:
    control = DraftControl()
    for rows, seconds in times:
        control.stepped(rows, seconds)
    rates, most = [rate for rate, _ in guesses], [count for _, count in guesses]
    lengths = control.lengths(rates, most, len(guesses), room)
    assert sum(lengths) <= room
    assert all(0 <= length <= available for length, available in zip(lengths, most, strict=True))


def test_guesses_that_take_long_to_make_are_not_made() -> None:
    lengths = []
    for pass_seconds in (0.0, 0.1, 3.0):
        control = DraftControl()
        control.pass_seconds = pass_seconds
        for rows in (1, 2, 9):
            control.stepped(rows, flat(rows))
        lengths.append(control.lengths([0.9], [8], 1, 8)[0])
    free, cheap, dear = lengths
    assert free == 8
    assert 1 < cheap <= 8
    assert dear == 1  # To try, before it pauses.
    assert control.rests()
