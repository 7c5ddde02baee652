"""The page about a run: whole in one file, and a browser shows it."""

import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from toy import TRAINER

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
EMPTY = ("meta", "img", "br")


class Page(HTMLParser):
    """What a page holds, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.text = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in EMPTY:
            self.open.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture
def run(book, mpcli):
    book(toy=TRAINER.replace("Somebody, 1999.", "    a < b & c\n\nSomebody, 1999."))
    made = mpcli("train", "toy", "--steps", 4, "--kind", "b").path
    assert mpcli("sample", made).code == 0
    return made


def test_a_report_is_one_file_that_holds_everything(run, mpcli):
    path = mpcli("report", "toy").path
    assert path == run / "report.html"
    page = Page(path.read_text())
    text = "".join(page.text)
    for words in ("a < b & c", "1999", "mpcli train toy --steps 4 --kind b", "layers", "4,4", "loss", "done"):
        assert words in text, words
    assert len(page.sources) == 2  # the curves, and the picture of the run that was made from this one
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert path.read_text() == Path(mpcli("report", run, "--out", "again.html").out.strip()).read_text()
    assert mpcli("report", run, "--out", "report.pdf").code == 2
    assert mpcli("report", "nothing").code == 2


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
def test_a_browser_shows_its_pictures(run, mpcli, tmp_path):
    picture = np.zeros((200, 200, 3), np.uint8)
    picture[:] = (3, 200, 99)
    iio.imwrite(run / "samples.png", picture)
    path = mpcli("report", run).path.resolve()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1000,4000"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'shot.png'}", path.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    shot = iio.imread(tmp_path / "shot.png")[..., :3]
    assert (shot == (3, 200, 99)).all(-1).sum() > 30_000
