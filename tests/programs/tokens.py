"""Steps on tokens [batch, positions, features]."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.programs.draft import Draft

_MOST = 24  # features


def linear(d: Draft, x: str, c: int) -> None:
    out, kind = d.between(4, 12), d.between(0, 5)
    if kind == 0:
        d.give(f"{x} @ {d.parameter(c, out)}")
    elif kind == 1:
        d.give(f"torch.einsum('btc,oc->bto', {x}, {d.parameter(out, c)})")
    elif kind == 2:
        d.give(f"torch.matmul({x}, {d.parameter(c, out)}) + {d.parameter(out)}")
    elif kind == 3:
        b, t = d.shape(x)[:2]
        product = f"torch.addmm({d.parameter(out)}, {x}.reshape(-1, {d.size(x, 2)}), "
        d.give(f"{product}{d.parameter(c, out)}).view({b}, {t}, -1)")
    else:
        d.give(f"{d.layer(f'nn.Linear({c}, {out})')}({x})")


def mlp(d: Draft, x: str, c: int) -> None:
    kind = d.between(0, 3)
    if kind == 0:
        up, down = d.layer(f"nn.Linear({c}, 6)"), d.layer(f"nn.Linear(6, {c})")
        d.give(f"{x} + {down}(functional.gelu({up}({x})))")
    elif kind == 1:
        both, down = d.layer(f"nn.Linear({c}, 10)"), d.layer(f"nn.Linear(5, {c})")
        halves = d.let(f"{both}({x}).chunk(2, dim=-1)")
        d.give(f"{x} + {down}(functional.silu({halves}[0]) * {halves}[1])")
    elif kind == 2:  # tied: the way back is the transposed way there
        weight = d.parameter(6, c)
        d.give(f"functional.linear(functional.linear({x}, {weight}).relu(), {weight}.t())")
    else:
        t = d.shape(x)[1]
        mix = d.layer(f"nn.Linear({t}, {t})")
        d.give(f"{x} + {mix}({x}.transpose(1, 2)).transpose(1, 2) * {d.parameter(c)}")


def norm(d: Draft, x: str, c: int) -> None:
    kinds = [f"nn.LayerNorm({c})", f"nn.RMSNorm({c})", f"nn.LayerNorm({c}, bias=False)"]
    kind = d.between(0, 4)
    if kind == 0:
        y = d.let(f"{x} * torch.rsqrt({x}.pow(2).mean(-1, keepdim=True) + 1e-6)")
        d.give(f"{d.parameter(c)} * {y}")
    elif kind == 1:
        d.give(f"{d.layer(f'nn.BatchNorm1d({c})')}({x}.transpose(1, 2)).transpose(1, 2)")
    else:
        d.give(f"{d.layer(d.choice(kinds))}({x})")


def residual(d: Draft, x: str, c: int) -> None:
    y = d.like(x)
    d.give(d.choice([f"{x} + {y}", f"{x} * {y}.sigmoid()", f"{x}.add(functional.gelu({y}))"]))


def _heads(d: Draft, x: str, heads: int, dim: int) -> str:
    """[b, t, h d] as [b, h, t, d]."""
    b, t = d.size(x, 0), d.size(x, 1)
    view = d.choice(
        [
            f"{x}.view({b}, {t}, {d.number(heads)}, {d.number(dim)})",
            f"{x}.view({b}, {t}, {d.number(heads)}, -1)",
            f"{x}.reshape({b}, {t}, -1, {d.number(dim)})",
            f"{x}.unflatten(-1, ({d.number(heads)}, {d.number(dim)}))",
        ]
    )
    return d.let(f"{view}.transpose(1, 2)")


def _attended(d: Draft, q: str, k: str, v: str, dim: int) -> str:
    kind = d.between(0, 3)
    if kind == 0:
        return d.let(f"functional.scaled_dot_product_attention({q}, {k}, {v})")
    if kind == 1:
        return d.let(f"({q} @ {k}.transpose(-2, -1) * {dim**-0.5}).softmax(-1) @ {v}")
    if kind == 2:
        scores = d.let(f"torch.einsum('bhqd,bhkd->bhqk', {q}, {k}) / math.sqrt({q}.shape[-1])")
        return d.let(f"torch.einsum('bhqk,bhkd->bhqd', {scores}.softmax(dim=-1), {v})")
    return d.let(f"{q} @ ({k}.transpose(-2, -1).softmax(-1) @ {v})")  # linear attention


def attention(d: Draft, x: str, c: int) -> None:
    heads, dim = d.between(1, 3), d.between(1, 4)
    b, t = d.shape(x)[:2]
    h, e = d.number(heads), d.number(dim)
    qkv, kind = d.layer(f"nn.Linear({c}, {3 * heads * dim})"), d.between(0, 4)
    if kind == 0:
        parts = d.let(f"{qkv}({x}).reshape({b}, {t}, 3, {h}, {e}).permute(2, 0, 3, 1, 4).unbind(0)")
        q, k, v = (d.let(f"{parts}[{i}]") for i in range(3))
    elif kind == 1:
        parts = d.let(f"{qkv}({x}).chunk(3, -1)")
        q, k, v = (_heads(d, d.let(f"{parts}[{i}]"), heads, dim) for i in range(3))
    elif kind == 2:  # GPT-NeoX: of each head its query, key and value
        y = d.let(f"{qkv}({x}).view({b}, {t}, {h}, 3 * {e}).transpose(1, 2)")
        cut = d.let(f"{y}.chunk(3, dim=-1)")
        q, k, v = (d.let(f"{cut}[{i}]") for i in range(3))
    elif kind == 3:  # of each head dimension
        y = d.let(f"{qkv}({x}).reshape({b}, {t}, {h}, -1, 3).transpose(1, 2)")
        q, k, v = (d.let(f"{y}[..., {i}]") for i in range(3))
    else:
        width = d.number(heads * dim)
        y = d.let(f"{qkv}({x})")
        cuts = [
            f"{y}[..., :{width}]",
            f"{y}[..., {width} : 2 * {width}]",
            f"{y}[..., 2 * {width} :]",
        ]
        q, k, v = (_heads(d, d.let(cut), heads, dim) for cut in cuts)
    if dim % 2 == 0 and d.rng.random() < 0.4:
        q, k = _rotated(d, q, k, t, dim)
    y = d.let(f"{_attended(d, q, k, v, dim)}.transpose(1, 2)")
    merged = d.choice([f"{y}.flatten(2)", f"{y}.reshape({b}, {t}, -1)"])
    d.give(f"{d.layer(f'nn.Linear({heads * dim}, {c})')}({merged}) + {d.like(x)}")


def _rotated(d: Draft, q: str, k: str, t: int, dim: int) -> tuple[str, str]:
    """Rotary positions, by halves of a head."""
    angles = d.parameter(t, dim // 2)
    table = d.let(f"torch.cat([{angles}, {angles}], -1)")
    found = []
    for y in (q, k):
        half = d.let(f"{y}.shape[-1] // 2")
        turned = d.let(f"torch.cat([-{y}[..., {half}:], {y}[..., :{half}]], -1)")
        found.append(d.let(f"{y} * {table}.cos() + {turned} * {table}.sin()"))
    return found[0], found[1]


def grouped_attention(d: Draft, x: str, c: int) -> None:
    """Fewer heads of keys and values than of queries; perhaps of other tokens."""
    kv, times, dim = d.between(1, 2), d.between(1, 3), d.between(2, 3)
    heads = kv * times
    others = [n for n in d.finished if len(d.shape(n)) == 3 and d.shape(n)[0] == d.shape(x)[0]]
    other = d.choice([x, *others])
    q = _heads(d, d.let(f"{d.layer(f'nn.Linear({c}, {heads * dim})')}({x})"), heads, dim)
    k, v = (
        _heads(
            d,
            d.let(f"{d.layer(f'nn.Linear({d.channels(other)}, {kv * dim})')}({other})"),
            kv,
            dim,
        )
        for _ in range(2)
    )
    kind = d.between(0, 2)
    if kind == 0:
        gqa = "scale=0.6, enable_gqa=True"
        y = d.let(f"functional.scaled_dot_product_attention({q}, {k}, {v}, {gqa})")
    elif kind == 1:
        r = d.number(times)
        k, v = (d.let(f"{y}.repeat_interleave({r}, dim=1)") for y in (k, v))
        y = _attended(d, q, k, v, dim)
    else:
        wide = [
            d.let(f"{y}[:, :, None].expand(-1, -1, {d.number(times)}, -1, -1).flatten(1, 2)")
            for y in (k, v)
        ]
        y = _attended(d, q, *wide, dim)
    out = d.layer(f"nn.Linear({heads * dim}, {c})")
    d.give(f"{out}({y}.transpose(1, 2).flatten(2)) + {x}")


def multihead(d: Draft, x: str, c: int) -> None:
    """torch's own attention and encoder layer."""
    heads = d.divisor(c, 1) or 1
    if d.rng.random() < 0.5:
        mha = d.layer(f"nn.MultiheadAttention({c}, {heads}, batch_first=True)")
        d.give(f"{mha}({x}, {x}, {x}, need_weights=False)[0] + {x}")
    else:
        d.give(f"{d.layer(f'nn.TransformerEncoderLayer({c}, {heads}, 6, batch_first=True)')}({x})")


def recurrent(d: Draft, x: str, c: int) -> None:
    kind, hidden = d.choice(["LSTM", "GRU", "RNN"]), d.between(3, 5)
    options = [f"batch_first=True, bidirectional={d.choice([True, False])}"]
    if d.rng.random() < 0.3:
        options.append("num_layers=2")
    if kind == "LSTM" and d.rng.random() < 0.3:
        options.append("proj_size=2")
    d.give(f"{d.layer(f'nn.{kind}({c}, {hidden}, ' + ', '.join(options) + ')')}({x})[0]")


def positions(d: Draft, x: str, c: int) -> None:
    t = d.shape(x)[1]
    kind = d.between(0, 4)
    if kind == 0:
        d.give(f"{x} + {d.parameter(1, t, c)}")
    elif kind == 1:
        d.give(f"{x} + {d.layer(f'nn.Embedding({t}, {c})')}(torch.arange({x}.shape[1]))")
    elif kind == 2:
        d.give(f"torch.cat([{d.parameter(1, 1, c)}.expand({x}.shape[0], -1, -1), {x}], dim=1)")
    elif kind == 3 and t > 2:
        d.give(f"{x}[:, 1:] + {x}[:, :1]")
    else:
        weight = d.parameter(t, t)
        d.give(f"torch.tril({weight}) @ {x}")


def reshaped(d: Draft, x: str, c: int) -> None:
    """Features split, permuted, merged with positions and back."""
    b, t = d.shape(x)[:2]
    groups = d.divisor(c)
    if groups is None:
        return
    g, inner = d.number(groups), d.size(x, 2, over=groups)
    kind = d.between(0, 4)
    if kind == 0:
        d.give(f"{x}.view({b}, {t}, {g}, {inner}).transpose(2, 3).flatten(2)")
    elif kind == 1:
        layer = d.layer(f"nn.Linear({c // groups}, 4)")
        d.give(f"{layer}({x}.reshape({b}, {t}, {g}, -1)).flatten(2)")
    elif kind == 2:
        d.give(f"{x}.reshape({b}, {t}, {g}, -1).permute(0, 2, 1, 3).sum(1)")
    elif kind == 3 and c % 2 == 0:
        y = d.let(f"{x}.unflatten(-1, (-1, 2))")
        d.give(f"torch.stack([-{y}[..., 1], {y}[..., 0]], dim=-1).flatten(-2)")
    else:
        most = d.let(f"{x}.view({b}, {t}, {g}, {inner}).amax(-1, keepdim=True)")
        d.give(f"{most}.expand(-1, -1, -1, 2).flatten(2)")


def experts(d: Draft, x: str, c: int) -> None:
    """A soft mixture of two or three layers."""
    n = d.between(2, 3)
    weights = d.let(f"{d.layer(f'nn.Linear({c}, {n})')}({x}).softmax(-1)")
    kind = d.between(0, 1)
    if kind == 0:
        layers = d.member("layers", f"nn.ModuleList([nn.Linear({c}, {c}) for _ in range({n})])")
        terms = (f"{weights}[..., {i}:{i + 1}] * {layers}[{i}]({x})" for i in range(n))
        d.give(" + ".join(terms))
    else:
        up, down = d.parameter(n, c, 5), d.parameter(n, 5, c)
        hidden = d.let(f"torch.einsum('btc,nch->nbth', {x}, {up}).relu()")
        d.give(f"torch.einsum('nbth,nhc,btn->btc', {hidden}, {down}, {weights})")


def joined(d: Draft, x: str, c: int) -> None:
    b, t = d.shape(x)[:2]
    same = [
        n
        for n in d.finished
        if len(d.shape(n)) == 3 and d.shape(n)[:2] == (b, t) and c + d.channels(n) <= _MOST
    ]
    if same:
        d.give(f"torch.cat([{x}, {d.choice(same)}], dim=-1)")


def to_images(d: Draft, x: str, c: int) -> None:
    b, t = d.shape(x)[:2]
    side = math.isqrt(t)
    if side * side != t or t == 1:
        return
    d.give(
        d.choice(
            [
                f"{x}.transpose(1, 2).reshape({d.size(x, 0)}, {d.size(x, 2)}, {side}, {side})",
                f"{x}.view({b}, {side}, {side}, {d.size(x, 2)}).permute(0, 3, 1, 2)",
                f"{x}.mT.unflatten(2, ({side}, {side}))",
            ]
        )
    )


def convolved(d: Draft, x: str, c: int) -> None:
    groups = d.choice([1, c])
    conv = d.layer(f"nn.Conv1d({c}, {c}, 3, padding=1, groups={groups})")
    d.give(f"{conv}({x}.transpose(1, 2)).transpose(1, 2) * {x}.sigmoid()")


TOKEN_STEPS: tuple[Callable[[Draft, str, int], None], ...] = (
    *(linear, linear, mlp, norm, residual, attention, attention, grouped_attention, multihead),
    *(recurrent, positions, reshaped, experts, joined, to_images, convolved),
)
