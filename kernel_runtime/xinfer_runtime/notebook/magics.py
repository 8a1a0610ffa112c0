"""`%xinfer` and `%%xinfer`."""

from typing import Any

from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.magic import Magics, line_cell_magic, magics_class, no_var_expand
from IPython.display import display

from xinfer_runtime.client import Completion
from xinfer_runtime.client.calls import Sampling
from xinfer_runtime.client.launch_progress import TerminalLaunch
from xinfer_runtime.errors import ContextLengthExceeded, XinferError
from xinfer_runtime.notebook.answer_display import AnswerDisplay, NotebookAnswer, TerminalAnswer
from xinfer_runtime.notebook.arguments import HelpShown, cell_parser, line_parser, split_words
from xinfer_runtime.notebook.brief_errors import brief_errors
from xinfer_runtime.notebook.commands import Commands, Progress
from xinfer_runtime.notebook.launch_display import NotebookLaunch
from xinfer_runtime.notebook.prompt import build_messages, fill_template
from xinfer_runtime.notebook.prompting import Interrupted, prompt_model
from xinfer_runtime.notebook.session import NotebookSession


@magics_class
class XinferMagics(Magics):
    """The magics of one shell. In a kernel output is rich; in a terminal it is text."""

    def __init__(self, shell: InteractiveShell, session: NotebookSession | None = None) -> None:
        super().__init__(shell)
        self.session = session or NotebookSession()
        self._rich = getattr(shell, "kernel", None) is not None
        self._line = line_parser()
        self._cell = cell_parser()
        self._commands = Commands(self.session, display, print, self._launch_display)

    @no_var_expand
    @line_cell_magic
    def xinfer(self, line: str, cell: str | None = None) -> None:
        """Run models from a notebook.

        %xinfer launch NAME | list | use NAME | stop NAME | logs NAME | status | clear | help

        %%xinfer [NAME] [--chat] [--template] [-o VARIABLE] [--system TEXT] [--temperature T] [--max-tokens N]
        sends the cell to a model and shows the answer as it comes. The text is taken as it is; with --template,
        {{name}} stands for a variable. Interrupting the kernel stops the answer and keeps what has come.

        `%xinfer help` and `%%xinfer --help` have the details.
        """
        try:
            with brief_errors():
                if cell is None:
                    self._run_command(line)
                else:
                    self._prompt(line, cell)
        except HelpShown:
            return
        except XinferError as error:
            self.session.forget_server(error)
            raise

    def _run_command(self, line: str) -> None:
        arguments = self._line.parse_args(split_words(line))
        if arguments.command in (None, "help"):
            self._line.print_help()
            return
        getattr(self._commands, arguments.command)(arguments)

    def _prompt(self, line: str, cell: str) -> None:
        arguments = self._cell.parse_args(split_words(line))
        body = fill_template(cell, self._variables) if arguments.template else cell
        if not body.strip():
            raise UsageError("The cell is empty: write the prompt below %%xinfer.")
        if arguments.output and not arguments.output.isidentifier():
            raise UsageError(f"--output needs the name of a variable, and {arguments.output!r} is none.")
        uid = self.session.choose_model(arguments.model)
        history = self.session.messages if arguments.chat else []
        messages = build_messages(history, body.strip("\n"), arguments.system)
        try:
            completion = prompt_model(self.session.client, uid, messages, _sampling(arguments), self._answer_display())
        except Interrupted as interrupt:
            self._keep(arguments, messages, interrupt.partial)
            raise
        except ContextLengthExceeded as error:
            if history:
                raise ContextLengthExceeded(f"{error.message} %xinfer clear starts a new conversation.") from None
            raise
        self._keep(arguments, messages, completion)

    def _keep(self, arguments: Any, messages: list[dict[str, Any]], completion: Completion) -> None:
        if arguments.chat and completion.text:
            self.session.messages = [*messages, completion.message]
        if arguments.output:
            self._variables[arguments.output] = completion

    @property
    def _variables(self) -> dict[str, Any]:
        assert self.shell is not None
        variables: dict[str, Any] = self.shell.user_ns
        return variables

    def _answer_display(self) -> AnswerDisplay:
        return NotebookAnswer() if self._rich else TerminalAnswer()

    def _launch_display(self) -> Progress:
        return NotebookLaunch() if self._rich else TerminalLaunch()


def _sampling(arguments: Any) -> Sampling:
    sampling: Sampling = {}
    if arguments.temperature is not None:
        sampling["temperature"] = arguments.temperature
    if arguments.max_tokens is not None:
        sampling["max_tokens"] = arguments.max_tokens
    if arguments.top_p is not None:
        sampling["top_p"] = arguments.top_p
    if arguments.seed is not None:
        sampling["seed"] = arguments.seed
    if arguments.stop:
        sampling["stop"] = arguments.stop
    return sampling
