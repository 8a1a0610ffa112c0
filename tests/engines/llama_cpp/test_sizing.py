"""The size of the KV cache."""

from xinfer_runtime.engines.llama_cpp.sizing import CacheShape, choose, kv_sequences, retained_cells

SMALL = CacheShape(512, 512)


def test_a_launch_that_says_nothing_gets_the_trained_context_as_far_as_the_cells_go() -> None:
    assert choose(SMALL, trained_context=2048).context_length == 2048
    assert choose(SMALL, trained_context=20_000).context_length == 20_000
    assert choose(SMALL, trained_context=131072).context_length == 32768
    assert choose(SMALL, trained_context=131072, max_sequences=1).context_length == 32768
    assert choose(SMALL, trained_context=0).context_length == 8192


def test_a_launch_that_says_nothing_and_has_room_for_each_sequence_gets_no_more_than_that() -> None:
    size = choose(SMALL, trained_context=131072, max_sequences=4)
    assert (size.context_length, size.split) == (8192, True)


def test_what_was_chosen_is_chosen_again_when_it_is_asked_for() -> None:
    for trained in (500, 8192, 10_000, 131072):
        for sequences in (None, 1, 2, 3, 16, 256):
            chosen = choose(SMALL, trained, None, sequences)
            assert choose(SMALL, trained, chosen.context_length, sequences) == chosen


def test_a_launch_decides_for_itself() -> None:
    size = choose(SMALL, trained_context=131072, context_length=100_000, max_sequences=4)
    assert (size.context_length, size.max_sequences) == (100_000, 4)


def test_where_there_is_room_every_sequence_has_its_full_length_for_itself_and_one_more_serves_for_swaps() -> None:
    size = choose(SMALL, trained_context=500, max_sequences=4)
    assert (size.split, size.cells, size.usable_cells) == (True, 5 * 512, 4 * 512)


def test_sequences_share_cells_where_there_is_no_room_for_all_at_full_length() -> None:
    size = choose(SMALL, trained_context=1024, max_sequences=64)
    assert (size.split, size.cells, size.usable_cells) == (False, 32768, 32768)


def test_one_sequence_shares_nothing() -> None:
    assert not choose(SMALL, trained_context=512, max_sequences=1).split


def test_cells_are_bounded_by_number_and_by_memory() -> None:
    assert choose(SMALL, trained_context=8192).cells == 32768
    wide = CacheShape(32 * 32 * 128, 32 * 32 * 128)  # 7 B without grouped queries: 512 KiB a token.
    assert choose(wide, trained_context=2048).cells == 4096


def test_one_sequence_always_fits_at_full_length() -> None:
    wide = CacheShape(1 << 19, 1 << 19)
    assert choose(wide, trained_context=8192, context_length=50_000).cells >= 50_000


def test_the_cache_has_sequences_for_ended_requests_beside_the_running_ones() -> None:
    assert [kv_sequences(running, sharing=True) for running in (1, 16, 64, 256)] == [16, 32, 128, 256]
    assert kv_sequences(64, sharing=False) == 64
    assert kv_sequences(64, sharing=True, split=True) == 64


def test_a_cpu_keeps_fewer_cells_that_nobody_needs() -> None:
    assert retained_cells(32768, on_gpu=False, sharing=True) == 8192
    assert retained_cells(32768, on_gpu=True, sharing=True) == 32768
    assert retained_cells(32768, on_gpu=False, sharing=True, split=True) == 32768
    assert retained_cells(32768, on_gpu=True, sharing=False) is None


def test_quantized_keys_and_values_make_cells_smaller() -> None:
    sizes = {each: CacheShape(1024, 1024, each, each).bytes_per_cell for each in ("f16", "q8_0", "q4_0")}
    assert sizes == {"f16": 4096, "q8_0": 2 * 1024 // 32 * 34, "q4_0": 2 * 1024 // 32 * 18}
    assert CacheShape(1024, 512, "q8_0", "f16").bytes_per_cell == 1024 // 32 * 34 + 1024
