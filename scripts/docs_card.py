"""Draw the picture that links to the documentation show: docs/assets/social.png. It needs Chromium; see docs_look.py.

python scripts/docs_card.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from docs_look import Mode, browser, served

ASSETS: Final = Path(__file__).resolve().parent.parent / "docs" / "assets"
CARD: Final = ASSETS / "social.png"

SIZE: Final = Mode("card", 1200, 630, "light")

PAGE: Final = """\
<!doctype html>
<meta charset="utf-8">
<style>
@font-face { font-family: Inter; src: url(fonts/inter.woff2); font-weight: 100 900; }
@font-face { font-family: Mono; src: url(fonts/jetbrains-mono.woff2); font-weight: 100 800; }
body { margin: 0; padding: 104px 80px; box-sizing: border-box; width: 1200px; height: 630px; color: #e2e8f0;
  background: radial-gradient(1000px 600px at 100% 0, #134e4a, #0f172a 70%); font-family: Inter; }
h1 { display: flex; align-items: center; gap: 24px; margin: 0; font-size: 96px; font-weight: 800;
  letter-spacing: -4px; }
h1 img { height: 100px; }
p { margin: 22px 0 40px; font-size: 40px; line-height: 1.35; letter-spacing: -0.5px; color: #cbd5e1; }
pre { margin: 0; padding: 26px 32px; border-radius: 14px; background: #0b1120; border: 1px solid #1e3a3a;
  font: 26px/1.6 Mono; color: #e2e8f0; }
i { font-style: normal; color: #2dd4bf; } b { font-weight: 400; color: #fca5a5; }
</style>
<h1><img src="logo.svg" alt="">vllmchat</h1>
<p>The typed Python client for vLLM: every parameter is checked before it is sent.</p>
<pre>llm.chat("Hello", <b>temprature</b>=0.5)
<i>Did you mean `temperature`?</i></pre>
"""


def main() -> int:
    """The command line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ASSETS / "fonts", folder / "fonts")
        shutil.copy(ASSETS / "logo.svg", folder)
        (folder / "card.html").write_text(PAGE, encoding="utf-8")
        with served(folder) as base, browser() as chromium:
            chromium.show(SIZE)
            chromium.open(f"{base}card.html")
            chromium.screenshot(CARD)
    return 0


if __name__ == "__main__":
    sys.exit(main())
