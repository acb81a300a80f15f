"""The page in a headless Chromium: what a person does with it."""

import re
import time

import numpy as np
import pytest
from headless import Browser, find_chromium
from planted_page import Planted, make_page, room

from depth_lightning.metrics import ERRORS, Protocol
from depth_lightning.reporting.colour import DEPTH_COLOURS, colourise
from depth_lightning.reporting.page.images import chosen
from depth_lightning.sample import DepthKind

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium, which this machine does not have")

HOSTILE = 'a</script><script>document.title = "hacked"</script><img src=x onerror="document.title=1">'


def closeness(prediction, target, mask):
    """A metric of one's own, of which more is better."""
    return 1 - ERRORS["abs_rel"](prediction, target, mask)


closeness.higher_is_better = True


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    try:
        window = Browser(tmp_path_factory.mktemp("chromium"))
    except (RuntimeError, OSError) as error:
        pytest.skip(f"needs Chromium, which does not start on this machine: {error}")
    yield window
    window.close()


@pytest.fixture(scope="module")
def planted():
    """By id. Twenty, so that some are small alone; one of a hostile name is the worst."""
    images = [room(index, 0.02 * (1 + index), scene=f"scene {index % 7}") for index in range(19)]
    images.append(room(99, 0.9, id=HOSTILE, scene=HOSTILE))
    return {one.id: one for one in images}


@pytest.fixture(scope="module")
def page(planted, tmp_path_factory):
    curves = [{"step": str(step), "train/loss": str(1 / (step + 1)), "val/abs_rel": "0.1"} for step in range(1000)]
    errors, words = {**ERRORS, "mine": closeness}, {"title": HOSTILE, "notes": [HOSTILE]}
    return make_page(tmp_path_factory.mktemp("page"), planted.values(), errors=errors, curves=curves, **words)


@pytest.fixture
def opened(browser, page):
    browser.resize(1300, 900)
    browser.open(page.path)
    return browser


def _rows(browser):
    return browser.run("[...document.querySelectorAll('#list tbody .name button')].map((one) => one.textContent)")


def _figure(browser, index):
    """A selector of the large figure of an image, once it and its neighbours are there."""
    selector = f'#pictures figure[data-image="{index}"]'
    _scroll(browser, selector)
    browser.wait_for(f"document.querySelector('{selector} .tile canvas')?.width > 10")
    _scroll(browser, selector)
    return selector


def _scroll(browser, selector):
    """Scroll until it is in the middle, and nothing that is still filled moves it."""
    before = None
    while True:
        browser.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
        browser.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        now = browser.run(f"[scrollY, document.querySelector('{selector}').getBoundingClientRect().top]")
        if now == before:
            return
        before = now
        time.sleep(0.1)


def _place(browser, selector, x, y):
    """The place in the window of a share (x, y) of an element, once it has stood still for five frames."""
    left, top, width, height = browser.run(
        f"""(async () => {{
            let still = 0, before = '';
            while (still < 5) {{
                await new Promise(requestAnimationFrame);
                const b = document.querySelector('{selector}').getBoundingClientRect();
                const now = [b.left, b.top, b.width, b.height];
                still = String(now) === before ? still + 1 : 0;
                before = String(now);
                if (still === 5) return now;
            }}
        }})()"""
    )
    return left + x * width, top + y * height


def _pixel(browser, selector, x, y):
    """The colour at a share (x, y) of a canvas."""
    return browser.run(
        f"(() => {{const c = document.querySelector('{selector}');"
        f"return [...c.getContext('2d').getImageData({x} * c.width, {y} * c.height, 1, 1).data].slice(0, 3)}})()"
    )


def _read(browser, figure):
    """x, y, truth, prediction and error in percent, as the page says; None where it says there is none."""
    text = browser.run(f"document.querySelector('{figure} .read').textContent")
    found = re.fullmatch(
        r"x (\d+), y (\d+) · truth (none|[\d.]+ m) · prediction ([\d.]+) m(?: · error ([+−]?[\d.]+) %)?", text
    )
    assert found, text
    x, y, truth, prediction, error = found.groups()
    truth = None if truth == "none" else float(truth.removesuffix(" m"))
    return int(x), int(y), truth, float(prediction), error and float(error.replace("−", "-"))


def _shown(page, role):
    return chosen(page.images)["depth", role][0]


def test_it_loads_without_a_complaint_or_a_request(opened, page):
    index = _shown(page, "worst")
    assert page.images[index].id == HOSTILE
    _figure(opened, index)
    _scroll(opened, "#list thead")
    opened.wait_for("document.querySelector('#list canvas')")
    assert opened.errors() == []
    assert opened.run("document.title") == HOSTILE
    assert opened.run("document.querySelector('h1').textContent") == f"Evaluation of {HOSTILE}"
    assert opened.run("document.querySelectorAll('img').length") == 0
    assert len(_rows(opened)) == 20
    assert opened.run("document.querySelectorAll('#run .chart').length") == 2


def test_a_script_that_is_not_the_pages_own_is_not_run(browser, page, tmp_path):
    text = page.path.read_text()
    (tmp_path / "changed.html").write_text(text.replace("<main>", "<main><script>document.title='hacked'</script>"))
    browser.open(tmp_path / "changed.html")
    assert browser.run("document.title") == HOSTILE
    assert any("Content Security Policy" in error for error in browser.errors())


@pytest.mark.parametrize(
    "name, first", [("abs_rel", "ascending"), ("delta1", "ascending"), ("rmse", "descending"), ("mine", "ascending")]
)
def test_the_sort_sorts(opened, page, name, first):
    """Worst first, or the other way where that is how the table stands: by abs_rel."""
    table = page.result.per_image()
    ascending = [table["id"][row] for row in np.argsort(table[name], kind="stable")]
    assert _rows(opened)[:3] == [one.id for one in sorted(page.images, key=lambda one: -one.error)][:3]  # worst first
    button = f"[...document.querySelectorAll('#list thead button')].find((b) => b.textContent.startsWith('{name} '))"
    opened.run(f"{button}.focus()")
    found = []
    for _ in range(2):
        opened.press("Enter")
        found.append((opened.run(f"{button}.parentElement.ariaSort"), _rows(opened)))
    assert [way for way, _ in found] == sorted(["ascending", "descending"], reverse=first == "descending")
    for way, ids in found:
        values = [table[name][table["id"].index(identity)] for identity in ids]
        assert values == sorted(values, reverse=way == "descending") and len(ids) == len(ascending)


def test_the_filter_filters(opened, page):
    table = page.result.per_image()

    def fill(name, value):
        opened.run(
            f"(() => {{const e = document.getElementById('filter-{name}'); e.value = '{value}';"
            "e.dispatchEvent(new Event('input', {bubbles: true}))})()"
        )

    metrics = opened.run("[...document.querySelectorAll('#filter-metric option')].map((o) => o.textContent)")
    fill("metric", next(i for i, label in enumerate(metrics) if label.startswith("rmse ")))
    low, high = (float(end) for end in np.quantile(table["rmse"], [0.3, 0.6]))
    fill("from", low)
    fill("to", high)
    expected = {name for name, value in zip(table["id"], table["rmse"], strict=True) if low <= value <= high}
    assert set(_rows(opened)) == expected and 3 < len(expected) < 12
    assert opened.run("document.getElementById('filter-count').textContent") == f"{len(expected)} of 20 images"
    fill("text", "SCENE 3")
    scenes = dict(zip(table["id"], table["scene"], strict=True))
    assert set(_rows(opened)) == {name for name in expected if scenes[name] == "scene 3"}
    opened.run("document.querySelector('.filters button[type=reset]').click()")
    opened.wait_for("document.querySelectorAll('#list tbody tr').length === 20")


@pytest.mark.parametrize("role", ["worst", "best"])
def test_the_read_out_reads_the_arrays(opened, page, planted, role):
    index = _shown(page, role)
    image, one = page.images[index], planted[page.images[index].id]
    figure = _figure(opened, index)
    for tile, (row, column) in enumerate([(0, 0), (47, 63), (20, 31), (8, 12)], 1):
        canvas = f"{figure} .tile:nth-child({tile}) canvas"
        opened.mouse("moved", *_place(opened, canvas, (column + 0.5) / 64, (row + 0.5) / 48))
        x, y, truth, prediction, error = _read(opened, figure)
        assert (x, y) == (column, row)
        assert prediction == pytest.approx(one.prediction[row, column], abs=0.51 * image.large.prediction.step + 1e-4)
        if not one.mask[row, column]:
            assert truth is None and error is None
            continue
        assert truth == pytest.approx(one.target[row, column], abs=0.51 * image.large.truth.step + 1e-4)
        assert error == pytest.approx(100 * (one.prediction[row, column] / one.target[row, column] - 1), abs=0.05)
    assert not one.mask[8, 12]


def test_the_scale_of_errors_says_where_it_ends(opened, page):
    figure = _figure(opened, _shown(page, "worst"))
    words = opened.run(f"document.querySelector('{figure} .scales > div:last-child .keys').textContent")
    assert words == "blue: too near, red: too far; ends: ≥ 25 %"


def test_keys_read_and_zoom(opened, page, planted):
    index = _shown(page, "worst")
    one, figure = planted[page.images[index].id], _figure(opened, _shown(page, "worst"))
    canvas = f"{figure} .tile:nth-child(2) canvas"
    opened.run(f"document.querySelector('{canvas}').focus()")
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        opened.press(key)
    opened.press("ArrowLeft", shift=True)
    x, y, truth, *_ = _read(opened, figure)
    assert (x, y) == (32 + 1 - 10, 24 + 1)
    assert truth == pytest.approx(one.target[25, 23], abs=1e-3)
    for _ in range(3):
        opened.press("+")
    # Zoomed about what is read, 3.375 times: the middle of the canvas lies between it and where the middle was.
    opened.mouse("moved", *_place(opened, canvas, 0.5, 0.5))
    x, y, truth, *_ = _read(opened, figure)
    expected = [(place + 0.5) / size for place, size in ((23, 64), (25, 48))]
    expected = [share + (0.5 - share) / 3.375 for share in expected]
    assert (x, y) == (int(expected[0] * 64), int(expected[1] * 48))
    assert truth == pytest.approx(one.target[y, x], abs=1e-3)
    opened.press("0")
    opened.mouse("moved", *_place(opened, canvas, 0.01, 0.01))
    assert _read(opened, figure)[:2] == (0, 0)
    opened.press("Tab")  # and on to the next picture, as any reader of the page may
    assert opened.run(f"document.activeElement === document.querySelector('{figure} .tile:nth-child(3) canvas')")


def test_the_slider_slides(opened, page, planted):
    index = _shown(page, "worst")
    image, one, figure = page.images[index], planted[page.images[index].id], _figure(opened, index)
    opened.run(f"document.querySelectorAll('{figure} .tools button')[1].click()")
    opened.wait_for(f"document.querySelector('{figure} .handle canvas')?.width > 10")
    colours = {
        name: colourise(values, image.low, image.high, colours=DEPTH_COLOURS).astype(int)
        for name, values in (("truth", one.target), ("prediction", one.prediction))
    }

    def is_shown(name, row, column):
        found = _pixel(opened, f"{figure} .handle canvas", (column + 0.5) / 64, (row + 0.5) / 48)
        return np.abs(np.array(found) - colours[name][row, column]).max() <= 3

    far = np.abs(colours["truth"] - colours["prediction"]).max(axis=-1) > 40
    left, right = (int(np.flatnonzero(far[40, part])[0]) + part.start for part in (slice(14, 20), slice(42, 50)))
    assert is_shown("truth", 40, left) and is_shown("prediction", 40, right)
    opened.run(f"document.querySelector('{figure} input[type=range]').focus()")
    opened.press("End")
    assert is_shown("truth", 40, left) and is_shown("truth", 40, right)
    opened.press("Home")
    assert is_shown("prediction", 40, left) and is_shown("prediction", 40, right)
    start, end = (_place(opened, f"{figure} .handle canvas", x, 0.5) for x in (0.02, 0.5))
    opened.mouse("moved", *start)
    opened.mouse("pressed", *start, buttons=1)
    opened.mouse("moved", *end, buttons=1)
    opened.mouse("released", *end)
    assert is_shown("truth", 40, left) and is_shown("prediction", 40, right)
    assert float(opened.run(f"document.querySelector('{figure} input[type=range]').value")) == pytest.approx(50, abs=1)


def test_any_image_opens_and_the_next_one_too(opened, page, planted):
    small = next(index for index, image in enumerate(page.images) if image.large is None)
    one = planted[page.images[small].id]
    opened.run(f"document.querySelector('tr[data-image=\"{small}\"] button').focus()")
    opened.press("Enter")
    figure = f'#viewer figure[data-image="{small}"]'
    opened.wait_for(f"document.querySelector('{figure} .tile canvas')?.width > 10")
    opened.mouse("moved", *_place(opened, f"{figure} .tile:nth-child(3) canvas", 30.5 / 64, 20.5 / 48))
    x, y, truth, prediction, _ = _read(opened, figure)
    assert (x, y) == (30, 20)
    steps = page.images[small].small
    assert truth == pytest.approx(one.target[20, 30], abs=0.6 * steps.truth.step)
    assert prediction == pytest.approx(one.prediction[20, 30], abs=0.6 * steps.prediction.step)
    place = _rows(opened).index(one.id)
    opened.press("PageDown")
    opened.wait_for(f"document.querySelector('#viewer figcaption b')?.textContent === {_rows(opened)[place + 1]!r}")
    opened.press("Escape")
    assert not opened.run("document.getElementById('viewer').open")
    assert opened.errors() == []


def test_points_can_be_turned(opened, page, planted):
    index = _shown(page, "best")
    figure = _figure(opened, index)
    opened.run(f"document.querySelectorAll('{figure} .tools button')[2].click()")
    canvas = f"{figure} .points canvas"
    if not opened.run(f"!!document.querySelector('{canvas}')"):
        pytest.skip("this Chromium has no WebGL")
    opened.wait_for(f"document.querySelector('{canvas}').dataset.points")
    assert int(opened.run(f"document.querySelector('{canvas}').dataset.points")) == 48 * 64

    def picture():
        return opened.run(f"document.querySelector('{canvas}').toDataURL()")

    before = picture()
    opened.run(f"document.querySelector('{canvas}').focus()")
    opened.press("ArrowLeft")
    assert picture() != before
    for name, points in (("truth", planted[page.images[index].id].mask.sum()), ("both", None)):
        opened.run(
            f"(() => {{const s = document.querySelector('{figure} .points select'); s.value = '{name}';"
            "s.dispatchEvent(new Event('change'))})()"
        )
        found = int(opened.run(f"document.querySelector('{canvas}').dataset.points"))
        assert found == (points or 48 * 64 + planted[page.images[index].id].mask.sum())
    assert opened.errors() == []


def test_without_webgl_there_is_a_text_in_the_place_of_points(opened, page):
    figure = _figure(opened, _shown(page, "best"))
    opened.run("HTMLCanvasElement.prototype.getContext = () => null")
    opened.run(f"document.querySelectorAll('{figure} .tools button')[2].click()")
    assert "needs WebGL" in opened.run(f"document.querySelector('{figure} .points').textContent")


def test_light_and_dark(opened):
    def background():
        return opened.run("getComputedStyle(document.body).backgroundColor")

    opened.run("localStorage.clear()")
    opened.theme("dark")
    dark = background()
    opened.theme("light")
    light = background()
    assert dark != light
    seen = []
    for _ in range(3):
        opened.run("document.getElementById('theme').click()")
        seen.append((opened.run("document.getElementById('theme').textContent"), background()))
    assert seen == [("Theme: light", light), ("Theme: dark", dark), ("Theme: system", light)]


def test_a_narrow_screen_needs_no_scrolling_sideways(opened, page):
    opened.resize(360, 740, phone=True)
    for index in chosen(page.images)["depth", "worst"]:
        _figure(opened, index)
    assert opened.run("document.documentElement.scrollWidth") <= 360
    sizes = opened.run("[...document.querySelectorAll('#pictures .tile canvas')].map((c) => c.clientWidth)")
    assert min(sizes) > 140


def test_what_can_be_focused_has_a_name(opened, page):
    _figure(opened, _shown(page, "worst"))
    _scroll(opened, "#list thead")
    opened.wait_for("document.querySelector('#list canvas')")
    opened.send("Accessibility.enable")
    nodes = opened.send("Accessibility.getFullAXTree")["nodes"]
    seen = [node for node in nodes if not node["ignored"]]
    wanted = {"button", "link", "textbox", "searchbox", "combobox", "spinbutton", "slider", "image", "dialog", "region"}
    unnamed = [node["role"]["value"] for node in seen
               if node["role"]["value"] in wanted and not node.get("name", {}).get("value")]  # fmt: skip
    assert unnamed == []
    assert len([node for node in seen if node["role"]["value"] in wanted]) > 50


def test_single_points_can_be_seen_and_are_read_where_they_are(browser, tmp_path):
    depth = np.full((100, 600), 3, np.float32)
    depth[:, 300:] = 6
    mask = np.zeros(depth.shape, bool)
    mask[10::20, 10::20] = True
    page = make_page(tmp_path, [Planted("sweep", depth * mask, mask, depth)])
    browser.resize(1300, 900)
    browser.open(page.path)
    figure = _figure(browser, 0)
    browser.run(f"document.querySelectorAll('{figure} .tools button')[1].click()")
    browser.run(f"document.querySelector('{figure} input[type=range]').focus()")
    browser.press("End")
    canvas = f"{figure} .handle canvas"
    nearest, hole = DEPTH_COLOURS[0].tolist(), [128, 128, 128]
    y = 30.5 / 100
    for column, colour in ((10, nearest), (11, nearest), (13, hole)):
        assert np.abs(np.array(_pixel(browser, canvas, (column + 0.5) / 600, y)) - colour).max() <= 3, column
    for column, truth in ((10, "3.0000 m"), (11, "none"), (13, "none")):
        browser.mouse("moved", *_place(browser, canvas, (column + 0.5) / 600, y))
        assert f"truth {truth}" in browser.run(f"document.querySelector('{figure} .read').textContent"), column
    _scroll(browser, "#list tbody tr")
    browser.wait_for("document.querySelector('#list canvas')")
    strip = browser.run("(({width, height}) => [width, height])(document.querySelector('#list canvas'))")
    assert strip == [164 + 4 + 164, 27 + 4 + 27]  # so wide an image would be a line of 13 pixels beside three others


def test_other_kinds_of_truth_are_said(browser, tmp_path):
    depth = np.random.default_rng(0).uniform(1, 8, (48, 64)).astype(np.float32)
    everywhere = np.ones(depth.shape, bool)
    kinds = {
        "metres": (DepthKind.METRES, depth),
        "scale": (DepthKind.UP_TO_SCALE, depth / 5),
        "disparity": (DepthKind.DISPARITY, 5 / depth + 1),
    }
    planted = [Planted(name, target, everywhere, 3 / depth + 0.2, kind) for name, (kind, target) in kinds.items()]
    page = make_page(tmp_path, planted, output="relative", protocol=Protocol(alignment="scale_shift_disparity"))
    browser.resize(1300, 900)
    browser.open(page.path)
    titles = browser.run("[...document.querySelectorAll('#pictures h3')].map((one) => one.textContent)")
    assert {"Worst by abs_rel (depth)", "Worst by affine_error (disparity)"} <= set(titles)
    for index, image in enumerate(page.images):
        figure = _figure(browser, index)
        text = browser.run(f"document.querySelector('{figure}').textContent")
        browser.mouse("moved", *_place(browser, f"{figure} .tile canvas", 0.5, 0.5))
        browser.wait_for(f"document.querySelector('{figure} .read').textContent")
        read = browser.run(f"document.querySelector('{figure} .read').textContent")
        truth = kinds[image.id][1][24, 32]
        assert float(re.search(r"truth ([\d.]+)", read)[1]) == pytest.approx(truth, abs=2e-3)
        assert float(re.search(r"prediction ([\d.]+)", read)[1]) == pytest.approx(truth, rel=3e-3)
        assert (" m " in read) == (image.id == "metres")
        assert ("red: too near" in text) == (image.id == "disparity")
        assert ("truth: depth up to scale" in text) == (image.id == "scale")
        assert ("truth: disparity up to scale and shift" in text) == (image.id == "disparity")
        browser.run(f"document.querySelectorAll('{figure} .tools button')[2].click()")
        said = browser.run(f"document.querySelector('{figure} .points').textContent")
        assert ("no shape in space" in said) == (image.id == "disparity")
        assert ("up to scale" in said) == (image.id != "metres")
    assert browser.errors() == []


HEADINGS = ["Results", "Pictures", "Where the error is", "Training", "All images", "Reproduce"]


def _headings(browser):
    return browser.run("[...document.querySelectorAll('main h2')].map((one) => one.textContent)")


def _scene_rows(browser):
    """The scenes whose rows are visible in the table of scenes, or None where there is no such table."""
    return browser.run(
        """(() => {
            const tables = [...document.querySelectorAll('.numbers')];
            const table = tables.find((one) => one.caption.textContent.startsWith('By scene'));
            if (!table) return null;
            const visible = [...table.querySelectorAll('tbody tr')].filter((row) => row.offsetHeight);
            return visible.map((row) => row.cells[0].textContent);
        })()"""
    )


def _scenes(number, images_each):
    return [
        room(index, 0.02 * (1 + index % number), height=12, width=16, scene=f"scene {index % number}")
        for index in range(number * images_each)
    ]


def test_the_sections_come_in_the_order_of_a_readers_questions(opened):
    assert _headings(opened) == HEADINGS
    assert opened.run("[...document.querySelectorAll('nav a')].map((one) => one.textContent)") == HEADINGS
    assert opened.run("[...document.querySelectorAll('#pictures h3')].map((one) => one.textContent)") == [
        "Worst by abs_rel",
        "Best by abs_rel",
        "Random",
    ]


def test_what_holds_for_all_pictures_stands_above_them(opened, page):
    way = "The prediction is what the network gives, in metres."
    assert opened.run("document.querySelector('#pictures .note').textContent").startswith(way)
    index = _shown(page, "best")
    caption = opened.run(f"document.querySelector('{_figure(opened, index)} figcaption').textContent")
    image, table = page.images[index], page.result.per_image()
    numbers = [f"{name} {table[name][index]:.4f}" for name in ("abs_rel", "rmse", "delta1", "valid_share")]
    assert caption == " · ".join([image.id, image.scene, *numbers])


def test_the_worst_picture_is_in_the_first_window(browser, tmp_path):
    page = make_page(tmp_path, [room(0), room(1)], title="checkpoint run/checkpoints/best.ckpt", notes=3 * ["A note."])
    browser.resize(1400, 900)
    browser.open(page.path)
    browser.wait_for("document.querySelector('#pictures .tile canvas')?.width > 10")
    assert browser.run("scrollY") == 0
    assert browser.run("document.querySelector('#pictures .tile canvas').getBoundingClientRect().bottom") <= 900


def test_what_a_page_has_nothing_for_has_no_section(browser, tmp_path):
    browser.open(make_page(tmp_path, [room(0), room(1)], breakdowns=False).path)
    assert _headings(browser) == ["Results", "Pictures", "All images", "Reproduce"]
    target, everywhere = np.linspace(1, 5, 48 * 64, dtype=np.float32).reshape(48, 64), np.ones((48, 64), bool)
    disparity = Planted("web", target, everywhere, 1 / target[::-1], DepthKind.DISPARITY)
    browser.open(make_page(tmp_path, [disparity]).path)
    assert _headings(browser) == ["Results", "Pictures", "All images", "Reproduce"]
    metrics = browser.run("[...document.querySelectorAll('#results tbody th')].map((one) => one.textContent)")
    assert metrics == ["affine_error ↓", "ordinal_error ↓"]


def test_nothing_scrolls_sideways_at_1400_pixels(browser, page, tmp_path):
    named = [room(index, id=f"a_rather_long_recording/{index:06d}_of_its_left_camera.png",
                  scene=f"a_rather_long_recording_of_a_house_{index // 2}") for index in range(24)]  # fmt: skip
    columns = {"columns": {"model": dict.fromkeys(ERRORS, 11.1164), "always 1.80 m": {}}}
    aligned = make_page(tmp_path, named, protocol=Protocol(alignment="scale_shift_depth"), **columns)
    browser.resize(1400, 900)
    for path in (page.path, aligned.path):
        browser.open(path)
        _scroll(browser, "#list tbody tr")
        browser.wait_for("document.querySelector('#list canvas')")
        assert browser.run("document.documentElement.scrollWidth") <= 1400
        wide = browser.run(
            "[...document.querySelectorAll('main *')].filter((one) => getComputedStyle(one).overflowX === 'auto'"
            " && one.scrollWidth > one.clientWidth).map((one) => one.ariaLabel)"
        )
        assert wide == []
    assert browser.run("document.querySelectorAll('#list th').length") == 24 + 1 + 11 + 3


def test_the_ten_worst_scenes_are_shown_and_the_others_on_request(browser, tmp_path):
    page = make_page(tmp_path, _scenes(12, 2))
    table = page.result.per_image()
    averages = {
        scene: np.mean([error for other, error in zip(table["scene"], table["abs_rel"], strict=True) if other == scene])
        for scene in table["scene"]
    }
    worst_first = sorted(averages, key=averages.__getitem__, reverse=True)
    browser.open(page.path)
    assert _scene_rows(browser) == worst_first[:10]
    more = "document.querySelector('.more')"
    assert browser.run(f"{more}.textContent") == "Show all 12"
    browser.run(f"{more}.focus()")
    for expected, label, expanded in ((12, "Show fewer", "true"), (10, "Show all 12", "false")):
        browser.press("Enter")
        assert _scene_rows(browser) == worst_first[:expected]
        assert browser.run(f"[{more}.textContent, {more}.ariaExpanded]") == [label, expanded]


@pytest.mark.parametrize(("scenes", "images_each", "rows"), [(12, 1, None), (1, 12, None), (10, 2, 10)])
def test_a_table_of_scenes_is_where_it_says_more_than_that_of_images(browser, tmp_path, scenes, images_each, rows):
    browser.open(make_page(tmp_path, _scenes(scenes, images_each)).path)
    shown = _scene_rows(browser)
    assert (shown and len(shown)) == rows
    assert browser.run("document.querySelector('.more')") is None


def test_without_scripts_all_scenes_are_shown(browser, tmp_path):
    page = make_page(tmp_path, _scenes(12, 2))
    browser.send("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page.path)
        assert len(_scene_rows(browser)) == 12
        assert browser.run("document.querySelector('.more').offsetHeight") == 0
        assert "need JavaScript" in browser.run("document.querySelector('noscript').textContent")
    finally:
        browser.send("Emulation.setScriptExecutionDisabled", value=False)


def test_a_bin_with_hardly_any_pixels_is_hollow_and_leaves_the_scale_to_the_others(browser, tmp_path):
    near = room(0, height=96, width=128)
    near.target[50, 60:63], near.prediction[50, 60:63] = 0.3, 4.7
    page = make_page(tmp_path, [near])
    (first, *others) = page.result.breakdowns.by_distance
    assert first["to_m"] == 0.5 and first["share"] < 3e-4 and first["abs_rel"] > 14
    browser.resize(1400, 900)
    browser.open(page.path)
    for chart in (1, 2):
        bars = browser.run(
            f"""[...document.querySelectorAll('#errors .chart:nth-child({chart}) .bar')].map((one) => {{
                const bar = one.querySelector('rect'), style = getComputedStyle(bar);
                const height = Number(bar.getAttribute('height'));
                return [style.fill, style.strokeDasharray, height, one.querySelector('title').textContent];
            }})"""
        )
        (fill, dashes, _, words), *dense = bars
        assert fill == "rgba(0, 0, 0, 0)" and dashes != "none"
        assert words.startswith("0 to 0.5 m, <\xa00.1\xa0% of the pixels (3): abs_rel 14.6667, bias +1466.7\xa0%")
        assert len(dense) == len(others) and all(style[0] != fill and style[1] == "none" for style in dense)
        assert max(height for _, _, height, _ in dense) > 180  # of 198
    rows = browser.run("[...document.querySelector('#errors .numbers').rows].map((row) => row.textContent)")
    assert rows[1] == "0 to 0.5 m<\xa00.1\xa0%14.6667+1466.7\xa0%0.0000"
