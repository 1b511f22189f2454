"""The loss functions of torch."""

from __future__ import annotations

LOSS_FUNCTIONS = frozenset(
    [
        "cross_entropy",
        "nll_loss",
        "mse_loss",
        "l1_loss",
        "smooth_l1_loss",
        "huber_loss",
        "kl_div",
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "soft_margin_loss",
        "hinge_embedding_loss",
        "poisson_nll_loss",
        "gaussian_nll_loss",
        "multi_margin_loss",
        "multilabel_margin_loss",
        "multilabel_soft_margin_loss",
        "cosine_embedding_loss",
        "ctc_loss",
    ]
)
"""Functions of ``torch.nn.functional`` whose arguments ``input`` and ``target`` are prediction and target."""
