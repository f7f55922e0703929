"""Models that leave Python, or this package: `export_model` writes them, `python -m litevae.export` is its command.

image -> [DWT -> feature extraction -> aggregation -> latent -> decoder] -> losses
"""

from litevae.exporting.export import ExportError, export_model
from litevae.exporting.verification import Exported

__all__ = ["ExportError", "Exported", "export_model"]
