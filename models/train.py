"""Trains the demo pair: a chat target, a drafter with its vocabulary, a drafter with another one.

    python -m edgespec.models.train STAGE --data TEXTS --work RUN

STAGE is target, then answers, then drafter and foreign; hybrid learns from the bundled target.
Each stage keeps checkpoints in RUN, goes on from the last one when started again, and writes a
GGUF at its end. README.md beside this file says what was run, on what text and with what result.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from edgespec.models import corpus
from edgespec.models.answer import answers
from edgespec.models.hybrid import ATTENDS, hybrid, write_hybrid
from edgespec.models.learn import Schedule, next_token_loss, train
from edgespec.models.network import Network, Shape, network_of, write_gguf
from edgespec.models.vocabulary import described, tokenizer_of
from tokenizers import Tokenizer
from torch import Tensor, nn

TARGET_SHAPE = Shape(n_vocab=4096, n_embd=256, n_layers=8, n_heads=4, n_ff=768)
DRAFTER_SHAPE = Shape(n_vocab=4096, n_embd=128, n_layers=2, n_heads=2, n_ff=384)
FOREIGN_SHAPE = Shape(n_vocab=1024, n_embd=128, n_layers=2, n_heads=2, n_ff=384)
HYBRID_SHAPE = Shape(n_vocab=4096, n_embd=256, n_layers=len(ATTENDS), n_heads=4, n_ff=384)
BUNDLED = Path(__file__).parent / "demo" / "target.gguf"


def tokenizer_for(
    name: str, format: corpus.Format, texts: Iterator[str], n_vocab: int, work: Path
) -> Tokenizer:
    """The tokenizer stored in `work`, trained first if there is none."""
    path = work / f"{name}.tokenizer.json"
    if not path.exists():
        corpus.train_tokenizer(texts, n_vocab, format).save(str(path))
    return Tokenizer.from_file(str(path))


def documents(
    data: Path, tokenizer: Tokenizer, format: corpus.Format, share: float
) -> Iterator[list[int]]:
    """Token ids of conversations without end; each pass over the stories draws new prompts."""
    epoch = 0
    while True:
        turns = corpus.conversations(data, random.Random(epoch), share)
        texts = [format.render(conversation) for conversation in turns]
        yield from (encoding.ids for encoding in tokenizer.encode_batch(texts))
        epoch += 1


def bits_per_byte(
    network: Network, tokenizer: Tokenizer, format: corpus.Format, stories: list[str]
) -> float:
    """Of the stories told after the bare prompt "Tell me a story.", their end token included."""
    prompt = tokenizer.encode(
        format.opening + format.turn.format(role="user", text="Tell me a story.")
    )
    prompt_ids = prompt.ids + tokenizer.encode(format.ask).ids
    bits, n_bytes = 0.0, 0
    for story in stories:
        ids = prompt_ids + tokenizer.encode(story + format.specials[1]).ids
        ids = ids[: network.shape.context]
        n_bytes += len(story.encode())
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            logits = network(torch.tensor([ids[:-1]]))[0].float()
        loss = F.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
        bits += loss[len(prompt_ids) - 1 :].sum().item() / np.log(2)
    return bits / n_bytes


def network_from(path: Path, shape: Shape) -> Network:
    """The network whose weights a checkpoint holds, ready to be evaluated."""
    network = Network(shape)
    network.load_state_dict(torch.load(path, weights_only=True)["network"])
    return network.eval().requires_grad_(False)


def describe(tokenizer: Tokenizer, format: corpus.Format) -> dict[str, object]:
    """The vocabulary as `network.write_gguf` stores it."""
    stored = json.loads(tokenizer.to_str())["model"]
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    types = [
        gguf.TokenType.CONTROL if t in format.specials else gguf.TokenType.NORMAL for t, _ in by_id
    ]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in stored["merges"]]
    bos, end = (tokenizer.token_to_id(text) for text in format.specials[:2])
    return {
        "tokens": [token for token, _ in by_id],
        "types": types,
        "merges": merges,
        "bos": bos,
        "eos": end,
        "chat_template": format.jinja,
    }


def train_target(data: Path, work: Path, steps: int) -> None:
    """The chat target, on stories and dialogues."""
    texts = (
        corpus.TARGET.render(turns) for turns in corpus.conversations(data, random.Random(0), 0.35)
    )
    tokenizer = tokenizer_for("target", corpus.TARGET, texts, TARGET_SHAPE.n_vocab, work)
    held_out = [story for story in corpus.stories(data) if corpus.held_out(story)]
    network = Network(TARGET_SHAPE)

    def evaluate(net: Network) -> str:
        return f"{bits_per_byte(net, tokenizer, corpus.TARGET, held_out[:120]):.4f} bits per byte"

    docs = documents(data, tokenizer, corpus.TARGET, 0.35)
    train(network, docs, Schedule(steps), work / "target.pt", next_token_loss, evaluate)
    final = bits_per_byte(network, tokenizer, corpus.TARGET, held_out)
    print(f"all {len(held_out)} held-out stories: {final:.4f} bits per byte")
    write_gguf(
        network, describe(tokenizer, corpus.TARGET), work / "target.gguf", "EdgeSpec demo target"
    )


def write_answers(data: Path, work: Path, n_answers: int) -> None:
    """answers.jsonl: the target's answers to story prompts, half of them greedy; resumable."""
    tokenizer = Tokenizer.from_file(str(work / "target.tokenizer.json"))
    network = network_from(work / "target.pt", TARGET_SHAPE)
    end = tokenizer.token_to_id(corpus.TARGET.specials[1])
    path = work / "answers.jsonl"
    n_done = len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
    while n_done < n_answers:
        asked = list(itertools.islice(story_prompts(data, random.Random(n_done + 1)), 960))
        for turns in batched_by_length(asked, 96):
            texts = [corpus.TARGET.render(t) + corpus.TARGET.ask for t in turns]
            prompts = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
            heat = torch.tensor([(0.0, 0.0, 0.6, 1.0)[i % 4] for i in range(len(prompts))])
            said = answers(network, prompts, end, 320, heat)
            whole = [(t, ids[:-1]) for t, ids in zip(turns, said, strict=True) if ids[-1] == end]
            lines = [json.dumps([*t, ("assistant", tokenizer.decode(ids))]) for t, ids in whole]
            with path.open("a", encoding="utf-8") as file:
                file.write("".join(line + "\n" for line in lines))
            n_done += len(lines)
            print(f"{n_done} answers {time.ctime()}", flush=True)


def batched_by_length(
    asked: list[corpus.Conversation], n: int
) -> Iterator[list[corpus.Conversation]]:
    """Groups of n conversations of like length, so that few steps are spent on prompts."""
    ordered = sorted(asked, key=lambda turns: sum(len(text) for _, text in turns))
    for start in range(0, len(ordered), n):
        yield ordered[start : start + n]


def story_prompts(data: Path, rng: random.Random) -> Iterator[corpus.Conversation]:
    """Conversations up to a question: story prompts, a third of them in the middle of a story."""
    tales = [story for story in corpus.stories(data) if not corpus.held_out(story)]
    tales = [story for story in tales if len(story) < 4000]  # one file part holds many run together
    while True:
        turns = corpus.story_turns(rng.choice(tales), corpus.ASKS, rng)
        yield turns[:-1]


def answered(path: Path) -> list[corpus.Conversation]:
    """The conversations of answers.jsonl."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [[(role, text) for role, text in json.loads(line)] for line in lines]


def story_documents(
    data: Path, work: Path, tokenizer: Tokenizer, format: corpus.Format
) -> Iterator[list[int]]:
    """Ids of the target's answers and of the stories themselves, without end; no dialogues.

    Each answer comes four times a pass, so that the target's own words are about half of it.
    """
    for epoch in itertools.count():
        rng = random.Random(epoch)
        turns = [*answered(work / "answers.jsonl") * 4, *corpus.conversations(data, rng, 0.0)]
        rng.shuffle(turns)
        yield from (e.ids for e in tokenizer.encode_batch([format.render(t) for t in turns]))


def agreement(drafter: Network, target: Network, tokenizer: Tokenizer, stories: list[str]) -> float:
    """Share of the target's own greedy tokens that the drafter would have drafted there.

    The target answers prompts about held-out stories with up to 128 tokens each.
    """
    rng = random.Random(7)
    asked = [corpus.story_turns(story, corpus.ASKS, rng)[:1] for story in stories]
    prompts = [tokenizer.encode(corpus.TARGET.render(c) + corpus.TARGET.ask).ids for c in asked]
    end = tokenizer.token_to_id(corpus.TARGET.specials[1])
    n_same = n_all = 0
    for prompt, said in zip(
        prompts, answers(target, prompts, end, 128, torch.zeros(len(prompts))), strict=True
    ):
        with torch.inference_mode():
            likeliest = drafter(torch.tensor([prompt + said]))[0].argmax(dim=-1)
        drafted = likeliest[len(prompt) - 1 : -1]
        n_same += int((drafted == torch.tensor(said)).sum())
        n_all += len(said)
    return n_same / n_all


def kl_to(target: Network) -> Callable[[nn.Module, Tensor], Tensor]:
    """Mean KL(target || network) in nats: DistillSpec, arXiv 2310.08461, section 3."""

    def loss(net: nn.Module, batch: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                law = target(batch[:, :-1]).float().softmax(dim=-1)
            logs = net(batch[:, :-1]).float().log_softmax(dim=-1)
        return -(law * logs).sum(dim=-1).mean()

    return loss


def train_drafter(data: Path, work: Path, steps: int) -> None:
    """The drafter of the target's vocabulary: forward KL to the target's law, on stories only."""
    tokenizer = Tokenizer.from_file(str(work / "target.tokenizer.json"))
    target = network_from(work / "target.pt", TARGET_SHAPE)
    network = Network(DRAFTER_SHAPE)
    held_out = [story for story in corpus.stories(data) if corpus.held_out(story)]

    def evaluate(net: Network) -> str:
        return f"agreement {agreement(net, target, tokenizer, held_out[:48]):.4f}"

    docs = story_documents(data, work, tokenizer, corpus.TARGET)
    train(
        network,
        docs,
        Schedule(steps, long_share=0.05),
        work / "drafter.pt",
        kl_to(target),
        evaluate,
    )
    agreed = agreement(network, target, tokenizer, held_out[:200])
    print(f"on {len(held_out[:200])} answers: agreement {agreed:.4f}")
    vocabulary = describe(tokenizer, corpus.TARGET)
    write_gguf(network, vocabulary, work / "drafter.gguf", "EdgeSpec demo drafter")


def train_foreign(data: Path, work: Path, steps: int) -> None:
    """The drafter of another vocabulary: plain next-token loss on story text.

    Its vocabulary is a quarter of the target's, as Llama-2's is of Llama-3's, and learned on
    other text than the target's: on the text of both, it would hold nearly every word they share.
    """
    texts = iter(corpus.fairy_tales(data))
    tokenizer = tokenizer_for("foreign", corpus.FOREIGN, texts, FOREIGN_SHAPE.n_vocab, work)
    held_out = [story for story in corpus.stories(data) if corpus.held_out(story)]
    network = Network(FOREIGN_SHAPE)

    def evaluate(net: Network) -> str:
        return f"{bits_per_byte(net, tokenizer, corpus.FOREIGN, held_out[:120]):.4f} bits per byte"

    docs = story_documents(data, work, tokenizer, corpus.FOREIGN)
    train(
        network,
        docs,
        Schedule(steps, long_share=0.05),
        work / "foreign.pt",
        next_token_loss,
        evaluate,
    )
    vocabulary = describe(tokenizer, corpus.FOREIGN)
    write_gguf(network, vocabulary, work / "foreign.gguf", "EdgeSpec demo foreign drafter")


def train_hybrid(data: Path, work: Path, steps: int) -> None:
    """A chat target with recurrent layers: forward KL to the bundled one, on the same text."""
    target = network_of(BUNDLED).eval().requires_grad_(False)
    tokenizer = tokenizer_of(BUNDLED)
    network = hybrid(HYBRID_SHAPE)
    held_out = [story for story in corpus.stories(data) if corpus.held_out(story)]

    def evaluate(net: Network) -> str:
        return f"{bits_per_byte(net, tokenizer, corpus.TARGET, held_out[:120]):.4f} bits per byte"

    docs = documents(data, tokenizer, corpus.TARGET, 0.35)
    train(network, docs, Schedule(steps), work / "hybrid.pt", kl_to(target), evaluate)
    final = bits_per_byte(network, tokenizer, corpus.TARGET, held_out)
    print(f"all {len(held_out)} held-out stories: {final:.4f} bits per byte")
    write_hybrid(network, described(BUNDLED), work / "hybrid.gguf", "EdgeSpec demo hybrid")


def main() -> None:
    stages = {
        "target": (train_target, 2200),
        "answers": (write_answers, 1552),
        "drafter": (train_drafter, 700),
        "foreign": (train_foreign, 4000),
        "hybrid": (train_hybrid, 1600),
    }
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stage", choices=stages)
    parser.add_argument("--data", type=Path, required=True, help="folder with the text files")
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints and results"
    )
    parser.add_argument("--size", type=int, help="steps to train, or answers to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    args.work.mkdir(parents=True, exist_ok=True)
    run, size = stages[args.stage]
    run(args.data, args.work, args.size or size)


if __name__ == "__main__":
    main()
