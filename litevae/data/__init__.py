"""Where do the images come from? The built-in photographs, a folder, and the crops that training sees.

[image] -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses
"""

from litevae.data.config import DataConfig
from litevae.data.crops import CropStream
from litevae.data.images import UnreadableImageError, read_image
from litevae.data.sources import Photo, PhotoSource, open_sources

__all__ = ["CropStream", "DataConfig", "Photo", "PhotoSource", "UnreadableImageError", "open_sources", "read_image"]
