import pytest

from jupyter_xinfer.request_ids import request_id


@pytest.mark.parametrize("sent", ["a", "4bf92f3577b34da6a3ce929d0e0e4736", "batch-7/row:12", "x" * 128])
def test_a_client_names_its_request(sent: str) -> None:
    assert request_id(sent) == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "two words", "a\nforged line", "a\n", '"}', "é"])
def test_what_cannot_be_an_id_is_replaced(sent: str | None) -> None:
    made = request_id(sent)
    assert made.startswith("req-")
    assert made != request_id(sent)
