"""Markdown from a model, made harmless.

JupyterLab sanitises Markdown only in outputs it does not trust, and it trusts the output of a cell that was just run:
raw HTML in it is live, scripts and all. What a model writes may come from a document it was given, so nothing of it may
become HTML, load a picture (its address can carry text out) or link to anything but a web page.

The text keeps its look: in prose, what is dangerous is written as character references, which no Markdown parser takes
for syntax; in code, where references would show, the code is written anew so that every parser sees it as code.
"""

import re
from collections.abc import Iterator
from html import escape

# "<" before anything that could start a tag, an autolink, a comment or a processing instruction.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_PICTURE = re.compile(r"!(?=\[)")
# A link target or definition is let through when it is the web, mail, or a place in the same document.
_LINK = re.compile(r"\](?=\((?!\s*(?:https?://|mailto:|#)))", re.IGNORECASE)
_DEFINITION = re.compile(r"\](?=:(?!\s*(?:https?://|mailto:|#)))", re.IGNORECASE)
_DANGEROUS = re.compile("|".join(pattern.pattern for pattern in (_TAG, _PICTURE, _LINK, _DEFINITION)), re.IGNORECASE)

_FENCE = re.compile(r"^\s*(?P<fence>`{3,}|~{3,})(?P<info>[^`\n]*)$")
_FENCE_LIKE = re.compile(r"`{3,}|~{3,}")
_LANGUAGE = re.compile(r"[\w+#.-]{1,30}")
_CODE_OR_MATH = re.compile(
    r"(?P<code>(?<![`\\])(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))|(?P<math>\$(?![\s$])[^$`]+(?<!\s)\$(?!\d))"
)
_MATH_LINES = {"$$", "\\[", "\\]"}


def safe_markdown(text: str) -> str:
    """`text` as Markdown that looks the same and cannot carry HTML, scripts or pictures. Unclosed code is closed."""
    return "\n".join(part for block in _blocks(text) for part in block)


def _blocks(text: str) -> Iterator[list[str]]:
    """The text in blocks of lines: fenced code, and what is between."""
    prose: list[str] = []
    in_math = False
    lines = iter(text.split("\n"))
    for line in lines:
        opening = _FENCE.match(line)
        if opening is None:
            in_math ^= line.strip() in _MATH_LINES
            # TeX does not mind the space, and a reference would show.
            prose.append(_safe_line(_TAG.sub("< ", line) if in_math else line))
            continue
        yield prose
        prose = []
        yield _code_block(line, opening, lines)
    yield prose


def _code_block(first: str, opening: re.Match[str], lines: Iterator[str]) -> list[str]:
    fence = opening["fence"]
    closing = re.compile(rf"^\s*{re.escape(fence[0])}{{{len(fence)},}}\s*$")
    code: list[str] = []
    last = first[: opening.start("fence")] + fence
    for line in lines:
        if closing.match(line):
            last = line
            break
        code.append(line)
    if not any(map(_DANGEROUS.search, [first, *code])):
        return [first, *code, last]
    if any(map(_FENCE_LIKE.search, code)):
        # A line of this code could close the fence that a parser sees: HTML of our own needs no fence.
        return ["", "<pre><code>" + "\n".join(map(_references, code)).replace("\n", "&#10;") + "</code></pre>", ""]
    # With a language the line cannot close a fence, and at the margin it opens one in every context.
    language = _LANGUAGE.match(opening["info"].strip())
    return ["", f"```{language[0] if language else 'text'}", *code, "```", ""]


def _safe_line(line: str) -> str:
    parts: list[str] = []
    end = 0
    for match in _CODE_OR_MATH.finditer(line):
        parts += [_safe_prose(line[end : match.start()]), _safe_span(match)]
        end = match.end()
    joined = "".join([*parts, _safe_prose(line[end:])])
    # Syntax may straddle two parts, as in `](` before a span: then the whole line is prose.
    return joined if not _DANGEROUS.search(joined.replace("<code>", "").replace("</code>", "")) else _safe_prose(line)


def _safe_span(match: re.Match[str]) -> str:
    span = match[0]
    if not _DANGEROUS.search(span):
        return span
    if match["math"]:
        return _safe_prose(_TAG.sub("< ", span))
    code = span.strip("`")
    return f"<code>{_references(code.removeprefix(' ').removesuffix(' '))}</code>"


def _safe_prose(text: str) -> str:
    text = _TAG.sub("&lt;", text)
    text = _PICTURE.sub("&#33;", text)
    return _DEFINITION.sub("&#93;", _LINK.sub("&#93;", text))


def _references(code: str) -> str:
    """Code with every character that is syntax in Markdown or HTML as a character reference."""
    return "".join(
        character if character.isalnum() or character in " \n" else f"&#{ord(character)};" for character in code
    )


def safe_html(text: str) -> str:
    """Plain text as HTML, lines kept."""
    return escape(text).replace("\n", "<br>")
