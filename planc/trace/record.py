"""The recorder: one run of the model, observed operator by operator, becomes the graph.

The model is cloned without its weights and run on meta tensors in inference mode, with composite
operators (linear, matmul, layer_norm, ...) reaching a dispatch mode whole. Integer buffers and
results computed from them alone stay real. The same recorder handles runs on fake and on real
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
)

from planc.errors import AnalysisError, TraceError
from planc.ir.graph import Graph, Module, attributes_read
from planc.modules.construction import constructions_of
from planc.modules.copies import clone
from planc.modules.forgetting import Forgetting
from planc.modules.held import held_objects, object_attributes
from planc.modules.hooks import drop_refreshes, masked_tensors
from planc.modules.inputs import specify
from planc.modules.nesting import map_leaves
from planc.modules.reach import Reach, reach_of
from planc.modules.search import Unseen
from planc.modules.tree import described
from planc.trace.caches import caches_apart
from planc.trace.chance import Chance
from planc.trace.decisions import Replay
from planc.trace.departures import bound
from planc.trace.leaf import NeedsValues, leaves_of, named_sizes
from planc.trace.lines import user_line_of
from planc.trace.numbers import heard_comparisons, track_attributes, tracked_numbers
from planc.trace.rebuilding import specification
from planc.trace.recording import Recorder, Recording
from planc.trace.results import Result, output_names, own_objects, result_of
from planc.trace.sizes import tracked_math
from planc.trace.unfused import unfused
from planc.trace.values import CPU, Kind

NEEDS_VALUES = (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedOperatorException,
    NeedsValues,
)


def front_end(kind: Kind) -> str:
    """The name of a front end, as stored in graphs."""
    return f"record ({kind} tensors)"


class Run:
    """One recorded run, on tensors of one kind."""

    def __init__(
        self,
        model: nn.Module,
        kind: Kind,
        forgetting: Forgetting,
        chance: Chance,
        replay: Replay | None,
    ) -> None:
        self.model = model
        self.forgetting = forgetting
        self.chance = chance
        device = next((p.device for p in model.parameters()), CPU)
        self.recording = Recording(kind, CPU if device.type == "meta" else device, replay)

    def graph(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
        with tracked_numbers():
            return self._graph(self._copy(), args, kwargs)

    def _graph(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
        recording, values = self.recording, self.recording.values
        drop_refreshes(model)  # ``masked`` has their results, for a run to read
        reach = reach_of(model)
        self.forgetting.begin(model, reach)
        tensors = recording.tensors(model, self.model)
        modules, fields = described(model), object_attributes(model)
        self._observe(model, modules)
        run_args = tuple(map_leaves(recording.input, arg) for arg in args)
        run_kwargs = {name: map_leaves(recording.input, arg) for name, arg in kwargs.items()}
        result = self._run(model, reach, run_args, run_kwargs)
        if recording.kind == "meta" and recording.sizes.autocast:
            raise TraceError("autocast converts tensors of a device, not meta tensors")
        outputs = tuple(recording.ref(tensor) for tensor in result.in_order(values.ids))
        departures = recording.departures.finish(recording.nodes, tensors)
        data_dependent = recording.data_dependent or recording.departures.outside
        if not outputs and not data_dependent:
            raise TraceError(
                f"{type(self.model).__name__} could not be traced: it returns no tensor but a "
                f"{type(result.returned).__name__}; return tensors, in tuples, lists, dicts or "
                "dataclasses if there are several"
            )
        spec, unwritable = None, ""
        try:
            spec = specification(result, recording.ref)
        except AnalysisError as error:
            unwritable = str(error)
        comparisons = recording.comparisons.values()
        read = attributes_read(recording.nodes, values.numbers.values(), comparisons)
        return Graph(
            values=tuple(values.described),
            nodes=tuple(recording.nodes),
            tensors=tensors,
            inputs=tuple(recording.inputs),
            outputs=outputs,
            captured=values.captured,
            numbers=values.numbers,
            constants=values.constants,
            modules=_with_fields(modules, fields, read),
            frontend=front_end(recording.kind),
            input_spec=specify(args, kwargs),
            output_spec=spec,
            training=self.model.training,
            data_dependent=data_dependent,
            decisions=tuple(recording.decisions),
            comparisons=(*comparisons, *recording.plain(result)),
            departures=departures,
            returned=frozenset(values.returned),
            unwritable=unwritable,
            constructions=constructions_of(self.model),
            output_names=output_names(result),
        )

    def _observe(self, model: nn.Module, modules: Mapping[str, Module]) -> None:
        """Track the integers of the clone, and let its modules report to the recording."""
        recording = self.recording
        originals = {id(held) for _, _, held in held_objects(self.model)}
        copied = [held for held in held_objects(model) if id(held[2]) not in originals]
        for path, name, held in copied:
            track_attributes(path, held, name)
        lists = {id(v) for m in self.model.modules() for v in vars(m).values() if type(v) is list}
        for path, module in model.named_modules():
            track_attributes(path, module, shared=lists)
            module.register_forward_pre_hook(recording.enter(path), prepend=True)
            module.register_forward_hook(recording.leave)
        for path, module in leaves_of(model):
            sizes = named_sizes(path, modules[path].attributes)
            vars(module)["forward"] = recording.leaf(path, module, sizes)
        for old, new in zip(masked_tensors(self.model), masked_tensors(model), strict=False):
            if old.up_to_date and new.current is not None:
                recording.masked[id(new.current)] = new
                recording.values.keep(new.current)

    def _copy(self) -> nn.Module:
        try:
            return clone(self.model, self.recording.values.stand_in)
        except Exception as error:
            raise TraceError(
                f"{type(self.model).__name__} could not be traced: it cannot be copied: "
                f"{type(error).__name__}: {error}; give the class of the part in question a "
                "__deepcopy__"
            ) from error

    def _run(
        self, model: nn.Module, reach: Reach, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Result:
        recording, own = self.recording, own_objects(model)
        try:
            with (
                unfused(),
                self.chance.seeded(),
                torch.inference_mode(),
                caches_apart(reach, self.forgetting),
            ):
                with (
                    tracked_math(),
                    heard_comparisons(recording.compared),
                    Recorder(recording),
                    recording.sizes,
                ):
                    result = result_of(model, model(*args, **kwargs), own)
                self.forgetting.check()
                arguments = bound(model, args, kwargs)
                recording.departures.kept(
                    model, arguments, recording.nodes, recording.inputs, Recording
                )
            if recording.departures.missing:  # the model caught the error
                raise NeedsValues
            return result
        except NEEDS_VALUES:
            raise
        except Unseen as error:
            name = type(self.model).__name__
            raise TraceError(f"{name} could not be traced: {error}") from None
        except Exception as error:
            raise TraceError(self._failure(error)) from error

    def _failure(self, error: Exception) -> str:
        where = self.recording.path[-1] or "the model"
        kind = type(self.model.get_submodule(self.recording.path[-1])).__name__
        line = user_line_of(error) or self.recording.source
        at = f", {line[0]}:{line[1]}" if line[0] else ""
        text = str(error).strip() or "no message"
        return (
            f"{type(self.model).__name__} could not be traced: in {where} ({kind}{at}): "
            f"{type(error).__name__}: {text.splitlines()[0]}; check that the example inputs have "
            "the shapes and types that forward() expects"
        )


def _with_fields(
    modules: dict[str, Module], fields: dict[str, dict[str, Any]], read: set[tuple[str, str]]
) -> dict[str, Module]:
    """The modules with the attributes of held objects read by the run."""
    for path, attributes in fields.items():
        looked_at = {name: value for name, value in attributes.items() if (path, name) in read}
        modules[path] = replace(modules[path], attributes={**modules[path].attributes, **looked_at})
    return modules
