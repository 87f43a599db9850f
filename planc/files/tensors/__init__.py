"""Safetensors files without torch: headers read strictly, tensors read in ranges, files written in
one pass; single files and sets of shards with their index.

The format is that of safetensors: eight bytes with the length of a JSON header, the header, the
tensors' bytes one after another without holes. Everything here works on names, dtypes by their
safetensors name, shapes and bytes.
"""
