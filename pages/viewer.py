"""The viewer of a photograph and a layer over it on a page of Gradio, with the script of the result page."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import quote

VIEWER = """<div class="bar">
  <label>Photograph over it, from the left <input type="range" class="share" value="50"></label>
  <button type="button" class="smaller" aria-label="Zoom out">−</button>
  <button type="button" class="larger" aria-label="Zoom in">+</button>
  <button type="button" class="whole">Fit</button>
  <button type="button" class="screen">Full screen</button>
</div>
<div class="stage" tabindex="0" role="region" aria-label="Picture; the arrow keys move it when it is zoomed">
  <div class="stack"></div>
</div>"""
VIEWER_STYLE = """
& { display: flex; flex-direction: column; gap: 0.5em; background: var(--body-background-fill); }
.bar { display: flex; flex-wrap: wrap; gap: 0.5em; align-items: center; }
.bar label { display: flex; flex-wrap: wrap; gap: 0.5em; }
.bar button { min-width: 2.5em; padding: 0.2em 0.6em; border: 1px solid currentcolor; border-radius: 4px; }
.stage { display: flex; height: min(70vh, 700px); overflow: auto; overscroll-behavior: contain;
  background: #000; cursor: grab; touch-action: none; }
&:fullscreen .stage { flex: 1; }
.stack { display: grid; flex: none; margin: auto; }
.stack img { grid-area: 1 / 1; width: 100%; height: 100%; max-width: none; min-width: 0;
  min-height: 0; margin: 0; }
.stack.pixels img { image-rendering: pixelated; }
"""
# the name of a button begins with what stands on it
PLAIN_NAMES = """() => {
  const name = () => document.querySelector("#files button[aria-dropeffect]")?.removeAttribute("aria-label");
  new MutationObserver(name).observe(document.body, {subtree: true, childList: true});
  name();
}"""
START = """
const part = name => element.querySelector(`.${name}`);
const stage = part("stage"), stack = part("stack"), share = part("share");
const {fit, zoomTo, zoomBy} = zoomable(stage, stack);
function put() {
  stack.innerHTML = props.value || "";
  for (const img of stack.children) img.onload = () => fit();
  divide(stack, share.value);
}
share.oninput = () => divide(stack, share.value);
const keys = {"+": () => zoomBy(1.5), "=": () => zoomBy(1.5), "-": () => zoomBy(1 / 1.5), 0: () => zoomTo(1)};
part("larger").onclick = keys["+"];
part("smaller").onclick = keys["-"];
part("whole").onclick = keys[0];
part("screen").onclick = () => (
  document.fullscreenElement ? document.exitFullscreen() : element.requestFullscreen());
stage.onkeydown = event => event.ctrlKey || event.metaKey || event.altKey || keys[event.key]?.();
new ResizeObserver(() => fit()).observe(stage);
watch("value", put);
put();
"""


def viewer_script() -> str:
    """The functions that zoom and divide pictures."""
    return Path(__file__).with_name("viewer.js").read_text(encoding="utf-8")


def pictures(photograph: Path, layer: Path, name: str, title: str) -> str:
    """What the viewer shows: a photograph and a layer of its size, files that Gradio serves, as HTML."""
    return "".join(
        f'<img src="gradio_api/file={quote(str(path))}" alt="{html.escape(what)} of {html.escape(name)}" '
        f'draggable="false">'
        for path, what in ((photograph, "Photograph"), (layer, title))
    )
