"""Plans applied to checkpoint files larger than memory, and undone.

Neither torch nor the model's class is needed. Tensors pass through a buffer of fixed size, shards
are cut in parallel, and the result appears in one step.
"""

from __future__ import annotations

from planc.files.cut.apply import Applied, apply_files
from planc.files.cut.restore import restore_files

__all__ = ["Applied", "apply_files", "restore_files"]
