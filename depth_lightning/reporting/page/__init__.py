"""The report page: one HTML file with the numbers, the pictures and their viewer."""

from depth_lightning.reporting.page.images import EncodedImage, PageImage
from depth_lightning.reporting.page.write import PageContent, write_page

__all__ = ["EncodedImage", "PageContent", "PageImage", "write_page"]
