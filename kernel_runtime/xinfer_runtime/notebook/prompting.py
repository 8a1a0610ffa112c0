"""One run of `%%xinfer`: stream an answer onto the screen until it is complete or the user interrupts."""

import time
from typing import Any

from xinfer_runtime.client import Client, Completion
from xinfer_runtime.client.calls import Sampling
from xinfer_runtime.errors import XinferError
from xinfer_runtime.notebook.answer_display import AnswerDisplay, Ending
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
    However the answer ends, all that came of it is shown, marked when it is not complete.

    Raises:
        Interrupted: on KeyboardInterrupt.
    """
    start = time.monotonic()
    answer = Completion("")
    try:
        with client.get_model(uid).chat(messages, stream=True, **sampling) as stream:
            try:
                for text in stream:
                    display.add(text)
            finally:
                answer = stream.result
    except KeyboardInterrupt:
        display.finish(answer, time.monotonic() - start, Ending.INTERRUPTED)
        raise Interrupted(answer) from None
    except XinferError:
        if answer.text:
            display.finish(answer, time.monotonic() - start, Ending.FAILED)
        raise
    display.finish(answer, time.monotonic() - start, Ending.COMPLETE)
    return answer
