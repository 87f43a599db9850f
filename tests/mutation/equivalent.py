"""Mutants that no test can kill, for they do what the code does: each with the reason."""

from __future__ import annotations

_LATE = "fullmatch takes all of a name, be it late"
EQUIVALENT: dict[str, str] = {
    "planc/files/disk/limits.py:Limits.check_string: len(text) * 4 > self.string -> "
    "len(text) * 4 >= self.string": "it only saves encoding short strings",
    "planc/files/disk/limits.py:Limits.check_string: 4 -> 5": "so it is",
    "planc/files/formats/records.py:_decode: zip(packed, again, strict=False) -> "
    "zip(again, packed, strict=False)": "whether bytes differ is symmetric",
    "planc/files/formats/coverage.py:_is_box: "
    "return False -> return None": "all() takes both alike",
    "planc/files/formats/conversion.py:_bitmap: "
    "1 -> 2": "any negative length is the one to be found",
    "planc/files/formats/conversion.py:_bitmap: "
    "'little' -> 'little?'": "NumPy reads six letters of it",
    "planc/files/formats/conversion.py:_from_bitmap: 'little' -> 'little?'": "as above",
    "planc/files/formats/conversion.py:_from_bitmap: 'little' -> 'little?' #1": "as above",
    "planc/files/formats/checks.py:_check_changes: same_types(change.before, change.after) -> "
    "same_types(change.after, change.before)": "whether types are the same is symmetric",
    "planc/files/pickles/chosen.py:_first_apart: zip(path, best, strict=False) -> "
    "zip(best, path, strict=False)": "whether keys differ is symmetric",
    "planc/files/pickles/native.py:_whole: assert entry.dtype is not None -> pass": (
        "it tells the type checker what state_dict_in has made sure of"
    ),
    "planc/files/pickles/pickled.py:_shard: "
    "found.whole is not None and found.path[:-1] == outer -> "
    "found.path[:-1] == outer": ("it tells the type checker what state_dict_in has made sure of"),
    "planc/files/pickles/pickled.py:_safetensors: assert shard.joined is not None -> pass": (
        "it tells the type checker what _shard has made"
    ),
    "planc/files/checkpoint/save.py:_parts: "
    "1 -> 0": "of the parts there, only the first is ever empty",
    "planc/plan/fingerprint.py:_changed: _same(change.after, found[key]) -> "
    "_same(found[key], change.after)": "whether values are the same is symmetric",
    "planc/plan/fingerprint.py:_tensor_difference: 0 -> -1 #1": (
        "a tensor of which some names are known and some are not was named before as tied"
    ),
    "planc/plan/fingerprint.py:_module_difference: _same(value, values[name]) -> "
    "_same(values[name], value)": "whether values are the same is symmetric",
    "planc/plan/fingerprint.py:attribute_rows: sorted(m.attributes, key=lambda pair: pair[0]) -> "
    "sorted(m.attributes)": "names are unique, so that they decide",
    "planc/files/tensors/distributed.py:_shape: zip(p.offsets, p.shape, strict=True) -> "
    "zip(p.shape, p.offsets, strict=True)": "a sum is symmetric",
    "planc/files/tensors/pieces.py:JoinedFile._stretch: zip(piece.shape, whole.shape, strict=True) "
    "-> zip(whole.shape, piece.shape, strict=True)": "whether sizes differ is symmetric",
    "planc/files/tensors/pieces.py:_check: _overlap(one, other) -> _overlap(other, one)": (
        "whether two overlap is symmetric"
    ),
    "planc/files/tensors/reader.py:TensorFile.__init__: 1 -> 2": (
        "text_length looks at the length and one byte more"
    ),
    "planc/files/tensors/reader.py:is_same_file: os.path.samestat(first.stat(), second.stat()) -> "
    "os.path.samestat(second.stat(), first.stat())": "whether files are the same is symmetric",
    "planc/files/tensors/reader.py:_is_cached: os.posix_fadvise(descriptor, 0, 0, "
    "os.POSIX_FADV_NORMAL) -> os.posix_fadvise(descriptor, 0, os.POSIX_FADV_NORMAL, 0)": (
        "POSIX_FADV_NORMAL is 0"
    ),
    "planc/files/tensors/shards.py:: '[^\\\\x00-\\\\x1f\\\\x7f/\\\\\\\\:*?\\\\\"<>|]+' -> "
    "'[^\\\\x00-\\\\x1f\\\\x7f/\\\\\\\\:*?\\\\\"<>|]+?'": _LATE,
    "planc/files/tensors/shards.py:: '(con|prn|aux|nul|com\\\\d|lpt\\\\d)(\\\\..*)?' -> "
    "'(con|prn|aux|nul|com\\\\d|lpt\\\\d)(\\\\..*)??'": _LATE,
    "planc/files/tensors/shards.py:check_apart: is_same_file(path, target) -> "
    "is_same_file(target, path)": "whether files are the same is symmetric",
    "planc/files/disk/stream.py:_File._write: return 0 -> return None": (
        "a slice from None on is one from 0 on"
    ),
    "planc/files/cut/apply.py:_write_directory: assert begun is not None -> pass": (
        "it tells the type checker what the first process gives"
    ),
    "planc/files/cut/masking.py:MaskRemoval.whole: 'little' -> 'little?'": (
        "numpy looks at the first letter"
    ),
    "planc/files/cut/uncutting.py:_kept: assert position is not None -> pass": (
        "it tells the type checker that the box lies in the piece"
    ),
    "planc/files/cut/uncutting.py:_places: first >= last -> first > last": (
        "no rows are read, and put nowhere"
    ),
    "planc/files/cut/restore.py:_fill_in: 1 -> 0": (
        "both pieces of memory are free when removed values are read"
    ),
    "planc/files/cut/cutting.py:_fill: start >= stop -> start > stop": "no rows are gathered",
    "planc/verify/__init__.py:_Models._directly: 1 -> 2": (
        "any seed but that of the other run will do"
    ),
    "planc/verify/__init__.py:_Models._directly: 1 -> 2 #1": (
        "any seed but that of the other run will do"
    ),
    "planc/verify/__init__.py:_Models._directly: "
    "differ(outputs, run(self.smaller, self.call, seed=1)) -> "
    "differ(run(self.smaller, self.call, seed=1), outputs)": "whether outputs differ is symmetric",
    "planc/verify/tensors.py:_order: -strides[dim] -> strides[dim]": "both orders are reversed",
    "planc/verify/tensors.py:check_tensors: _same_bits(new.detach(), expected.detach()) -> "
    "_same_bits(expected.detach(), new.detach())": "whether bits are the same is symmetric",
    "planc/verify/structure.py:check_modules: _alike(smaller, model) -> _alike(model, smaller)": (
        "whether classes are alike is symmetric"
    ),
    "planc/verify/structure.py:check_modules: _alike(other, module) -> _alike(module, other)": (
        "whether classes are alike is symmetric"
    ),
    "planc/verify/structure.py:check_plan: '' -> '?'": "the provenance is not compared",
    "planc/verify/structure.py:check_plan: '' -> '?' #1": "the provenance is not compared",
    "planc/files/tensors/header.py:parse_text: entry.start > end -> entry.start >= end": (
        "the two are known to differ there"
    ),
    "planc/files/tensors/header.py:parse_text: 1 -> 2": (
        "text_length looks at the length and one byte more"
    ),
}
