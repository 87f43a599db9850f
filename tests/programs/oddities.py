"""Steps that are rarer: on images [batch, channels, height, width] and on tokens [batch, positions,
features], as their names say.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.programs.draft import Draft

_MOST = 24  # channels


# -- images ----------------------------------------------------------------------------------------


def normalised_weights(d: Draft, x: str, c: int) -> None:
    """A parametrized layer: its weight is computed from others."""
    kind = d.choice(["weight_norm", "spectral_norm"])
    layer = f"nn.utils.parametrizations.{kind}(nn.Conv2d({c}, {d.between(4, 9)}, 1))"
    d.give(f"{d.layer(layer)}({x})")


def sliced_weights(d: Draft, x: str, c: int) -> None:
    """A part of a larger weight (slimmable networks)."""
    weight, out = d.parameter(12, c + 2, 1, 1), d.between(4, 10)
    d.give(
        d.choice(
            [
                f"functional.conv2d({x}, {weight}[:{d.number(out)}, :{d.size(x, 1)}])",
                f"functional.conv2d({x}, {weight}.narrow(1, 1, {d.number(c)}))",
                f"functional.conv2d({x}, {weight}[:, 2:], {d.parameter(14)}[2:])",
            ]
        )
    )


def computed_weights(d: Draft, x: str, c: int) -> None:
    """A kernel for each image, mixed from a few: one convolution with a group for each image."""
    b, _, h, w = d.shape(x)
    out = d.between(3, 6)
    route, bank = d.layer(f"nn.Linear({c}, 3)"), d.parameter(3, out, c, 1, 1)
    chosen = d.let(f"{route}({x}.mean((2, 3))).softmax(1)")
    weight = d.let(f"torch.einsum('be,eoikl->boikl', {chosen}, {bank}).flatten(0, 1)")
    y = d.let(f"functional.conv2d({x}.reshape(1, -1, {h}, {w}), {weight}, groups={b})")
    d.give(f"{y}.view({b}, -1, {h}, {w})")


def volumes(d: Draft, x: str, c: int) -> None:
    """Two images as two frames."""
    conv = d.layer(f"nn.Conv3d({c}, {c}, (2, 1, 1), groups={d.choice([1, c])})")
    d.give(f"{conv}(torch.stack([{x}, {d.like(x)}], dim=2)).squeeze(2)")


def growth(d: Draft, x: str, c: int) -> None:
    """Dense connections, and ghosts of channels."""
    if c + 3 > _MOST:
        return
    kind = d.between(0, 1)
    if kind == 0:
        new = d.let(f"{d.layer(f'nn.Conv2d({c}, 3, 1)')}({x})")
        d.give(f"torch.cat([{x}, {new}], 1).relu()")
    else:
        cheap = d.let(f"{d.layer(f'nn.Conv2d({c}, {c}, 3, padding=1, groups={c})')}({x})")
        d.give(f"torch.cat([{x}, {cheap}], dim=1)[:, : {d.number(c + 2)}]")


def shaped_like(d: Draft, x: str, c: int) -> None:
    y = d.like(x)
    d.give(
        d.choice(
            [
                f"{x}.flatten(1).view_as({y}) + {y}",
                f"{x}.mean((2, 3), keepdim=True).expand_as({y}) - {y}",
                f"torch.zeros_like({x}).copy_({y}) * {x}",
                f"{x}.new_ones({x}.shape[1], 1, 1) * {y}",
                f"torch.full_like({x}, 0.5) + {y}",
            ]
        )
    )


def sampled(d: Draft, x: str, c: int) -> None:
    flow = d.let(f"{d.layer(f'nn.Conv2d({c}, 2, 1)')}({x}).tanh().permute(0, 2, 3, 1)")
    d.give(f"functional.grid_sample({x}, {flow}, align_corners=False)")


def bilinear(d: Draft, x: str, c: int) -> None:
    y = d.like(x)
    layer = d.layer(f"nn.Bilinear({c}, {c}, 4)")
    d.give(f"{layer}({x}.movedim(1, -1), {y}.movedim(1, -1)).movedim(-1, 1)")


def along_channels(d: Draft, x: str, c: int) -> None:
    """Windows, pools and convolutions with channels as positions."""
    d.give(
        d.choice(
            [
                f"{x}.unfold(1, 2, 2).mean(-1)",
                f"functional.max_pool1d({x}.flatten(2).mT, 2).mT.unflatten(2, {d.shape(x)[2:]})",
                f"functional.local_response_norm({x}, 3)",
                f"{x}.diff(dim=1)",
                f"{x}.std(1, keepdim=True) * {x}",
            ]
        )
    )


# -- tokens ----------------------------------------------------------------------------------------


def cells(d: Draft, x: str, c: int) -> None:
    """A recurrent cell, a step for each position."""
    kind, hidden = d.choice(["LSTMCell", "GRUCell", "RNNCell"]), d.between(3, 5)
    cell = d.layer(f"nn.{kind}({c}, {hidden})")
    state = d.let(f"{cell}({x}[:, 0])")
    states = [state]
    for i in range(1, min(3, d.shape(x)[1])):
        states.append(d.let(f"{cell}({x}[:, {i}], {states[-1]})"))
    first = "[0]" if kind == "LSTMCell" else ""
    d.give(f"torch.stack([{', '.join(state + first for state in states)}], dim=1)")


def complex_rotary(d: Draft, x: str, c: int) -> None:
    """Pairs of features as complex numbers, turned by their position."""
    if c % 2:
        return
    b, t = d.shape(x)[:2]
    angles = d.parameter(t, c // 2)
    pairs = d.let(f"torch.view_as_complex({x}.reshape({b}, {t}, -1, 2).contiguous())")
    turned = d.let(f"{pairs} * torch.polar(torch.ones_like({angles}), {angles})")
    d.give(f"torch.view_as_real({turned}).flatten(2)")


def channel_attention(d: Draft, x: str, c: int) -> None:
    """Attention among features (XCiT)."""
    b, t = d.shape(x)[:2]
    heads, dim = d.between(1, 2), d.between(2, 4)
    qkv = d.layer(f"nn.Linear({c}, {3 * heads * dim}, bias=False)")
    parts = d.let(f"{qkv}({x}).view({b}, {t}, 3, {d.number(heads)}, -1).permute(2, 0, 3, 4, 1)")
    q, k, v = (d.let(f"{parts}[{i}]") for i in range(3))
    scores = d.let(f"functional.normalize({q}, dim=-1) @ functional.normalize({k}, dim=-1).mT")
    y = d.let(f"({scores} * {d.parameter(heads, 1, 1)}).softmax(-1) @ {v}")
    out = d.layer(f"nn.Linear({heads * dim}, {c})")
    d.give(f"{x} + {out}({y}.permute(0, 3, 1, 2).reshape({b}, {t}, -1))")


def biased_attention(d: Draft, x: str, c: int) -> None:
    """A bias for each head, from a table of relative positions or by its distance."""
    b, t = d.shape(x)[:2]
    heads, dim = d.between(2, 3), d.between(1, 3)
    q, k, v = (
        d.let(
            f"{d.layer(f'nn.Linear({c}, {heads * dim})')}({x})"
            f".view({b}, {t}, {d.number(heads)}, -1).transpose(1, 2)"
        )
        for _ in range(3)
    )
    places = d.let(f"torch.arange({t})[:, None] - torch.arange({t})[None] + {t - 1}")
    if d.rng.random() < 0.5:
        bias = d.let(f"{d.parameter(2 * t - 1, heads)}[{places}].permute(2, 0, 1)")
    else:
        bias = d.let(f"{d.parameter(heads, 1, 1)} * {places}")
    y = d.let(f"functional.scaled_dot_product_attention({q}, {k}, {v}, {bias}, scale=0.4)")
    out = d.layer(f"nn.Linear({heads * dim}, {c})")
    d.give(f"{out}({y}.transpose(1, 2).flatten(2))")


def words_again(d: Draft, x: str, c: int) -> None:
    """An embedding that is a head as well, or is looked up by what came out."""
    table = d.layer(f"nn.Embedding(9, {c})")
    logits = d.let(f"functional.linear({x}, {table}.weight)")
    d.give(
        d.choice([f"{logits}.softmax(-1) @ {table}.weight", f"{table}({logits}.argmax(-1)) + {x}"])
    )


def pooled_by_queries(d: Draft, x: str, c: int) -> None:
    """A few learnt queries look at all positions."""
    query, heads = d.parameter(2, c), d.divisor(c, 1) or 1
    if d.rng.random() < 0.5:
        mha = d.layer(f"nn.MultiheadAttention({c}, {heads}, batch_first=True)")
        d.give(f"{mha}({query}.expand({x}.shape[0], -1, -1), {x}, {x})[0]")
    else:
        d.give(f"torch.einsum('qc,btc->bqt', {query}, {x}).softmax(-1) @ {x}")


def routed(d: Draft, x: str, c: int) -> None:
    """Each position goes to the expert that it likes best."""
    gate, up, down = d.layer(f"nn.Linear({c}, 3)"), d.parameter(3, c, 5), d.parameter(3, 5, c)
    scores = d.let(f"{gate}({x}).softmax(-1)")
    best = d.let(f"{scores}.max(-1)")
    weight = d.let(f"{up}[{best}[1]]")
    hidden = d.let(f"torch.einsum('btc,btch->bth', {x}, {weight}).relu()")
    y = d.let(f"torch.einsum('bth,bthc->btc', {hidden}, {down}[{best}[1]])")
    d.give(f"{x} + {best}[0].unsqueeze(-1) * {y}")


def scattered(d: Draft, x: str, c: int) -> None:
    """Positions written by index."""
    b, t = d.shape(x)[:2]
    index = d.let(f"torch.arange({t}).flip(0)")
    wide = f"{index}[None, :, None].expand({b}, -1, {d.size(x, 2)})"
    d.give(
        d.choice(
            [
                f"torch.zeros_like({x}).scatter(1, {wide}, {x})",
                f"{x}.gather(1, {wide})",
                f"{x}.index_add(1, {index}, {d.like(x)})",
                f"{x}.index_select(1, {index})",
                f"{x}[:, {index}] * {x}",
            ]
        )
    )


Step = Callable[[Draft, str, int], None]
RARE_IMAGE_STEPS: tuple[Step, ...] = (
    *(normalised_weights, sliced_weights, computed_weights, volumes, growth, shaped_like, sampled),
    *(bilinear, along_channels),
)
RARE_TOKEN_STEPS: tuple[Step, ...] = (
    *(cells, complex_rotary, channel_attention, biased_attention, words_again, pooled_by_queries),
    *(routed, scattered),
)
