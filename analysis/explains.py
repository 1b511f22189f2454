"""Which findings can be the cause of which others."""

from __future__ import annotations

from typing import Literal

Relation = Literal["anywhere", "downstream", "upstream"]
"""Where a consequence lies as seen from its cause, along the flow of data."""

_LOSS: dict[str, Relation] = {
    "loss-plateau": "anywhere",
    "loss-spike": "anywhere",
    "loss-divergence": "anywhere",
    "loss-jump": "anywhere",
}
_BLOW_UP: dict[str, Relation] = {
    **_LOSS,
    "exploding-gradient": "anywhere",
    "non-finite": "anywhere",
    "dtype-range": "anywhere",
}
_SIGNAL: dict[str, Relation] = {
    "loss-start": "anywhere",
    "dead-units": "downstream",
    "saturated-activation": "downstream",
    "constant-output": "downstream",
    "no-gradient": "anywhere",
    "vanishing-gradient": "anywhere",
    "learning-rate": "anywhere",
}
_SILENCE: dict[str, Relation] = {
    "no-gradient": "anywhere",
    "vanishing-gradient": "upstream",
    "constant-output": "downstream",
    "loss-plateau": "anywhere",
    "loss-jump": "anywhere",
}

EXPLAINS: dict[str, dict[str, Relation]] = {
    "unregistered-parameters": {
        "loss-plateau": "anywhere",
        "missing-nonlinearity": "anywhere",
        "untrained-parameters": "anywhere",
        "unchanged-parameters": "anywhere",
    },
    "untrained-parameters": {
        **_LOSS,
        "unchanged-parameters": "anywhere",
        "no-gradient": "anywhere",
        "constant-output": "anywhere",
    },
    "optimizer-reset": {**_LOSS, "trained-twice": "anywhere", "learning-rate": "anywhere"},
    "trained-twice": {**_LOSS, "learning-rate": "anywhere"},
    "untied-weights": {},
    "shared-modules": {},
    "trained-padding": {"unrelated-targets": "anywhere", "loss-plateau": "anywhere", "imbalanced-targets": "anywhere"},
    "flat-scores": {
        **_LOSS,
        "unrelated-targets": "anywhere",
        "learning-rate": "anywhere",
        "vanishing-gradient": "anywhere",
    },
    "constant-data": {
        **_LOSS,
        "data-shift": "anywhere",
        "unrelated-targets": "anywhere",
        "no-gradient": "anywhere",
        "constant-output": "anywhere",
        "dead-units": "anywhere",
        "learning-rate": "anywhere",
    },
    "unrelated-targets": {
        **_LOSS,
        "overfitting": "anywhere",
        "constant-output": "anywhere",
        "learning-rate": "anywhere",
    },
    "duplicate-samples": {"overfitting": "anywhere"},
    "extreme-features": {**_BLOW_UP, **_SIGNAL, "input-scale": "anywhere"},
    "batch-norm-mode": {"loss-plateau": "anywhere", "overfitting": "anywhere", "small-batch-norm": "anywhere"},
    "scheduler-rhythm": {
        **_LOSS,
        "learning-rate-decay": "anywhere",
        "learning-rate": "anywhere",
        "unchanged-parameters": "anywhere",
    },
    "masked-attention": {**_LOSS, "non-finite": "anywhere", "constant-output": "anywhere"},
    "future-leak": {"overfitting": "anywhere"},
    "targets-equal-inputs": {},
    "repeated-batch": {},
    "imbalanced-targets": {},
    "classes-as-numbers": {},
    "settings-change": {**_BLOW_UP, **_SIGNAL, "shrinking-weights": "anywhere", "overfitting": "anywhere"},
    "data-shift": {**_BLOW_UP, **_SIGNAL, "input-scale": "anywhere", "unrelated-targets": "anywhere"},
    "input-drift": {**_BLOW_UP, **_SIGNAL, "input-scale": "anywhere", "overfitting": "anywhere"},
    "extreme-batch": {**_BLOW_UP, "dead-units": "anywhere", "learning-rate": "anywhere"},
    "optimizer-settings": {**_BLOW_UP, "learning-rate": "anywhere", "dead-units": "anywhere"},
    "clamped-weights": {
        "loss-plateau": "anywhere",
        "weights-reset": "anywhere",
        "shrinking-weights": "anywhere",
        "learning-rate": "anywhere",
        "vanishing-gradient": "anywhere",
    },
    "loss-balance": {
        **_LOSS,
        "shrinking-weights": "anywhere",
        "posterior-collapse": "anywhere",
        "constant-output": "anywhere",
        "learning-rate": "anywhere",
    },
    "weights-reset": {
        **_LOSS,
        "exploding-gradient": "anywhere",
        "overfitting": "anywhere",
    },
    "unchanged-parameters": {"loss-plateau": "anywhere", "no-gradient": "anywhere"},
    "single-class": {
        **_LOSS,
        "no-gradient": "anywhere",
        "constant-output": "anywhere",
        "unchanged-parameters": "anywhere",
        "adam-epsilon": "anywhere",
        "learning-rate": "anywhere",
    },
    "input-scale": {**_BLOW_UP, **_SIGNAL},
    "weight-scale": {**_BLOW_UP, **_SIGNAL},
    "broadcast-target": {**_LOSS, "constant-output": "anywhere", "learning-rate": "anywhere"},
    "activation-before-loss": {
        **_LOSS,
        "unbounded-loss": "anywhere",
        "learning-rate": "anywhere",
        "vanishing-gradient": "anywhere",
        "constant-output": "anywhere",
        "dead-units": "anywhere",
        "no-gradient": "anywhere",
        "saturated-activation": "anywhere",
    },
    "several-labels": {**_LOSS, "loss-start": "anywhere", "learning-rate": "anywhere", "unrelated-targets": "anywhere"},
    "shifted-labels": {**_LOSS, "unrelated-targets": "anywhere", "overfitting": "anywhere"},
    "hidden-end": {},
    "scrambled-input": {**_LOSS, "unrelated-targets": "anywhere", "overfitting": "anywhere"},
    "own-backward": {
        **_BLOW_UP,
        **_SIGNAL,
        "dead-units": "anywhere",
        "saturated-activation": "anywhere",
        "constant-output": "anywhere",
    },
    "likelihood-sign": {
        **_BLOW_UP,
        "unbounded-loss": "anywhere",
        "learning-rate": "anywhere",
        "weight-scale": "anywhere",
    },
    "batch-leak": {**_LOSS, "unrelated-targets": "anywhere", "overfitting": "anywhere"},
    "softmax-over-batch": {
        **_LOSS,
        "learning-rate": "anywhere",
        "vanishing-gradient": "anywhere",
        "adam-epsilon": "anywhere",
    },
    "target-scale": {**_BLOW_UP, "loss-start": "anywhere", "learning-rate": "anywhere", "dead-units": "anywhere"},
    "unreachable-targets": {
        **_LOSS,
        "unbounded-loss": "anywhere",
        "learning-rate": "anywhere",
        "constant-output": "anywhere",
        "dead-units": "anywhere",
        "no-gradient": "anywhere",
        "saturated-activation": "anywhere",
        "vanishing-gradient": "anywhere",
    },
    "unbounded-loss": {
        **_BLOW_UP,
        "dead-units": "anywhere",
        "saturated-activation": "anywhere",
        "learning-rate": "anywhere",
    },
    "frozen-parameters": {"unchanged-parameters": "anywhere", "untrained-parameters": "anywhere", **_LOSS},
    "gradient-cut": {
        "no-gradient": "upstream",
        "posterior-collapse": "anywhere",
        "loss-plateau": "anywhere",
        "ignored-input": "anywhere",
    },
    "ignored-input": {"constant-output": "anywhere", "loss-plateau": "anywhere", "no-gradient": "anywhere"},
    "accumulated-gradients": {
        **_BLOW_UP,
        "learning-rate": "anywhere",
        "dead-units": "anywhere",
        "saturated-activation": "anywhere",
        "constant-output": "anywhere",
        "no-gradient": "anywhere",
    },
    "constant-clipping": {"loss-plateau": "anywhere", "learning-rate": "anywhere"},
    "learning-rate-decay": {"loss-plateau": "anywhere", "learning-rate": "anywhere"},
    "shrinking-weights": {
        "loss-plateau": "anywhere",
        "constant-output": "anywhere",
        "vanishing-gradient": "anywhere",
        "no-gradient": "anywhere",
        "dead-units": "anywhere",
        "adam-epsilon": "anywhere",
    },
    "dropout-mode": {"loss-plateau": "anywhere", "overfitting": "anywhere", "loss-spike": "anywhere"},
    "stale-copy": {},
    "growing-targets": {**_LOSS, "target-scale": "anywhere", "learning-rate": "anywhere"},
    "adam-epsilon": {"loss-plateau": "anywhere", "learning-rate": "anywhere"},
    "learning-rate": {
        **_BLOW_UP,
        "residual-balance": "anywhere",
        "attention-logits": "anywhere",
        "attention-collapse": "anywhere",
        "dead-units": "anywhere",
        "saturated-activation": "anywhere",
        "constant-output": "anywhere",
        "no-gradient": "anywhere",
        "vanishing-gradient": "anywhere",
    },
    "growing-state": {**_BLOW_UP, "saturated-activation": "downstream", "learning-rate": "anywhere"},
    "residual-balance": {"vanishing-gradient": "upstream", "exploding-gradient": "anywhere"},
    "unused-embeddings": {},
    "attention-logits": {**_LOSS, "attention-collapse": "anywhere", "dtype-range": "anywhere"},
    "attention-collapse": {**_LOSS, "vanishing-gradient": "upstream"},
    "gan-balance": {
        "mode-collapse": "anywhere",
        "loss-divergence": "anywhere",
        "loss-spike": "anywhere",
        "vanishing-gradient": "anywhere",
        "no-gradient": "anywhere",
    },
    "mode-collapse": {"constant-output": "anywhere"},
    "representation-collapse": {"constant-output": "anywhere", "loss-plateau": "anywhere", "no-gradient": "anywhere"},
    "posterior-collapse": {"constant-output": "anywhere", "loss-plateau": "anywhere"},
    "dead-units": {**_SILENCE, "dead-units": "downstream"},
    "saturated-activation": {**_SILENCE, "saturated-activation": "downstream"},
    "module-never-called": {},
    "missing-nonlinearity": {},
    "exploding-gradient": {"loss-spike": "anywhere", "loss-divergence": "anywhere", "non-finite": "anywhere"},
    "vanishing-gradient": {"loss-plateau": "anywhere"},
    "constant-output": {"no-gradient": "anywhere", "loss-plateau": "anywhere"},
    "dtype-range": {"non-finite": "anywhere", "loss-plateau": "anywhere", "no-gradient": "anywhere"},
    "no-gradient": {"loss-plateau": "anywhere"},
    "loss-jump": {"loss-divergence": "anywhere", "loss-spike": "anywhere", "loss-plateau": "anywhere"},
    "loss-divergence": {"loss-spike": "anywhere", "non-finite": "anywhere"},
    "loss-spike": {},
    "small-batch-norm": {"loss-spike": "anywhere", "overfitting": "anywhere", "small-batch-norm": "anywhere"},
    "loss-start": {"loss-spike": "anywhere"},
    "non-finite": {},
    "loss-plateau": {},
    "overfitting": {},
}
"""For each rule the rules whose findings it can explain, in the order of preference as a cause.

``non-finite`` explains, besides, whatever begins when it is there, and is itself explained only by what began before
it while the run blew up (a division by zero has its own cause), or by what makes it at once.
"""

AT_ONCE = frozenset(["masked-attention"])
"""What makes non-finite numbers in the very step in which it is seen first: a softmax over nothing."""

ORDER = {rule: index for index, rule in enumerate(EXPLAINS)}
"""The rank of a rule as a cause: what looks at how the run was set up comes before what looks at its course."""
