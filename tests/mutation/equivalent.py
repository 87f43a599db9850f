"""Mutants that no test can kill, for they do what the code does: each with the reason."""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {
    "planc/codec/files.py:: 'O_BINARY' -> 'O_BINARY?'": "only Windows has it, where 0 stands else",
    "planc/codec/checks.py:_check_modules: seen.add(id(module.attributes)) -> pass": (
        "it only saves looking at a row again"
    ),
    "planc/codec/kinds.py:load_any: 12 -> 13": "kind_of looks at the first 12 bytes only",
    "planc/codec/checks.py:_check_changes: _same_types(change.before, change.after) -> "
    "_same_types(change.after, change.before)": "whether types are the same is symmetric",
    "planc/checkpoint/chosen.py:_first_apart: zip(path, best, strict=False) -> "
    "zip(best, path, strict=False)": "whether keys differ is symmetric",
    "planc/checkpoint/native.py:_whole: assert entry.dtype is not None -> pass": (
        "it tells the type checker what state_dict_in has made sure of"
    ),
    "planc/checkpoint/pickled.py:_shard: found.whole is not None and found.path[:-1] == outer -> "
    "found.path[:-1] == outer": ("it tells the type checker what state_dict_in has made sure of"),
    "planc/checkpoint/pickled.py:_safetensors: assert shard.joined is not None -> pass": (
        "it tells the type checker what _shard has made"
    ),
    "planc/checkpoint/save.py:_parts: 1 -> 0": "of the parts there, only the first is ever empty",
    "planc/fingerprint.py:Form.digest: b'' -> b'?'": "all parts are replaced",
    "planc/fingerprint.py:_changed: _same(change.after, found[key]) -> "
    "_same(found[key], change.after)": "whether values are the same is symmetric",
    "planc/fingerprint.py:_tensor_difference: 0 -> -1 #1": (
        "a tensor of which some names are known and some are not was named before as tied"
    ),
    "planc/fingerprint.py:_module_difference: _same(value, values[name]) -> "
    "_same(values[name], value)": "whether values are the same is symmetric",
    "planc/fingerprint.py:attribute_rows: sorted(m.attributes, key=lambda pair: pair[0]) -> "
    "sorted(m.attributes)": "names are unique, so that they decide",
    "planc/tensorfiles/header.py:parse_text: entry.start > end -> entry.start >= end": (
        "the two are known to differ there"
    ),
    "planc/tensorfiles/header.py:parse_text: 1 -> 2": (
        "text_length looks at the length and one byte more"
    ),
}
