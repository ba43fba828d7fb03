"""Take the picture of a run's report that README.md shows: `python tools/report_picture.py outputs/demo`."""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 960, 690  # the table of answers before and after


def main() -> None:
    """Render `report.html` in headless Chromium and write docs/images/report.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run with report.html")
    page = parser.parse_args().run.resolve() / "report.html"
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None or not page.is_file():
        sys.exit("chromium is not installed" if page.is_file() else f"{page} does not exist")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "report.png"
        options = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={WIDTH},{HEIGHT}",
        ]
        subprocess.run([browser, *options, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True)
        picture = Image.open(shot).convert("RGB").quantize(64)
        picture.save(ROOT / "docs" / "images" / "report.png", optimize=True)


if __name__ == "__main__":
    main()
