"""What stops a run because of its data? One exception, for the command line to print; and errors as one line.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""


class DataError(Exception):
    """No images to train or evaluate with; the message names the source and the way out, on one line."""


def one_line(error: BaseException) -> str:
    """The text of an error, its line breaks taken out; its type if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
