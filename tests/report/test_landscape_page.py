"""Landscapes on the page, in a real browser: drawn in light and dark, on a phone too, and turned with the mouse."""

import pytest

from tests.support.landscapes import make_line, make_plane, make_spectrum
from tests.support.pages import HOSTILE, WIDTHS, Visit
from tests.support.records import make_record
from trainflat.report import write_report

# What Chromium says of how fast it draws without a graphics card.
REMARKS = ("GL Driver Message", "willReadFrequently", "fallback to software WebGL")


def visit_page(browser, folder, plane, width, scheme):
    """The visit to a report, once its surface is drawn."""
    report = write_report([make_record(sparsities=(0.0,))], folder, ["html"], [plane, make_line(), make_spectrum()])
    visit = Visit(browser, report, WIDTHS[width], scheme)
    visit.page.wait_for_selector("#landscape-0-1 canvas")
    return visit


def assert_quiet_and_fitting(visit):
    page = visit.page
    assert [text for text in visit.complaints if not any(remark in text for remark in REMARKS)] == []
    assert len(visit.requests) == 1
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    plots = page.query_selector_all("[id^=landscape-] .plot")
    assert len(plots) == 2 + 2 + 1  # contours and a surface; loss and score along a line; a spectrum
    for plot in plots:
        box = plot.query_selector(".main-svg").bounding_box()
        assert box["width"] > 150
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= page.viewport_size["width"]
    ground = visit.color("body", "backgroundColor")
    assert visit.contrast(visit.color("#landscape-0-0 .annotation text", "fill"), ground) > 7
    label = page.query_selector("#landscape-0-0 .annotation rect.bg").get_attribute("style")
    assert "fill-opacity: 0.8" in label  # names can be read on any colour
    assert visit.contrast(visit.color("#landscape-1-0 .js-line", "stroke"), ground) > 3


@pytest.mark.slow
def test_landscapes_are_drawn_and_the_surface_is_turned(browser, tmp_path):
    visit = visit_page(browser, tmp_path, make_plane(), "desk", "light")
    page = visit.page
    assert page.text_content("#landscape-0-0 .infolayer").count("adam") == 1
    assert "barrier 0.9" in page.text_content("#landscape-1-0")
    assert page.text_content("nav").count("Landscape") == 1
    turn(page)
    assert_quiet_and_fitting(visit)
    page.close()


def turn(page):
    """Drags the surface sideways: it turns, and up stays up."""
    eye = "document.getElementById('landscape-0-1')._fullLayout.scene._scene.getCamera().eye"
    page.query_selector("#landscape-0-1").scroll_into_view_if_needed()
    before, box = page.evaluate(eye), page.query_selector("#landscape-0-1 canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y, steps=4)
    page.mouse.up()
    page.wait_for_function(f"Math.abs({eye}.x - {before['x']}) > 0.1")
    assert page.evaluate(eye)["z"] == pytest.approx(before["z"], abs=0.1)


def test_hostile_names_run_nothing_on_a_phone_in_the_dark(browser, tmp_path):
    names = {"points": {HOSTILE: (0, 0)}, "point_losses": {HOSTILE: 1.0}, "axes": (HOSTILE, HOSTILE)}
    plane = make_plane(HOSTILE, title=HOSTILE).model_copy(update=names)
    visit = visit_page(browser, tmp_path, plane, "phone", "dark")
    assert_quiet_and_fitting(visit)
    assert '<script>alert("x")</script>' in visit.page.text_content("#landscape-0 .head")
    assert "<b>&amp;" in visit.page.text_content("#landscape-0-0 .annotation")
    visit.page.close()
