"""How does the demo's page look, and what happens when a photo is dropped on it?

Everything is served by this machine: no fonts, scripts or statistics of others.
"""

from pathlib import Path
from typing import Any

from litevae.demo_page.shown import DemoError, Shown, about, show

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
_CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1160px !important; margin: 0 auto !important; }
.facts { display: flex; gap: 12px; margin: 0; }
.facts div { flex: 1; padding: 12px 16px; border-radius: 8px; background: var(--block-background-fill); }
.facts dt { color: var(--body-text-color-subdued); font-size: 13px; }
.facts dd { margin: 2px 0 0; font-size: 20px; font-weight: 600; color: var(--body-text-color); }
.facts small { display: block; font-size: 13px; font-weight: 400; line-height: 1.2; }
.facts small { color: var(--body-text-color-subdued); }
"""


def build_page(model: Any, name: str, max_side: int, photo: Path | None = None) -> Any:
    """The page, a gradio.Blocks, to be launched by `serve`.

    Args:
        model: a LiteVAE or StableDiffusionVAE in eval mode.
        name: what the title calls it.
        max_side: photos are shrunk to this.
        photo: shown when the page opens; None: nothing is.

    Raises:
        DemoError: `photo` cannot be shown.
        ModuleNotFoundError: gradio is not installed.
    """
    import gradio as gr

    first = None if photo is None else show(model, photo, max_side)

    def drop(path: str | None) -> tuple[Any, ...]:
        if path is None:
            return _contents(None)
        try:
            result = show(model, path, max_side)
        except DemoError as error:
            raise gr.Error(str(error), duration=None) from error
        if result.was_shrunk:
            gr.Info(f"The photo was shrunk to {' x '.join(map(str, result.original.size))} pixels.")
        return _contents(result)

    pair, latent, facts = _contents(first)
    picture: Any = {"format": "png", "type": "pil", "interactive": False, "buttons": ["download", "fullscreen"]}
    with gr.Blocks(title=f"LiteVAE: {name}", analytics_enabled=False) as page:
        with gr.Row(equal_height=True):
            with gr.Column():
                gr.Markdown(f"# {name}\n{about(model)}")
            with gr.Column():
                file = gr.File(label="Photo", file_types=["image"], type="filepath", height=120)
        with gr.Row(equal_height=True):
            slider = gr.ImageSlider(pair, label="Original | reconstruction", **picture)
            places = gr.Image(latent, label="Latent: channels 1 to 3 as red, green, blue", **picture)
        table = gr.HTML(facts, padding=False)
        file.change(drop, file, [slider, places, table], show_progress_on=[slider])
    return page


def serve(page: Any, port: int | None, share: bool) -> str:
    """Launch a page in threads of their own; returns its address.

    Raises:
        OSError: the port is taken.
    """
    import gradio as gr

    theme = gr.themes.Soft(primary_hue="blue", font=_FONTS, font_mono=("ui-monospace", "monospace"))
    _, local, public = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=share,
        quiet=True,
        prevent_thread_lock=True,
        ssr_mode=False,
        theme=theme,
        css=_CSS,
    )
    return str(public or local)


def _contents(result: Shown | None) -> tuple[Any, ...]:
    """Of the slider, the picture of the latent, and the numbers."""
    if result is None:
        return None, None, ""
    tiles = "".join(
        f"<div><dt>{what}</dt><dd>{value}<small>{more}</small></dd></div>" for what, value, more in result.facts()
    )
    return (result.original, result.reconstruction), result.latent, f'<dl class="facts">{tiles}</dl>'
