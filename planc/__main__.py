"""``python -m planc`` runs the command ``planc``, for launchers such as torchrun."""

from __future__ import annotations

from planc.cli import main

if __name__ == "__main__":
    main()
