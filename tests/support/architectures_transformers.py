"""Models of the transformers library, built from small configurations: nothing is fetched."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import nn

from support.training import Training, simple

WORDS, LENGTH, BATCH = 37, 8, 3


def words(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(1, WORDS, (BATCH, length))


def _own_loss(model: nn.Module, inputs: Any) -> Training:
    """Training by the loss that the model itself computes of keyword inputs."""
    return simple(model, lambda: model(**inputs()).loss)


def gpt2_model(**options: Any) -> nn.Module:
    config = transformers.GPT2Config(
        vocab_size=WORDS, n_positions=16, n_embd=12, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0, **options
    )
    return transformers.GPT2LMHeadModel(config)


def gpt2() -> Training:
    model = gpt2_model()

    def inputs() -> dict[str, torch.Tensor]:
        tokens = words()
        return {"input_ids": tokens, "labels": tokens}

    return _own_loss(model, inputs)


def gpt2_with_checkpointing() -> Training:
    training = gpt2()
    model: Any = training.models["model"]
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    model.train()
    return training


def bert() -> Training:
    config = transformers.BertConfig(
        vocab_size=WORDS, hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)

    def inputs() -> dict[str, torch.Tensor]:
        mask = torch.ones(BATCH, LENGTH, dtype=torch.long)
        mask[0, 5:] = 0
        return {"input_ids": words(), "attention_mask": mask, "labels": torch.randint(2, (BATCH,))}

    return _own_loss(model, inputs)


def vit() -> Training:
    config = transformers.ViTConfig(
        hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4,
        num_labels=2,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config)

    def inputs() -> dict[str, torch.Tensor]:
        return {"pixel_values": torch.randn(BATCH, 3, 8, 8), "labels": torch.randint(2, (BATCH,))}

    return _own_loss(model, inputs)


def t5() -> Training:
    config = transformers.T5Config(
        vocab_size=WORDS, d_model=12, d_kv=6, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0
    )
    model = transformers.T5ForConditionalGeneration(config)
    return _own_loss(model, lambda: {"input_ids": words(), "labels": words(5)})


MODELS = {made.__name__: made for made in (gpt2, gpt2_with_checkpointing, bert, vit, t5)}
