"""The web page of `python -m litevae.demo`: `shown.py` says what it shows of a photo, `page.py` how, in gradio."""
