"""Markdown read as a syntax tree: lists and headings for the spec, and everything that a reader would not see.

Rules it keeps:
1. Nothing is dropped. What a rendered page would hide (comments, styled or hidden elements, link
   definitions) stays in the text, marked as data: `⟦hidden comment: …⟧`.
2. Code is code: the same characters in a fence or a code span are left as they are.
3. Nothing is fetched; where links and images lead is said in a notice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html.parser import HTMLParser

from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.html_inline import html_inline
from markdown_it.token import Token

from vestibule.core.text.names import NameRefused, canonical_host
from vestibule.core.text.sanitize import one_line

_PLAIN_ATTRIBUTES = frozenset({"href", "src", "alt", "title", "align", "open", "id", "name", "colspan", "rowspan"})
_PLAIN_TAGS = frozenset(
    "a b blockquote br center code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img ins kbd li ol p pre q "  # noqa: SIM905
    "s samp small span strike strong sub summary sup table tbody td tfoot th thead tr tt ul var".split()
)
_ACTIVE_TAGS = frozenset(
    "applet audio base button canvas embed form frame frameset head html iframe input link math meta noscript object "  # noqa: SIM905
    "param script select slot source style svg template textarea title video".split()
)
_NO_SIZE = re.compile(r"\s*0*1?(?:\.[0-9]+)?\s*(?:px|%|em|pt)?\s*\Z", re.IGNORECASE)
_CHECKBOX = re.compile(r"\[[ xX]\]\s+")
_URL_HOST = re.compile(r"(?:https?:)?//(?:[^/?#@\s]*@)?([^/?#:\s]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a top-level list, with the heading it stands under. `checkbox` marks `- [ ]`."""

    heading: str
    text: str
    checkbox: bool


@dataclass
class Reading:
    """What a Markdown text says. `visible` is the text with hidden things written out."""

    visible: str = ""
    headings: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    misleading: list[str] = field(default_factory=list)


def read_markdown(text: str) -> Reading:
    """Read `text` (line feeds only). Never raises for any text."""
    env: dict[str, object] = {}
    tokens = _parser().parse(text, env)
    reading = Reading()
    lines = text.split("\n")
    heading = ""
    depth = 0
    item: list[str] | None = None
    for index, token in enumerate(tokens):
        if token.type == "html_block" and token.map:
            _replace(lines, token, _show_html(token.content.rstrip("\n"), reading))
        elif token.type == "inline":
            _inline(token, lines, reading)
            plain = _plain(token)
            if tokens[index - 1].type == "heading_open":
                heading = plain
                reading.headings.append(plain)
            elif item is not None:
                item.append(plain)
        elif token.type == "fence" and item is not None:
            item.append(token.content.strip())
        elif token.type == "list_item_open":
            depth += 1
            if depth == 1:
                item = []
        elif token.type == "list_item_close":
            depth -= 1
            if depth == 0 and item is not None:
                _add_item(reading, heading, "; ".join(part for part in item if part))
                item = None
    _references(env, reading)
    reading.visible = "\n".join(lines)
    return reading


def _parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark").enable("table")
    parser.inline.ruler.at("html_inline", _placed_html)
    return parser


def _placed_html(state: StateInline, silent: bool) -> bool:
    """The library's rule, with the place in the source noted on the token."""
    start = state.pos
    if not html_inline(state, silent):
        return False
    if not silent:
        state.tokens[-1].meta = {"start": start, "end": state.pos}
    return True


def _inline(token: Token, lines: list[str], reading: Reading) -> None:
    content = token.content
    shown: list[str] = []
    last = 0
    for child in token.children or ():
        if child.type == "html_inline" and "start" in child.meta:
            shown.append(content[last : child.meta["start"]])
            shown.append(_show_html(child.content, reading))
            last = child.meta["end"]
    shown.append(content[last:])
    if last:
        _replace(lines, token, "".join(shown))
    _links(token.children or [], reading)


def _replace(lines: list[str], token: Token, new: str) -> None:
    """Put `new` where the token stands, keeping what containers (quotes, lists) put before each line."""
    if not token.map:
        return
    begin, end = token.map
    old = token.content.rstrip("\n").split("\n")
    parts = new.split("\n")
    for offset, line in enumerate(old):
        number = begin + offset
        if number >= min(end, len(lines)) or offset >= len(parts):
            return
        at = lines[number].find(line) if line else len(lines[number])
        if at < 0:
            at = len(lines[number]) - len(lines[number].lstrip())
            lines[number] = lines[number][:at] + parts[offset]
        else:
            lines[number] = lines[number][:at] + parts[offset] + lines[number][at + len(line) :]


def _show_html(text: str, reading: Reading) -> str:
    """HTML with comments and elements that can hide text written out. Keeps the number of lines."""
    out: list[str] = []
    position = 0
    while (start := text.find("<", position)) >= 0:
        out.append(text[position:start])
        if text.startswith("<!--", start):
            stop = text.find("-->", start + 4)
            # Marks of its own would end ours early.
            inner = text[start + 4 : stop if stop >= 0 else len(text)].replace("⟦", "[").replace("⟧", "]")
            position = stop + 3 if stop >= 0 else len(text)
            out.append(f"⟦hidden comment:{inner if inner[:1].isspace() else ' ' + inner}⟧")
            reading.hidden.append(f"hidden comment: {one_line(inner.strip())}")
            continue
        stop = text.find(">", start)
        position = stop + 1 if stop >= 0 else len(text)
        tag = text[start:position]
        why = _can_hide(tag)
        if why:
            reading.hidden.append(f"{why}: {one_line(tag)}")
            out.append(f"⟦{why}: {tag}⟧")
        else:
            out.append(tag)
    out.append(text[position:])
    return "".join(out)


class _Tag(HTMLParser):
    name = ""
    attributes: Sequence[tuple[str, str | None]] = ()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.name, self.attributes = tag, attrs

    handle_startendtag = handle_starttag


def _can_hide(tag: str) -> str:
    """Why the content of this tag may differ from what a reader sees; empty for plain formatting."""
    if tag.startswith(("<!", "<?")):
        return "hidden declaration"
    if tag.startswith("</"):
        return ""
    parser = _Tag(convert_charrefs=True)
    parser.feed(tag)
    if parser.name in _ACTIVE_TAGS:
        return "active element"
    if parser.name not in _PLAIN_TAGS:  # `Vec<String>` is no element; it stands in the text as written
        return "hidden element" if parser.attributes else ""
    sizes = {name: value for name, value in parser.attributes if name in ("width", "height")}
    if any(_NO_SIZE.match(value or "") for value in sizes.values()):
        return "hidden element"
    if any(name not in _PLAIN_ATTRIBUTES and name not in sizes for name, _ in parser.attributes):
        return "hidden element"
    return ""


def _links(children: Sequence[Token], reading: Reading) -> None:
    target: str | None = None
    label: list[str] = []
    for child in children:
        if child.type == "image":
            source = str(child.attrGet("src") or "")
            reading.images.append(one_line(f"{child.content} ({source})" if child.content else source))
            if host := _host(source):
                reading.hosts.append(host)
        elif child.type == "link_open":
            target, label = str(child.attrGet("href") or ""), []
            title = child.attrGet("title")
            if title:
                reading.hidden.append(f"hidden link title: {one_line(str(title))}")
            if host := _host(target):
                reading.hosts.append(host)
        elif child.type == "link_close" and target is not None:
            said, real = _host("".join(label)), _host(target)
            if said and said != real:
                reading.misleading.append(f"{one_line(''.join(label))} leads to {one_line(target)}")
            target = None
        elif target is not None:
            label.append(child.content)


def _references(env: dict[str, object], reading: Reading) -> None:
    """Link definitions are never rendered, so text can hide in their labels and titles."""
    references = env.get("references")
    if not isinstance(references, dict):
        return
    for name, reference in references.items():
        title = str(reference.get("title") or "")
        if title:
            reading.hidden.append(f"hidden link definition: {one_line(f'[{name}] {title}')}")
        if host := _host(str(reference.get("href") or "")):
            reading.hosts.append(host)


def _host(url: str) -> str:
    match = _URL_HOST.match(url.strip())
    if not match:
        return ""
    try:
        return canonical_host(match.group(1))
    except NameRefused:
        return one_line(match.group(1), 100)


def _plain(token: Token) -> str:
    parts = []
    for child in token.children or ():
        if child.type in ("softbreak", "hardbreak"):
            parts.append(" ")
        elif child.type != "html_inline":
            parts.append(child.content)
        elif child.content.startswith("<!") or _can_hide(child.content):
            parts.append(_show_html(child.content, Reading()))
    return " ".join("".join(parts).split())


def _add_item(reading: Reading, heading: str, text: str) -> None:
    box = _CHECKBOX.match(text)
    plain = text[box.end() :] if box else text
    if plain.strip():
        reading.items.append(Item(heading, plain.strip(), box is not None))
