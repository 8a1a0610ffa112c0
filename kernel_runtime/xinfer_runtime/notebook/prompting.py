"""One run of `%%xinfer`: stream an answer onto the screen until it is complete or the user interrupts."""

import time
from typing import Any

from xinfer_runtime.client import Client, Completion
from xinfer_runtime.client.calls import Sampling
from xinfer_runtime.notebook.answer_display import AnswerDisplay
from xinfer_runtime.notebook.brief_errors import make_brief


class Interrupted(KeyboardInterrupt):
    """The user interrupted the answer. `partial` is what had come; later cells of a "Run All" do not run."""

    def __init__(self, partial: Completion) -> None:
        super().__init__("the answer was interrupted")
        self.partial = partial
        make_brief(self, "KeyboardInterrupt: the answer was interrupted; what had come is kept")


def prompt_model(
    client: Client, uid: str, messages: list[dict[str, Any]], sampling: Sampling, display: AnswerDisplay
) -> Completion:
    """Shows the answer as it comes and returns it.

    A kernel interrupt is raised in the middle of reading: it closes the connection, by which the server knows to stop.

    Raises:
        Interrupted: on KeyboardInterrupt, with the partial answer shown and marked.
    """
    start = time.monotonic()
    model = client.get_model(uid)
    with model.chat(messages, stream=True, **sampling) as stream:
        try:
            for text in stream:
                display.add(text)
        except KeyboardInterrupt:
            stream.close()
            display.finish(stream.result, time.monotonic() - start, interrupted=True)
            raise Interrupted(stream.result) from None
    display.finish(stream.result, time.monotonic() - start, interrupted=False)
    return stream.result
