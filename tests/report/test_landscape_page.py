"""Landscapes on the page, in a real browser: drawn in light and dark, on a phone too, and turned with the mouse."""

import pytest

from tests.support.landscapes import make_line, make_plane, make_spectrum
from tests.support.pages import HOSTILE, WIDTHS, Visit
from tests.support.records import make_record
from trainflat.report import write_report

# What Chromium says of how fast it draws without a graphics card.
REMARKS = ("GL Driver Message", "willReadFrequently", "fallback to software WebGL")


def write_page(folder, plane):
    return write_report([make_record(sparsities=(0.0,))], folder, ["html"], [plane, make_line(), make_spectrum()])


@pytest.mark.parametrize(("width", "scheme"), [("desk", "light"), ("phone", "dark")])
def test_landscapes_are_drawn_and_fit(browser, tmp_path, width, scheme):
    visit = Visit(browser, write_page(tmp_path, make_plane()), WIDTHS[width], scheme)
    page = visit.page
    assert (visit.complaints, len(visit.requests), visit.too_wide()) == ([], 1, [])
    assert len(page.query_selector_all("[id^=landscape-] .plot")) == 1 + 2 + 1  # contours; loss, score; a spectrum
    assert "adam" in page.text_content("#landscape-0-0") and "barrier 0.9" in page.text_content("#landscape-1-0")
    assert page.text_content("nav").count("Landscape") == 1
    ground = visit.color("body", "backgroundColor")
    assert visit.contrast(visit.color("#landscape-0-0 svg > text", "fill"), ground) > 4.5
    assert visit.contrast(visit.color("#landscape-1-0 use", "stroke"), ground) > 3
    page.close()


@pytest.mark.slow
def test_a_surface_is_turned_on_a_page_of_its_own(browser, tmp_path):
    """Dragged sideways it turns, and up stays up."""
    visit = Visit(browser, write_page(tmp_path, make_plane()))
    page = visit.page
    page.click("#landscape-0 a")
    page.wait_for_selector("#landscape-0-0 canvas")
    eye = "document.getElementById('landscape-0-0')._fullLayout.scene._scene.getCamera().eye"
    before, box = page.evaluate(eye), page.query_selector("#landscape-0-0 canvas").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 90, y, steps=4)
    page.mouse.up()
    page.wait_for_function(f"Math.abs({eye}.x - {before['x']}) > 0.1")
    assert page.evaluate(eye)["z"] == pytest.approx(before["z"], abs=0.1)
    assert [text for text in visit.complaints if not any(remark in text for remark in REMARKS)] == []
    page.close()


def test_hostile_names_run_nothing_on_a_phone_in_the_dark(browser, tmp_path):
    names = {"points": {HOSTILE: (0, 0)}, "point_losses": {HOSTILE: 1.0}, "axes": (HOSTILE, HOSTILE)}
    plane = make_plane(HOSTILE, title=HOSTILE).model_copy(update=names)
    report = write_page(tmp_path, plane)
    visit = Visit(browser, report, WIDTHS["phone"], "dark")
    assert (visit.complaints, visit.too_wide()) == ([], [])
    assert '<script>alert("x")</script>' in visit.page.text_content("#landscape-0 h3")
    assert "<b>&amp;" in visit.page.text_content("#landscape-0-0")
    visit.page.close()
    surfaces = Visit(browser, report.parent / "figures" / "surfaces.html", WIDTHS["phone"], "dark")
    surfaces.page.wait_for_selector("#landscape-0-0 canvas")
    assert [text for text in surfaces.complaints if not any(remark in text for remark in REMARKS)] == []
    assert "<script>alert" in surfaces.page.text_content("h2")
    surfaces.page.close()
