"""Export a network for other programs: python export.py --help."""

from depth_lightning.runs.program import program

if __name__ == "__main__":
    program("export")
