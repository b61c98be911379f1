"""The little of Markdown that a test double needs: paragraphs, links, code and bold text."""

import re
from html import escape

_INLINE = re.compile(
    r"`(?P<code>[^`\n]+)`"
    r"|\*\*(?P<bold>[^*\n]+)\*\*"
    r"|\[(?P<label>[^\]\n]+)\]\((?P<target>(?:https?:/)?/[^\s)]+)\)"
    r"|(?P<url>https?://[^\s<>()]+)"
)
URL = re.compile(r"https?://[^\s<>()]+")


def _replace(match: re.Match[str]) -> str:
    groups = match.groupdict()
    if groups["code"]:
        return f"<code>{escape(groups['code'])}</code>"
    if groups["bold"]:
        return f"<strong>{escape(groups['bold'])}</strong>"
    target = groups["target"] or groups["url"]
    return f'<a href="{escape(target)}">{escape(groups["label"] or target)}</a>'


def render(content: str) -> str:
    """Message text to safe HTML."""
    paragraphs = []
    for paragraph in re.split(r"\n{2,}", content.strip()):
        parts, end = [], 0
        for match in _INLINE.finditer(paragraph):
            parts += [escape(paragraph[end : match.start()]), _replace(match)]
            end = match.end()
        parts.append(escape(paragraph[end:]))
        paragraphs.append("<p>{}</p>".format("".join(parts).replace("\n", "<br>\n")))
    return "\n".join(paragraphs)
