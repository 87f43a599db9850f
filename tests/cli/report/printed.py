"""What a screen prints: its text at a width, and the cells of its tables."""

from __future__ import annotations

from rich.console import Console, RenderableType


def text(renderable: RenderableType, width: int = 140) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()


def row(shown: str, first: str) -> list[str]:
    """The cells of the table row that begins with ``first``."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines()]
    return next(cells for cells in rows if cells and cells[0] == first)
