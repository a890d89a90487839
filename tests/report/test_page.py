"""The page in a real browser: it renders, asks for nothing, fits a phone, and follows the light and the dark."""

import pytest

from tests.support.pages import HOSTILE, WIDTHS, Visit, luminance
from tests.support.records import make_record, make_records
from trainflat.report import write_report

LINE, TICK = "#score-0-0 use", "#score-0-0 svg > text"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    other = make_record(optimizer={"name": "sam", "base": "adamw", "lr": 2e-5, "rho": 0.01})
    return write_report([*make_records(), other], tmp_path_factory.mktemp("report"), ["html"])


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=WIDTHS)
def visit(request, browser, report, scheme):
    visit = Visit(browser, report, WIDTHS[request.param], scheme)
    yield visit
    visit.page.close()


def test_the_page_is_quiet_whole_and_fits(visit, scheme):
    page = visit.page
    assert visit.complaints == []
    assert len(visit.requests) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    plots = page.query_selector_all(".plot:visible")
    # Scores by size and by sparsity; differences; a map of zeros per line; three kinds of training curves per panel.
    assert len(plots) == 2 + 2 + 2 + 5 + 6
    for plot in plots:
        box = plot.query_selector("svg, table").bounding_box()
        assert box["width"] > 150
        assert box["height"] > 80
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.viewport_size["width"]
    ground, line = visit.color("body", "backgroundColor"), visit.color(LINE, "stroke")
    assert (luminance(ground) > 0.5) == (scheme == "light")
    assert visit.contrast(visit.color("body", "color"), ground) > 7
    assert visit.contrast(visit.color("figcaption", "color"), ground) > 4.5
    assert visit.contrast(visit.color(".plain", "color"), visit.color(".plain", "backgroundColor")) > 7
    assert visit.contrast(visit.color("nav a", "color"), ground) > 4.5
    assert visit.contrast(visit.color(TICK, "fill"), ground) > 4.5
    assert visit.contrast(line, ground) > 3
    for k in range(6):
        token = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--series-{k}')").strip()
        assert visit.contrast(tuple(int(token[i : i + 2], 16) for i in (1, 3, 5)), ground) > 3, token


@pytest.fixture(scope="module")
def desk(browser, report):
    """One visit for the tests below, each of which leaves it as it was."""
    visit = Visit(browser, report)
    yield visit
    visit.page.close()


def test_figures_follow_when_the_system_turns_dark(desk):
    before = desk.color(LINE, "stroke"), desk.color(TICK, "fill")
    desk.page.emulate_media(color_scheme="dark")
    after = desk.color(LINE, "stroke"), desk.color(TICK, "fill")
    assert before != after
    assert desk.contrast(after[1], desk.color("body", "backgroundColor")) > 7
    assert desk.complaints == []
    desk.page.emulate_media(color_scheme="light")


def test_a_chosen_sparsity_is_shown(desk):
    page = desk.page
    (first,) = page.query_selector_all("#zeros-1 .choice:checked")
    shown = page.inner_text("#zeros-1 .plots")
    page.check("#zeros-1 .choice:not(:checked) >> nth=0", force=True)
    assert page.inner_text("#zeros-1 .plots") != shown
    first.check(force=True)
    assert page.inner_text("#zeros-1 .plots") == shown
    assert desk.complaints == []


def test_a_link_unfolds_a_section_and_paper_unfolds_all(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri() + "#costs")
    assert page.get_attribute("#costs > details", "open") is not None
    assert page.get_attribute("#runs > details", "open") is None
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.query_selector_all("details:not([open])") == []
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.get_attribute("#runs > details", "open") is None
    page.close()


def test_the_page_says_what_a_reader_needs(desk):
    text = desk.page.text_content("main")
    assert "Unstructured zeros alone do not speed up dense kernels" in text
    assert "Na et al. 2022, SAM" in desk.page.text_content("#score-1 .legend")
    assert "reference sparsity 50 %" in desk.page.text_content("#score-1")
    assert "sam (rho 0.01)" in desk.page.text_content("#score-1 .legend")
    # Its radius is told here too, because it is another one in the other panel.
    assert desk.page.query_selector("#score-0 .legend").text_content() == "adamwsam (rho 0.05)"
    assert "adamw: 50 %:" in desk.page.text_content("#score-0 use title >> nth=3")
    details = desk.page.query_selector("#runs details")
    assert "2e" * 32 in details.text_content()  # the data's fingerprint
    assert '"optimizer"' in details.text_content()  # the recipe


def test_hostile_names_run_nothing_and_break_nothing(browser, tmp_path):
    record = make_record(HOSTILE, HOSTILE + "long" * 60, optimizer={"name": HOSTILE}, name=HOSTILE, partial=True)
    path = write_report([record], tmp_path, ["html"])
    visit = Visit(browser, path, WIDTHS["phone"])
    assert visit.complaints == []
    assert len(visit.requests) == 1
    assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert '<script>alert("x")</script>' in visit.page.text_content("#score-0 h3")
    assert "<b>&amp;" in visit.page.text_content("#score-0 .legend")
    assert "Partial data: not comparable with published figures." in visit.page.text_content("#score-0 figcaption")
    visit.page.close()
