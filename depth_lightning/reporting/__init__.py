"""Output for people: panels, tables, pages and loggers."""

from depth_lightning.reporting.panels import draw_panel, draw_tiles, save_png, stack_panels
from depth_lightning.reporting.tables import print_table

__all__ = ["draw_panel", "draw_tiles", "print_table", "save_png", "stack_panels"]
