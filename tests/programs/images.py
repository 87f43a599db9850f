"""Steps on images [batch, channels, height, width]."""

from __future__ import annotations

from collections.abc import Callable

from tests.programs.draft import Draft

_MOST = 24  # channels


def conv(d: Draft, x: str, c: int) -> None:
    groups = d.choice([g for g in (1, 1, 1, 2, 3, 4, c) if c % g == 0])
    out = groups * d.between(1, _MOST // groups if groups > 8 else 3)
    out = d.between(4, 12) if groups == 1 else out
    kernel, padding = d.choice([(1, 0), (3, 1)])
    options = f"{kernel}, padding={padding}, groups={groups}, bias={d.choice([True, False])}"
    kind = d.choice(["Conv2d", "Conv2d", "ConvTranspose2d"])
    d.give(f"{d.layer(f'nn.{kind}({c}, {out}, {options})')}({x})")


def shared_conv(d: Draft, x: str, c: int) -> None:
    """One layer, called twice."""
    layer = d.layer(f"nn.Conv2d({c}, {c}, 1)")
    d.give(f"{layer}({layer}({x}).relu() + {d.like(x)})")


def weights_of_ones_own(d: Draft, x: str, c: int) -> None:
    """A parameter as weight, and as bias or scale as well."""
    weight, kind = d.parameter(c, c, 1, 1), d.between(0, 2)
    scale = f"{weight}[:, 0, 0, 0]" if kind == 0 else f"{weight}.mean((1, 2, 3))"
    if kind < 2:
        d.give(f"functional.conv2d({x}, {weight}, {scale})")
    else:
        d.give(
            f"functional.conv2d({x}, {weight} / {weight}.flatten(1).norm(dim=1).view(-1, 1, 1, 1))"
        )


def norm(d: Draft, x: str, c: int) -> None:
    groups = d.divisor(c, 1) or 1
    layers = [
        f"nn.BatchNorm2d({c})",
        f"nn.BatchNorm2d({c}, affine=False)",
        f"nn.GroupNorm({groups}, {c})",
        f"nn.InstanceNorm2d({c}, affine=True)",
        f"nn.GroupNorm(1, {c})",
    ]
    if d.rng.random() < 0.2:
        d.give(f"functional.normalize({x}, dim=1)")
    else:
        d.give(f"{d.layer(d.choice(layers))}({x})")


def last_norm(d: Draft, x: str, c: int) -> None:
    """A norm over channels that are last for a while."""
    kind = d.choice([f"nn.LayerNorm({c})", f"nn.RMSNorm({c})", f"nn.LayerNorm(({c},), bias=False)"])
    d.give(f"{d.layer(kind)}({x}.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)")


def activation(d: Draft, x: str, c: int) -> None:
    fn = d.choice(["relu", "sigmoid", "tanh", "gelu", "silu", "softplus", "hardswish", "elu"])
    kind = d.between(0, 4)
    if kind == 0:
        d.give(f"{d.layer(f'nn.PReLU({c})')}({x})")
    elif kind == 1:
        d.give(f"functional.{fn}({x}) * {x}.softmax(1)")
    elif kind == 2:
        d.give(f"functional.relu({x}.clone(), inplace=True)")
    else:
        d.give(f"functional.{fn}({x})")


def residual(d: Draft, x: str, c: int) -> None:
    y = d.like(x)
    d.give(
        d.choice(
            [
                f"{x} + {y}",
                f"{x} * {y}.tanh()",
                f"torch.maximum({x}, {y})",
                f"torch.stack([{x}, {y}]).sum(0)",
                f"torch.stack([{x}, {y}], 2).amax(2)",
                f"torch.where({x} > 0, {x}, {y})",
                f"torch.lerp({x}, {y}, 0.3)",
                f"torch.addcmul({x}, {y}, {x}, value=0.5)",
                f"{x} - 0.5 * {y}.roll(1, 2)",
            ]
        )
    )


def in_place(d: Draft, x: str, c: int) -> None:
    y = d.let(f"{x}.clone()")
    k = d.between(1, c - 1)
    at = d.number(k)
    d.do(
        d.choice(
            [
                f"{y} += {d.like(x)}",
                f"{y}[:, :{at}] = {d.like(x)}[:, :{at}].exp()",
                f"{y}[:, {at}:].mul_({d.parameter(1, c - k, 1, 1)})",
                f"{y}.transpose(1, 2).relu_()",
                f"{y}.view({d.size(x, 0)}, -1, {d.shape(x)[2] * d.shape(x)[3]}).tanh_()",
                f"{y}[:, :, 0] = 0",
                f"{y}.masked_fill_({y} < 0, 0.5)",
            ]
        )
    )
    d.give(f"{y} + {d.like(x)}" if d.rng.random() < 0.3 else f"{y} * 0.7")


def join(d: Draft, x: str, c: int) -> None:
    shape = d.shape(x)
    others = [
        n
        for n in d.finished
        if len(d.shape(n)) == 4
        and d.shape(n)[2:] == shape[2:]
        and d.shape(n)[0] == shape[0]
        and c + d.channels(n) <= _MOST
    ]
    if others:
        y = d.choice(others)
        d.give(d.choice([f"torch.cat([{x}, {y}], 1)", f"torch.cat(({y}, {x}), dim=1)"]))


def halves(d: Draft, x: str, c: int) -> None:
    if c % 2:
        return
    half = d.size(x, 1, over=2)
    kind = d.between(0, 6)
    if kind == 0:
        a, b = _two(d, f"{x}.chunk(2, 1)")
    elif kind == 1:
        a, b = d.let(f"{x}[:, :{half}]"), d.let(f"{x}[:, {half}:]")
    elif kind == 2:
        a, b = _two(d, f"{x}.split([{half}, {d.size(x, 1, over=2)}], 1)")
    elif kind == 3:
        a, b = _two(d, f"{x}.split({half}, 1)")
    elif kind == 4:
        a, b = _two(d, f"{x}.view({d.size(x, 0)}, 2, {half}, *{x}.shape[2:]).unbind(1)")
    elif kind == 5:
        a, b = d.let(f"{x}[:, ::2]"), d.let(f"{x}[:, 1::2]")
    else:
        d.give(f"functional.glu({x}, 1)")
        return
    d.give(
        d.choice(
            [
                f"{a} * {b}.sigmoid()",
                f"torch.cat([{b}, {a}], 1)",
                f"torch.maximum({a}, {b})",
                f"torch.cat([{a}, {b} + {a}], 1)",
                f"torch.stack([{a}, {b}], 2).flatten(1, 2)",
            ]
        )
    )


def _two(d: Draft, made_by: str) -> tuple[str, str]:
    both = d.let(made_by)
    return d.let(f"{both}[0]"), d.let(f"{both}[1]")


def pieces(d: Draft, x: str, c: int) -> None:
    """Parts of several sizes, put together in another order."""
    if c < 6:
        return
    low, high = 2, c - d.between(2, 3)
    sizes = f"[{d.number(low)}, {d.number(high - low)}, {d.number(c - high)}]"
    kind = d.between(0, 2)
    if kind == 0:
        parts = d.let(f"{x}.split({sizes}, 1)")
    elif kind == 1:
        parts = d.let(f"torch.tensor_split({x}, ({d.number(low)}, {d.number(high)}), 1)")
    else:
        parts = d.let(f"{x}.chunk(3, 1)")
    order = d.choice([(2, 0, 1), (1, 0), (0, 2), (0, 1, 2, 0)])
    if c <= _MOST // 2 or len(order) < 4:
        d.give(f"torch.cat([{', '.join(f'{parts}[{i}]' for i in order)}], 1)")


def part(d: Draft, x: str, c: int) -> None:
    if c < 5:
        return
    start = d.between(0, c - 3)
    stop = d.between(start + 2, c)
    a, b = d.number(start), d.number(stop)
    d.give(
        d.choice(
            [
                f"{x}[:, {a}:{b}]",
                f"{x}.narrow(1, {a}, {d.number(stop - start)})",
                f"{x}[:, -{d.number(c - start)}:]",
                f"{x}[:, {a}:]",
                f"{x}[:, : -{d.number(start)}]" if start else f"{x}[:, ::2]",
                f"{x}[:, 1::3]",
                f"torch.index_select({x}, 1, torch.tensor([{start}, {stop - 1}]))",
            ]
        )
    )


def order(d: Draft, x: str, c: int) -> None:
    shift, groups = d.between(1, max(c - 1, 1)), d.divisor(c)
    kinds = [f"{x}.flip(1)", f"{x}.roll({shift}, 1)", f"{x}.roll(-{d.number(shift)}, dims=1)"]
    if groups is not None:
        g = d.number(groups)
        b, h, w = (d.size(x, i) for i in (0, 2, 3))
        apart = f"{x}.view({b}, {g}, {d.size(x, 1, over=groups)}, {h}, {w})"
        kinds += [
            f"{d.layer(f'nn.ChannelShuffle({groups})')}({x})",
            f"functional.channel_shuffle({x}, {g})",
            f"{apart}.transpose(1, 2).reshape({b}, {d.size(x, 1)}, {h}, {w})",
            f"{x}.unflatten(1, ({g}, -1)).transpose(1, 2).flatten(1, 2)",
            f"{x}.reshape({b}, {g}, -1, {h}, {w}).flip(1).reshape({b}, -1, {h}, {w})",
        ]
    elif c < 10:
        kinds.append(f"{x}[:, {d.rng.permutation(c).tolist()}]")
    d.give(d.choice(kinds))


def widen(d: Draft, x: str, c: int) -> None:
    if 2 * c > _MOST:
        return
    kind = d.between(0, 4)
    if kind == 0:
        d.give(f"functional.pad({x}, (0, 0, 0, 0, {d.between(0, 2)}, {d.between(1, 2)}))")
    elif kind == 1:
        d.give(f"{x}.repeat_interleave({d.number(2)}, 1)")
    elif kind == 2:
        d.give(f"{x}.repeat(1, 2, 1, 1)")
    elif kind == 3:
        d.give(f"{x}.unsqueeze(2).expand(-1, -1, 2, -1, -1).flatten(1, 2)")
    else:
        y = d.let(f"torch.zeros({x}.shape[0], 2 * {x}.shape[1], *{x}.shape[2:], dtype={x}.dtype)")
        d.do(f"{y}[:, : {x}.shape[1]] = {x}")
        d.do(f"{y}[:, {x}.shape[1] :] = {x}.sin()")
        d.give(f"{y} + 0")


def gate(d: Draft, x: str, c: int) -> None:
    kind = d.between(0, 6)
    pooled = f"{x}.mean((2, 3), keepdim=True)"
    if kind == 0:
        down, up = d.layer(f"nn.Conv2d({c}, 3, 1)"), d.layer(f"nn.Conv2d(3, {c}, 1)")
        d.give(f"{x} * {up}({down}({pooled}).relu()).sigmoid()")
    elif kind == 1:
        d.give(f"{x} * {pooled}.sigmoid().expand_as({x})")
    elif kind == 2:
        d.give(f"{x} * {x}.mean(1, keepdim=True).sigmoid()")
    elif kind == 3:
        d.give(f"{x} * {d.parameter(c, 1, 1)} + {d.parameter(1, c, 1, 1)}")
    elif kind == 4:
        layer = d.layer("nn.Conv1d(1, 1, 3, padding=1)")
        mean = d.let(
            f"{layer}({x}.mean((2, 3)).unsqueeze(1)).sigmoid().view({x}.shape[0], -1, 1, 1)"
        )
        d.give(f"{x} * {mean}")
    elif kind == 5:
        d.give(f"{x} * {d.layer(f'nn.Conv2d({c}, 1, 1)')}({x}).sigmoid()")
    else:
        fc = d.layer(f"nn.Linear({c}, {c})")
        d.give(f"{x} * {fc}({x}.amax((-1, -2)))[:, :, None, None].tanh()")


def rows(d: Draft, x: str, c: int) -> None:
    """Channels as rows of a few, with something done to rows or inside them."""
    groups = d.divisor(c)
    if groups is None:
        return
    inner = c // groups
    b, h, w = (d.size(x, i) for i in (0, 2, 3))
    y = d.let(
        d.choice(
            [
                f"{x}.view({b}, {d.number(groups)}, -1, {h}, {w})",
                f"{x}.unflatten(1, (-1, {d.number(inner)}))",
                f"{x}.reshape({b}, {d.number(groups)}, {d.size(x, 1, over=groups)}, {h}, {w})",
            ]
        )
    )
    kind = d.between(0, 8)
    if kind == 0:
        d.give(f"{y}.amax(1)")
    elif kind == 1:
        d.give(f"{y}.sum(2)")
    elif kind == 2:
        d.give(f"({y} * {d.parameter(groups, 1, 1, 1)}).flatten(1, 2)")
    elif kind == 3:
        weight = d.parameter(groups, inner, 3)
        d.give(f"torch.einsum('bgihw,gio->bghwo', {y}, {weight}).movedim(4, 2).flatten(1, 2)")
    elif kind == 4:
        d.give(f"{y}.softmax({d.choice([1, 2])}).reshape({b}, -1, {h}, {w})")
    elif kind == 5:
        scale = d.parameter(inner, 1, 1)
        d.give(f"({y} * {scale}).transpose(1, 2).reshape({b}, {d.size(x, 1)}, {h}, {w})")
    elif kind == 6:
        first = d.let(f"{y}.unbind({d.choice([1, 2])})")
        d.give(f"{first}[0] + {first}[-1]")
    elif kind == 7:
        d.give(f"({y} * {y}.mean(2, keepdim=True).sigmoid()).flatten(1, 2)")
    else:  # selective kernels: the rows' weights are computed
        fc = d.layer(f"nn.Linear({inner}, {c})")
        weight = d.let(f"{fc}({y}.sum(1).mean((-1, -2))).view({b}, {groups}, -1, 1, 1).softmax(1)")
        d.give(f"({y} * {weight}).sum(1)")


def resample(d: Draft, x: str, c: int) -> None:
    *_, h, w = d.shape(x)
    kinds = ["functional.interpolate({}, scale_factor=2)"] if h <= 4 else []
    if h >= 4 and h % 2 == 0:
        kinds += [
            "functional.avg_pool2d({}, 2)",
            "functional.max_pool2d({}, 2)",
            d.layer(f"nn.Conv2d({c}, {c}, 2, stride=2, groups={c})") + "({})",
            "functional.interpolate({}, size=(2, 2), mode='bilinear')",
        ]
        if 4 * c <= _MOST:
            kinds.append("functional.pixel_unshuffle({}, 2)")
            kinds.append("torch.cat([{0}[..., ::2, ::2], {0}[..., 1::2, 1::2]], 1)")
    if c % 4 == 0 and h <= 4:
        kinds.append("functional.pixel_shuffle({}, 2)")
    if h == w == 4 and 4 * c <= _MOST:
        kinds.append("functional.unfold({}, 2, stride=2).unflatten(-1, (2, 2))")
    if h == w == 2 and c % 4 == 0:
        kinds.append("functional.fold({}.flatten(2), (4, 4), 2, stride=2)")
    kinds.append("functional.avg_pool2d({}, 3, stride=1, padding=1)")
    d.give(d.choice(kinds).format(x))


def pooled(d: Draft, x: str, c: int) -> None:
    """Away from images and back: a fully connected layer on all of a small image."""
    h, w = d.shape(x)[2:]
    if c * h * w > 200:
        return
    kind = d.between(0, 2)
    if kind == 0:
        fc = d.layer(f"nn.Linear({c * h * w}, 6)")
        d.give(f"{fc}({x}.flatten(1))[:, :, None, None].expand(-1, -1, {h}, {w})")
    elif kind == 1:
        fc = d.layer(f"nn.Linear({c}, {c})")
        mean = d.let(f"{fc}(functional.adaptive_avg_pool2d({x}, 1).view({d.size(x, 0)}, -1))")
        d.give(f"{x} + {mean}.unsqueeze(-1).unsqueeze(-1)")
    else:
        d.give(f"{d.layer(f'nn.Linear({w}, {w})')}({x})")


def by_position(d: Draft, x: str, c: int) -> None:
    """What looks along channels: it pins them, and only them."""
    d.give(
        d.choice(
            [
                f"{x}.cumsum(1)",
                f"{x}.sort(1)[0]",
                f"{x}.topk(2, 1)[0]",
                f"torch.gather({x}, 2, {x}.argsort(2))",
                f"{x} * functional.one_hot({x}.argmax(1), {c}).movedim(-1, 1)",
                f"{x}.scatter(2, torch.zeros_like({x}, dtype=torch.long), {x})",
            ]
        )
    )


def to_tokens(d: Draft, x: str, c: int) -> None:
    d.give(
        d.choice(
            [
                f"{x}.flatten(2).transpose(1, 2)",
                f"{x}.permute(0, 2, 3, 1).reshape({d.size(x, 0)}, -1, {d.size(x, 1)})",
                f"{x}.view({d.size(x, 0)}, {d.size(x, 1)}, -1).mT",
            ]
        )
    )


def windows(d: Draft, x: str, c: int) -> None:
    """Something done within windows of two by two."""
    b, _, h, w = d.shape(x)
    if h < 4 or h % 2:
        return
    layer = d.layer(f"nn.Linear({c}, {c})")
    y = d.let(f"{x}.permute(0, 2, 3, 1).reshape({b}, {h // 2}, 2, {w // 2}, 2, {d.size(x, 1)})")
    y = d.let(f"{layer}({y}.transpose(2, 3).reshape(-1, 4, {d.size(x, 1)}))")
    y = d.let(f"{y} + {y}.mean(1, keepdim=True)")
    y = d.let(f"{y}.view({b}, {h // 2}, {w // 2}, 2, 2, -1).transpose(2, 3)")
    d.give(f"{y}.reshape({b}, {h}, {w}, -1).permute(0, 3, 1, 2)")


IMAGE_STEPS: tuple[Callable[[Draft, str, int], None], ...] = (
    *(conv, conv, conv, shared_conv, weights_of_ones_own, norm, last_norm, activation),
    *(residual, residual, in_place, join, halves, halves, pieces, part, order, order, widen),
    *(gate, gate, rows, rows, resample, pooled, by_position, to_tokens, to_tokens, windows),
)
