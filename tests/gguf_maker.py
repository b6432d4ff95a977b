"""Makes damaged copies of a GGUF file: keys and tensors can be changed, then written anew."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY, UINT32, FLOAT32 = 8, 9, 4, 6


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def u32(value: int) -> bytes:
    return struct.pack("<II", UINT32, value)


def f32(value: float) -> bytes:
    return struct.pack("<If", FLOAT32, value)


def string(value: str | bytes) -> bytes:
    return struct.pack("<I", STRING) + text(value)


def strings(*values: str | bytes) -> bytes:
    return struct.pack("<IIQ", ARRAY, STRING, len(values)) + b"".join(map(text, values))


def u32s(*values: int) -> bytes:
    return struct.pack(f"<IIQ{len(values)}I", ARRAY, UINT32, len(values), *values)


@dataclass
class Tensor:
    shape: list[int]
    kind: int
    offset: int


@dataclass
class Gguf:
    """A file taken apart; `keys` maps each key to its type and value as bytes."""

    keys: dict[str, bytes] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    data: bytes = b""
    header_size: int = 0
    version: int = 3

    @classmethod
    def read(cls, path: Path) -> Gguf:
        raw, found = path.read_bytes(), cls()
        n_tensors, n_keys = struct.unpack_from("<QQ", raw, 8)
        at = 24
        for _ in range(n_keys):
            name, at = _text(raw, at)
            start, at = at, _after_value(raw, at)
            found.keys[name] = raw[start:at]
        for _ in range(n_tensors):
            name, at = _text(raw, at)
            (n_dims,) = struct.unpack_from("<I", raw, at)
            shape = list(struct.unpack_from(f"<{n_dims}Q", raw, at + 4))
            kind, offset = struct.unpack_from("<IQ", raw, at + 4 + 8 * n_dims)
            at += 16 + 8 * n_dims
            found.tensors[name] = Tensor(shape, kind, offset)
        found.header_size = at + -at % 32
        found.data = raw[found.header_size :]
        return found

    def bytes(self) -> bytes:
        out = b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.keys))
        out += b"".join(text(key) + value for key, value in self.keys.items())
        for name, tensor in self.tensors.items():
            shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            out += text(name) + shape + struct.pack("<IQ", tensor.kind, tensor.offset)
        return out + b"\0" * (-len(out) % 32) + self.data


def _text(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", raw, at)
    return raw[at + 8 : at + 8 + length].decode(), at + 8 + length


def _after_value(raw: bytes, at: int) -> int:
    kind, at = struct.unpack_from("<I", raw, at)[0], at + 4
    count = 1
    if kind == ARRAY:
        kind, count = struct.unpack_from("<IQ", raw, at)
        at += 12
    if kind != STRING:
        return at + count * WIDTHS[kind]
    for _ in range(count):
        at += 8 + struct.unpack_from("<Q", raw, at)[0]
    return at


def with_keys(source: Path, **changes: bytes | None) -> bytes:
    """The file with keys set or, for None, removed; `__` in a name stands for a point."""
    made = Gguf.read(source)
    for name, value in changes.items():
        key = name.replace("__", ".")
        if value is None:
            del made.keys[key]
        else:
            made.keys[key] = value
    return made.bytes()


def with_tensor(source: Path, name: str, /, **changes: object) -> bytes:
    """The file with one tensor's name, shape, kind or offset changed; `drop` removes it."""
    made = Gguf.read(source)
    if "drop" in changes:
        del made.tensors[name]
    elif "name" in changes:
        made.tensors = {
            str(changes["name"]) if n == name else n: t for n, t in made.tensors.items()
        }
    else:
        for attribute, value in changes.items():
            setattr(made.tensors[name], attribute, value)
    return made.bytes()


def malformed(source: Path) -> dict[str, bytes]:
    """Files that must each be refused with one clear line, by what is wrong with them."""
    raw = source.read_bytes()
    tokens = [f"t{i}" for i in range(512)]
    return {
        "empty": b"",
        "magic alone": b"GGUF",
        "wrong magic": b"GGML" + raw[4:],
        "text": b"once upon a time there was a model\n" * 40,
        "version 1": raw[:4] + struct.pack("<I", 1) + raw[8:],
        "version 99": raw[:4] + struct.pack("<I", 99) + raw[8:],
        "big-endian": raw[:4] + struct.pack(">I", 3) + raw[8:],
        "too many tensors": raw[:8] + struct.pack("<Q", 1 << 60) + raw[16:],
        "too many keys": raw[:16] + struct.pack("<Q", 1 << 60) + raw[24:],
        "one tensor more": raw[:8] + struct.pack("<Q", 49) + raw[16:],
        "cut in the header": raw[:300],
        "cut in the tokens": raw[:4000],
        "cut in the tensors": raw[: Gguf.read(source).header_size - 100],
        "endless list": with_keys(
            source, tokenizer__ggml__tokens=struct.pack("<IIQ", ARRAY, STRING, 1 << 62)
        ),
        "cut in the weights": raw[: len(raw) // 2],
        "last byte missing": raw[:-1],
        "endless string": raw[:24] + struct.pack("<Q", 1 << 62) + raw[32:],
        "no architecture": with_keys(source, general__architecture=None),
        "unknown architecture": with_keys(source, general__architecture=string("wombat")),
        "a number for the architecture": with_keys(source, general__architecture=u32(7)),
        "line break in the architecture": with_keys(source, general__architecture=string("a\nb")),
        "a projector": with_keys(source, general__type=string("mmproj")),
        "bad alignment": with_keys(source, general__alignment=u32(33)),
        "no layers": with_keys(source, llama__block_count=u32(0)),
        "too many layers": with_keys(source, llama__block_count=u32(100000)),
        "one layer more": with_keys(source, llama__block_count=u32(6)),
        "no width": with_keys(source, llama__embedding_length=u32(0)),
        "another width": with_keys(source, llama__embedding_length=u32(128)),
        "no context": with_keys(source, llama__context_length=u32(0)),
        "no heads": with_keys(source, llama__attention__head_count=u32(0)),
        "heads that do not divide": with_keys(source, llama__attention__head_count=u32(7)),
        "kv heads that do not divide": with_keys(source, llama__attention__head_count_kv=u32(3)),
        "odd rope": with_keys(source, llama__rope__dimension_count=u32(5)),
        "rope base not a number": with_keys(source, llama__rope__freq_base=f32(float("nan"))),
        "unknown rope scaling": with_keys(source, llama__rope__scaling__type=string("bent")),
        "infinite epsilon": with_keys(
            source, llama__attention__layer_norm_rms_epsilon=f32(float("inf"))
        ),
        "experts used, none there": with_keys(source, llama__expert_used_count=u32(4)),
        "no tokenizer": with_keys(source, tokenizer__ggml__model=None),
        "unknown tokenizer": with_keys(source, tokenizer__ggml__model=string("abacus")),
        "no tokens": with_keys(source, tokenizer__ggml__tokens=None),
        "tokens that are numbers": with_keys(source, tokenizer__ggml__tokens=u32s(*range(512))),
        "too few tokens": with_keys(source, tokenizer__ggml__tokens=strings(*tokens[:100])),
        "byte tokens misspelled": with_keys(source, tokenizer__ggml__tokens=strings(*tokens)),
        "a token twice": with_keys(
            source, tokenizer__ggml__tokens=strings(b"<s>", b"<s>\0more", *tokens[2:])
        ),
        "too few scores": with_keys(source, tokenizer__ggml__scores=u32s(1, 2, 3)),
        "one of two parts": with_keys(source, split__count=u32(2), split__no=u32(0)),
        "no embedding": with_tensor(source, "token_embd.weight", drop=True),
        "embedding mis-shaped": with_tensor(source, "token_embd.weight", shape=[512, 64]),
        "unknown tensor type": with_tensor(source, "output_norm.weight", kind=77),
        "integer weights": with_tensor(source, "output_norm.weight", kind=26),
        "integer matrix": with_tensor(source, "blk.0.attn_q.weight", kind=26),
        "tensor of nothing": with_tensor(source, "output_norm.weight", shape=[0]),
        "tensor beyond the end": with_tensor(source, "output_norm.weight", offset=1 << 40),
        "five dimensions": with_tensor(source, "output_norm.weight", shape=[64, 1, 1, 1, 1]),
        "a layer's tensor renamed": with_tensor(source, "blk.0.attn_q.weight", name="blk.0.no.w"),
        "two tensors of one name": raw.replace(b"blk.0.attn_q.weight", b"blk.0.attn_k.weight"),
    }


def random_damage(source: Path, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` copies, each cut, or with bytes of its header flipped, or with a key made absurd."""
    rng, raw, whole = random.Random(seed), source.read_bytes(), Gguf.read(source)
    size = whole.header_size
    absurd = (0, 1, 3, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
    for i in range(count):
        kind = ("cut", "bits", "bytes", "key", "tensor")[i % 5]
        made = bytearray(raw)
        if kind == "cut":
            made = made[: rng.randrange(rng.choice((64, size, len(raw))))]
        elif kind == "bits":
            for _ in range(rng.choice((1, 1, 2, 8))):
                made[rng.randrange(size)] ^= 1 << rng.randrange(8)
        elif kind == "bytes":
            start = rng.randrange(size)
            for at in range(start, min(size, start + rng.choice((1, 2, 4, 16)))):
                made[at] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        else:
            changed = Gguf.read(source)
            if kind == "key":
                key = rng.choice(list(changed.keys))
                values = (u32(rng.choice(absurd)), f32(rng.choice((0.0, -1.0, 1e38, 1e-38))))
                values += (string(""), string(rng.randbytes(5)), strings(), u32s(*absurd))
                changed.keys[key] = rng.choice(values)
            else:
                tensor = rng.choice(list(changed.tensors.values()))
                rng.choice(
                    (
                        lambda t=tensor: t.shape.reverse(),
                        lambda t=tensor: t.shape.append(1),
                        lambda t=tensor: setattr(t, "kind", rng.randrange(43)),
                        lambda t=tensor: t.shape.__setitem__(0, rng.choice((1, 32, 63, 1 << 40))),
                    )
                )()
            made = bytearray(changed.bytes())
        yield f"{i} {kind}", bytes(made)
