"""Safetensors files without torch: strict headers, ranged reads, one-pass writes, sharded sets.

The format is the one of safetensors: eight bytes with the length of a JSON header, the header, the
tensors' bytes one after another without holes. This package handles names, dtypes by their
safetensors name, shapes and bytes.
"""
