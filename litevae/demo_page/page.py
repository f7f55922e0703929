"""How does the demo's page look, and what happens when a photo is dropped on it?

Everything is served by this machine: no fonts, scripts or statistics of others.
"""

from pathlib import Path
from typing import Any

from litevae.demo_page.shown import DemoError, Shown, about, show

_FONTS = ("system-ui", "-apple-system", "Segoe UI", "sans-serif")
_CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1200px !important; margin: 0 auto !important; }
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
    with gr.Blocks(title=f"LiteVAE: {name}", analytics_enabled=False) as page:
        gr.Markdown(f"## {name}\n{about(model)}")
        with gr.Row():
            with gr.Column(scale=3):
                slider = gr.ImageSlider(
                    pair, label="Original | reconstruction", format="png", interactive=False, type="pil"
                )
            with gr.Column(scale=2):
                file = gr.File(label="Drop a photo", file_types=["image"], type="filepath", height=130)
                numbers = gr.Dataframe(facts, headers=["", ""], interactive=False, show_label=False)
                places = gr.Image(latent, label="Latent, first three channels", format="png", interactive=False)
        file.change(drop, file, [slider, places, numbers], show_progress_on=[slider])
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
    """Of the slider, the picture of the latent, and the table."""
    if result is None:
        return None, None, []
    return (result.original, result.reconstruction), result.latent, [list(row) for row in result.facts()]
