"""What a screen prints at a width."""

from __future__ import annotations

from rich.console import Console, RenderableType


def text(renderable: RenderableType, width: int = 140) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get()
