"""A context read once, and all that policies ask to see of it."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from kvharness.errors import ModelProblem
from kvharness.model.attention import PrefillReader, causal_output, reading
from kvharness.model.out_of_memory import explained
from kvharness.model.prefilled import Observing, Prefilled
from kvharness.model.probe_pass import read_after
from kvharness.model.watch import SpoiledError, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedModel

    from kvharness.model.loaded import Runtime
    from kvharness.model.watch import Guard
    from kvharness.policy.observation.base import Observation
    from kvharness.policy.observation.part import Part, Probed
    from kvharness.policy.observation.reading import Ahead, AttentionCall
    from kvharness.pretrained.prompt import Encoder


def prefill(
    runtime: Runtime,
    context: Sequence[int],
    needs: Collection[Observation[Any]] = frozenset(),
    *,
    ahead: Callable[[Prefilled], Ahead] | None = None,
    guard: Guard = nullcontext,
) -> tuple[Prefilled, float]:
    """One observed forward pass over a context, and its seconds.

    An observation that fails is a problem of the policies that declare it (`Prefilled.observing`).

    Args:
        runtime: the model.
        context: ids.
        needs: what to observe.
        ahead: what follows the context in truth, if an observation asks for it.
        guard: entered around what is not the harness's own.
    """
    failed: dict[Observation[Any], Observing] = {}
    while True:
        shared = _Shared(runtime, tuple(context))
        left = [each for each in needs if each not in failed]
        watches = [_watch(shared, each, guard) for each in left]
        try:
            reader, seconds = _read(shared, watches)
        except SpoiledError as error:
            failed[error.observation] = Observing(seconds=0.0, problem=error.problem)
            continue
        prefilled = shared.prefilled = _prefilled(runtime, reader, len(context))
        if ahead is not None and any(each.future for each in left):
            shared.ahead = ahead(prefilled)
        return _observed(prefilled, watches, failed), seconds


@dataclass(slots=True)
class _Shared:
    """What all observations of a pass read from; the last two are there once it is over."""

    runtime: Runtime
    context: tuple[int, ...]
    prefilled: Prefilled | None = None
    ahead: Ahead | None = None


def _watch(shared: _Shared, observation: Observation[Any], guard: Guard) -> Watch:
    return Watch(observation, ContextReading(shared, observation), shared.runtime, guard)


def _read(shared: _Shared, watches: Sequence[Watch]) -> tuple[PrefillReader, float]:
    try:
        return _watched(shared, watches)
    except SpoiledError:
        raise
    except Exception:
        _find_spoiler(shared, watches)
        raise


def _find_spoiler(shared: _Shared, watches: Sequence[Watch]) -> None:
    """Hooks run inside the model, so whose it was shows in a pass that it has to itself.

    Raises:
        SpoiledError: one of several observations, or the only one, lets the pass fail.
    """
    _watched(shared, ())
    for watch in watches:
        try:
            _watched(shared, [watch])
        except Exception as error:
            reason = f"its hook failed with {type(error).__name__}: {error}".splitlines()[0]
            raise SpoiledError(watch.observation, reason) from error


def _watched(shared: _Shared, watches: Sequence[Watch]) -> tuple[PrefillReader, float]:
    runtime, context = shared.runtime, shared.context
    reader = PrefillReader([watch.attended for watch in watches])
    ids = torch.tensor([context], device=runtime.device)
    positions = torch.arange(len(context), device=runtime.device)[None]
    start = runtime.clock()
    with ExitStack() as stack:
        for watch in watches:
            stack.callback(watch.leave)
            watch.enter()
        with (
            explained(runtime.device, f"reading {len(context)} tokens"),
            torch.no_grad(),
            reading(reader),
        ):
            runtime.model.get_decoder()(input_ids=ids, position_ids=positions, use_cache=False)
    return reader, runtime.clock() - start


def _prefilled(runtime: Runtime, reader: PrefillReader, tokens: int) -> Prefilled:
    if not reader.layers:
        raise ModelProblem(
            f"every attention layer of {runtime.source.name} slides over a window, so there is "
            f"nothing to compress; choose a model with global attention layers"
        )
    layers = dict(sorted(reader.layers.items()))
    return Prefilled(layers=layers, sliding=reader.sliding, tokens=tokens)


def _observed(
    prefilled: Prefilled, watches: Sequence[Watch], failed: Mapping[Observation[Any], Observing]
) -> Prefilled:
    found = {watch.observation: watch.found(prefilled) for watch in watches}
    layers = {
        index: replace(
            layer, observed={each: values[index] for each, (values, _) in found.items() if values}
        )
        for index, layer in prefilled.layers.items()
    }
    observing = {each: went for each, (_, went) in found.items()}
    return replace(prefilled, layers=layers, observing={**failed, **observing})


class ContextReading:
    """`kvharness.policy.observation.reading.Reading` of one observation."""

    def __init__(self, shared: _Shared, observation: Observation[Any]) -> None:
        self._shared = shared
        self._observation = observation

    @property
    def context(self) -> tuple[int, ...]:
        return self._shared.context

    @property
    def encoder(self) -> Encoder:
        return self._shared.runtime.encoder

    @property
    def vocabulary(self) -> int:
        return int(self.model.config.get_text_config().vocab_size)

    @property
    def model(self) -> PreTrainedModel:
        return self._shared.runtime.model

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(self._prefilled("layers").layers)

    def after(self, parts: Sequence[Part], start: int) -> dict[int, tuple[Probed, ...]]:
        return read_after(self._shared.runtime, self._prefilled("after"), parts, start)

    def again(
        self, through: Callable[[AttentionCall], AttentionCall], *, logits: int = 1
    ) -> Tensor:
        self._prefilled("again")
        runtime, tokens = self._shared.runtime, len(self.context)
        with (
            explained(runtime.device, f"reading {tokens} tokens again, with gradients"),
            torch.enable_grad(),
            _weights_at_rest(runtime.model),
            reading(_ThroughReader(through)),
        ):
            output = runtime.model(
                input_ids=torch.tensor([self.context], device=runtime.device),
                position_ids=torch.arange(tokens, device=runtime.device)[None],
                use_cache=False,
                logits_to_keep=logits,
            )
        found: Tensor = output.logits[0]
        return found

    def ahead(self) -> Ahead:
        if not self._observation.future:
            kind = type(self._observation).__name__
            raise ModelProblem(
                f"only an oracle knows what follows; {kind} must declare future = True for that"
            )
        self._prefilled("ahead")
        if self._shared.ahead is None:
            raise ModelProblem("nothing is asked here, so nothing is known of what follows")
        return self._shared.ahead

    def _prefilled(self, what: str) -> Prefilled:
        if self._shared.prefilled is None:
            raise ModelProblem(f"reading.{what} is there once the context was read: in found()")
        return self._shared.prefilled


@dataclass(slots=True)
class _ThroughReader:
    """Causal attention over calls as an observation changes them."""

    through: Callable[[AttentionCall], AttentionCall]

    def attend(self, call: AttentionCall) -> Tensor:
        return causal_output(self.through(call) if call.window is None else call)


@contextmanager
def _weights_at_rest(model: PreTrainedModel) -> Iterator[None]:
    """No gradient reaches the weights, which all policies share, nor is memory kept for one."""
    learning = [each for each in model.parameters() if each.requires_grad]
    try:
        for each in learning:
            each.requires_grad_(False)
        yield
    finally:
        for each in learning:
            each.requires_grad_()
