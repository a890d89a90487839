"""Text that must not become markup, and a page opened in a browser."""

import re
from collections.abc import Sequence

from trainflat.records.landscape import Landscape
from trainflat.records.run import Record
from trainflat.report.elements import Figure
from trainflat.report.sections import show
from trainflat.report.sections.base import Results, Section
from trainflat.report.tables import to_markdown

HOSTILE = '</script><script>alert("x")</script> $\\frac{ %{x} {{911*911}} <b>&amp;'


WIDTHS = {"desk": (1280, 900), "phone": (390, 844)}


def figures_of(section: Section, records: Sequence[Record], landscapes: Sequence[Landscape] = ()) -> list[Figure]:
    """The figures of one section, one per panel or landscape that has any."""
    return [each for entry in section.show(Results.of(records, landscapes)).entries for each in entry.figures]


def markdown(*records: Record) -> str:
    """The tables of a report on these runs, for people."""
    results = Results.of(records)
    return to_markdown(results, show(results))


class Visit:
    """A page that writes down what it asks for and what goes wrong."""

    def __init__(self, browser, path, size=WIDTHS["desk"], scheme="light"):
        self.requests, self.complaints = [], []
        self.page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.goto(path.as_uri())
        self.page.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")

    def color(self, selector: str, style: str) -> tuple[int, ...]:
        value = self.page.eval_on_selector(selector, f"e => getComputedStyle(e)[{style!r}]")
        return tuple(map(int, re.findall(r"\d+", value)[:3]))

    def too_wide(self) -> list[str]:
        """What is wider than the window; nothing may be out of sight."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('html, main svg, table, td, th, h2')].filter((e) => !e.closest('thead'))"
            ".filter((e) => e.scrollWidth > innerWidth || e.getBoundingClientRect().right > innerWidth + 1)"
            ".map((e) => e.outerHTML.slice(0, 200))"
        )
        return found

    def contrast(self, front: tuple[int, ...], back: tuple[int, ...]) -> float:
        """Ratio of relative luminances by WCAG 2: 4.5 is the least for text, 3 for lines."""
        light, dark = sorted(map(luminance, (front, back)), reverse=True)
        return (light + 0.05) / (dark + 0.05)


def luminance(color: tuple[int, ...]) -> float:
    parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
