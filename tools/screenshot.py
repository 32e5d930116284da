"""Takes pictures of the report's page with Chromium: `python -m tools.screenshot`.

For developers only.  Without arguments it makes docs/images/report.png of the sample report; with
a folder, pictures of many reports, light and dark, wide and narrow, to be looked at.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import msgspec

from phaul.report import Downtime, Report, Way
from phaul.report.html import page
from tools.sample import REPORT, many_rounds

__all__ = ["shoot"]

TARGET = Path(__file__).parent.parent / "docs/images/report.png"
NARROWEST = 500
"""No window of Chromium is narrower: a frame in it is."""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


def shoot(html: str, target: Path, *, width: int, height: int, dark: bool = False) -> None:
    """A picture of the page `html`, in `target`."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "report.html"
        source.write_text(html, encoding="utf-8")
        if width < NARROWEST:
            frame = Path(folder) / "frame.html"
            frame.write_text(
                f'<body style="margin:0"><iframe src="report.html" style="border:0" '
                f'width="{width}" height="{height}"></iframe>',
                encoding="utf-8",
            )
            source = frame
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else []
        subprocess.run(
            [
                "chromium",
                *FLAGS,
                *scheme,
                f"--user-data-dir={folder}/profile",
                f"--window-size={max(width, NARROWEST)},{height}",
                f"--screenshot={target}",
                source.as_uri(),
            ],
            check=True,
            timeout=60,
            capture_output=True,
        )


def samples() -> dict[str, Report]:
    """Reports of all kinds."""
    change = msgspec.structs.replace
    bare = change(REPORT, findings=(), plan=None, max_downtime_s=None, source="", destination="")
    zero = Downtime(freeze_s=0, dump_s=0, restore_s=0, kill_s=0)
    unknown = tuple(
        change(r, begun_s=0.0, dirty_rate=None, predicted_downtime_s=None, wire_bytes=None)
        for r in REPORT.rounds
    )
    sixty = many_rounds(60)
    end = sixty[-1].begun_s + sixty[-1].seconds
    return {
        "sample": REPORT,
        "none": change(
            bare, rounds=(), way=Way.STOP_AND_COPY, explanation="the kernel tracks no memory"
        ),
        "one": change(REPORT, rounds=REPORT.rounds[:1]),
        "sixty": change(
            REPORT,
            rounds=sixty,
            final=change(REPORT.final, begun_s=end),
            seconds=end + 0.5,
            max_downtime_s=0.1,
        ),
        "unknown": change(bare, rounds=unknown, final=change(REPORT.final, begun_s=0.0)),
        "zero": change(bare, rounds=(), downtime=zero, seconds=0.0, memory_bytes=0),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    if folder is None:
        TARGET.parent.mkdir(parents=True, exist_ok=True)
        shoot(page(REPORT), TARGET, width=920, height=1330)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for name, report in samples().items():
        for dark in (False, True):
            for width in (920, 390):
                scheme = "dark" if dark else "light"
                target = folder / f"{name}-{scheme}-{width}.png"
                height = 2300 if width > 500 else 2900
                shoot(page(report), target, width=width, height=height, dark=dark)


if __name__ == "__main__":
    main()
