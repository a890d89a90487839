"""Makes what matplotlib draws fit for a page: small SVG whose colours and font are the page's own.

matplotlib writes 30 KB for a plot: every element with its own style, font, group and six decimals. Here each style is
written once for the whole page, a colour of the light theme becomes the variable that the dark theme changes, and a
tenth of a point is the least that can be seen.
"""

import io
import re
from html import escape
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup
from matplotlib.figure import Figure as Canvas

from trainflat.report.palette import GROUND, HEAT_LIGHT, INK, LIGHT, MUTED, RULE, heat_scale

_THEME = {GROUND: "ground", INK: "ink", MUTED: "muted", RULE: "rule"} | {c: f"series-{k}" for k, c in enumerate(LIGHT)}
_COLORS = {color.lower(): f"var(--{name})" for color, name in _THEME.items()}
_COLORS |= {color: f"var(--heat-{k})" for k, color in enumerate(heat_scale(HEAT_LIGHT))}
_LEFT_OUT = {"font-family", "stroke-linejoin", "stroke-linecap", "stroke-miterlimit", "opacity"}
_PLACES = ("d", "x", "y", "width", "height", "points")
_NOTHING = ("fill:none", "stroke:none;fill:none", "")


class Sheet:
    """Collects the styles and the references of all drawings on a page."""

    def __init__(self) -> None:
        self._styles: dict[str, str] = {}
        self._count = 0

    def css(self) -> str:
        """Returns the rules of every style that was used."""
        return "\n".join(f".{name}{{{style}}}" for style, name in self._styles.items())

    def inline(self, canvas: Canvas, label: str = "") -> Markup:
        """Returns a drawing as an ``svg`` element; ``label`` is read out in its place."""
        tips: dict[str, list[str]] = {}
        for artist in canvas.findobj():
            if said := getattr(artist, "tips", None):  # which ``static`` notes
                artist.set_gid(f"tip-{len(tips)}")
                tips[f"tip-{len(tips)}"] = said
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
        root = ET.fromstring(text.getvalue())
        self._count += 1
        body = _Drawing(self, f"i{self._count}-", tips).children(root)
        box = " ".join(f"{float(side):g}" for side in root.attrib["viewBox"].split())
        spoken = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
        return Markup(f'<svg viewBox="{box}" {spoken}>{body}</svg>')

    def style(self, name: str) -> str:
        """Returns the class of a style."""
        return self._styles.setdefault(name, f"s{len(self._styles)}")


class _Drawing:
    """Rewrites the elements of one drawing."""

    def __init__(self, sheet: Sheet, prefix: str, tips: dict[str, list[str]]) -> None:
        self._sheet, self._prefix, self._tips = sheet, prefix, tips
        self._ids: dict[str, str] = {}

    def children(self, node: ET.Element) -> str:
        return "".join(map(self._element, node))

    def _element(self, node: ET.Element) -> str:
        tag = node.tag.rpartition("}")[2]
        if tag in ("metadata", "style"):
            return ""
        inner = escape(node.text or "") if tag == "text" else self.children(node)
        if tag == "g":
            said = self._tips.get(node.attrib.get("id", ""))
            return _titled(inner, said) if said else self._group(node, inner)
        if tag == "defs":
            return f"<defs>{inner}</defs>" if inner else ""
        style = _style(node.attrib.get("style", ""))
        shape = tag == "path" and "id" not in node.attrib
        if shape and style in _NOTHING:
            return ""  # the frame of the figure, of the axes, an invisible spine
        return f"<{tag}{self._attributes(node, style)}>{inner}</{tag}>"

    def _group(self, node: ET.Element, inner: str) -> str:
        clip = node.attrib.get("clip-path")
        return f'<g clip-path="{self._reference(clip)}">{inner}</g>' if clip and inner else inner

    def _attributes(self, node: ET.Element, style: str) -> str:
        found: dict[str, str] = {}
        for key, value in node.attrib.items():
            name = key.rpartition("}")[2]
            if name in _PLACES:
                found[name] = _short(value)
            elif name == "id":
                found[name] = self._name(value)
            elif name in ("href", "clip-path"):
                found[name] = self._reference(value)
            elif name == "transform" and not value.startswith("rotate(-0 "):
                found[name] = _rounded(value)
        if style:
            found["class"] = self._sheet.style(style)
        return "".join(f' {name}="{escape(value)}"' for name, value in found.items())

    def _reference(self, value: str) -> str:
        return re.sub(r"#([\w-]+)", lambda found: f"#{self._name(found[1])}", value)

    def _name(self, name: str) -> str:
        return self._prefix + self._ids.setdefault(name, str(len(self._ids)))


def _titled(inner: str, tips: list[str]) -> str:
    """Gives each marker its tooltip, in order; what has no markers has one for all."""
    if "<use " not in inner:
        return f"<g><title>{escape(tips[0])}</title>{inner}</g>"
    found = iter(tips)
    return re.sub(r"(<use [^>]*>)", lambda use: f"{use[1]}<title>{escape(next(found, ''))}</title>", inner)


def _style(text: str) -> str:
    parts = (part.partition(":") for part in text.split(";") if ":" in part)
    found: dict[str, Any] = {key.strip(): value.strip() for key, _, value in parts}
    return ";".join(
        f"{key}:{_COLORS.get(value.lower(), _rounded(value))}" for key, value in found.items() if key not in _LEFT_OUT
    )


def _rounded(text: str) -> str:
    return re.sub(r"-?\d+\.\d+", lambda found: f"{round(float(found[0]), 1):g}", text)


def _short(path: str) -> str:
    """Writes a path in few letters: a command that follows itself is understood."""
    text = re.sub(r" ?([A-Za-z]) ?", r"\1", " ".join(_rounded(path).split()))
    return text if "C" in text or "Q" in text else text.replace("L", " ")
