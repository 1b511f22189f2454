"""A small transformer that learns to write like Python's documentation, one character at a time.

    python examples/char_transformer.py --out runs/text

The text comes with Python itself. Learning rate and gradient norm are logged as scalars, what the net writes is left
as notes; clipped gradients are recorded as the optimizer uses them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F

from stepscope.examples.arguments import parse
from stepscope.examples.progress import progress
from stepscope.examples.transformer import CharTransformer
from stepscope.recorder import Every, Recorder

STEPS = 300
BATCH = 32
CONTEXT = 64
LEARNING_RATE = 2e-3
WARMUP_STEPS = 50
CLIP_NORM = 1.0
VALIDATE_EVERY = 50
VALIDATION_BATCHES = 4
SCHEDULE = {"train": Every(20), "validation": Every(VALIDATION_BATCHES)}


class Text:
    """The text as integers, the last tenth of it kept for validation."""

    def __init__(self) -> None:
        text = "\n\n".join(topics[key] for key in sorted(topics))
        self.characters = sorted(set(text))
        number = {character: i for i, character in enumerate(self.characters)}
        encoded = torch.tensor([number[character] for character in text])
        self.train, self.validation = encoded[: -len(encoded) // 10], encoded[-len(encoded) // 10 :]

    def decode(self, encoded: torch.Tensor) -> str:
        return "".join(self.characters[number] for number in encoded.tolist())


def make_batch(part: torch.Tensor, data: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pieces of the text ``(batch, time)``, and the same shifted by one character."""
    starts = torch.randint(len(part) - CONTEXT - 1, (BATCH, 1), generator=data)
    places = starts + torch.arange(CONTEXT + 1)
    return part[places[:, :-1]], part[places[:, 1:]]


def loss_of(model: CharTransformer, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """The cross-entropy a character, in nats."""
    text, following = batch
    logits = model(text)
    return F.cross_entropy(logits.flatten(0, 1), following.flatten())


def train(recorder: Recorder, steps: int, *, seed: int) -> float:
    """Train for some steps; returns the last validation loss."""
    torch.manual_seed(seed)
    data = torch.Generator().manual_seed(seed)
    text = Text()
    model = CharTransformer(len(text.characters), context=CONTEXT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / WARMUP_STEPS, total_iters=WARMUP_STEPS)
    recorder.watch(model, optimizer)
    validation_loss = float("nan")
    for number in progress(steps, "text"):
        batch = make_batch(text.train, data)
        with recorder.step("train"):
            loss = loss_of(model, batch)
            optimizer.zero_grad()
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            optimizer.step()
        recorder.scalar("train", loss, group="loss")
        recorder.scalar("norm before clipping", norm, group="gradient")
        recorder.scalar("learning rate", warmup.get_last_lr()[0])
        warmup.step()
        if number % VALIDATE_EVERY == VALIDATE_EVERY - 1 or number == steps - 1:
            validation_loss = validate(model, text, recorder)
    return validation_loss


@torch.no_grad()
def validate(model: CharTransformer, text: Text, recorder: Recorder) -> float:
    """The mean loss on text that the net does not train on; notes what it writes."""
    data = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(VALIDATION_BATCHES):
        batch = make_batch(text.validation, data)
        with recorder.step("validation") as step:
            loss = loss_of(model, batch)
            step.record("loss", loss, type="loss")  # without backward, nothing else tells that it is one
        losses.append(loss)
    mean = float(torch.stack(losses).mean())
    recorder.scalar("validation", mean, group="loss")
    recorder.note(write(model, text, data))
    return mean


def write(model: CharTransformer, text: Text, data: torch.Generator, characters: int = 100) -> str:
    """Let the net continue a piece of the text that it was not trained on."""
    written = text.validation[:CONTEXT]
    for _ in range(characters):
        logits = model(written[-CONTEXT:].unsqueeze(0))[0, -1]
        following = torch.multinomial(logits.softmax(-1), 1, generator=data)
        written = torch.cat([written, following])
    return text.decode(written[CONTEXT:])


def run(out: Path, steps: int = STEPS, *, seed: int = 0) -> float:
    """Record the trial ``transformer`` into the group ``out``; returns the last validation loss."""
    config = {
        "steps": steps, "lr": LEARNING_RATE, "warmup": WARMUP_STEPS, "clip": CLIP_NORM,
        "batch": BATCH, "context": CONTEXT, "seed": seed,
    }  # fmt: skip
    with Recorder(out, trial="transformer", schedule=SCHEDULE, config=config, if_exists="overwrite") as recorder:
        return train(recorder, steps, seed=seed)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments, "Train a small transformer on Python's documentation.", out="runs/text", steps=STEPS)
    loss = run(options.out, options.steps)
    print(f"validation loss: {loss:.2f} nats a character", file=sys.stderr)
    print(f"Recorded the trial. Look at it with: stepscope view {options.out}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
