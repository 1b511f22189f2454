"""All rules by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from stepscope.analysis.rule import Rule
from stepscope.analysis.rules.accumulated_gradients import AccumulatedGradients
from stepscope.analysis.rules.activation_before_loss import ActivationBeforeLoss
from stepscope.analysis.rules.adam_epsilon import AdamEpsilon
from stepscope.analysis.rules.altered_gradients import AlteredGradients
from stepscope.analysis.rules.attached_advantage import AttachedAdvantage
from stepscope.analysis.rules.attention_collapse import AttentionCollapse
from stepscope.analysis.rules.attention_logits import AttentionLogits
from stepscope.analysis.rules.averaged_twice import AveragedTwice
from stepscope.analysis.rules.batch_leak import BatchLeak
from stepscope.analysis.rules.batch_norm_mode import BatchNormMode
from stepscope.analysis.rules.blind_updates import BlindUpdates
from stepscope.analysis.rules.broadcast_target import BroadcastTarget
from stepscope.analysis.rules.channel_order import ChannelOrder
from stepscope.analysis.rules.clamped_weights import ClampedWeights
from stepscope.analysis.rules.classes_as_numbers import ClassesAsNumbers
from stepscope.analysis.rules.clipped_prediction import ClippedPrediction
from stepscope.analysis.rules.constant_clipping import ConstantClipping
from stepscope.analysis.rules.constant_data import ConstantData
from stepscope.analysis.rules.constant_output import ConstantOutput
from stepscope.analysis.rules.data_shift import DataShift
from stepscope.analysis.rules.dead_units import DeadUnits
from stepscope.analysis.rules.decayed_rows import DecayedRows
from stepscope.analysis.rules.discarded_gradients import DiscardedGradients
from stepscope.analysis.rules.dropout_mode import DropoutMode
from stepscope.analysis.rules.dtype_range import DtypeRange
from stepscope.analysis.rules.duplicate_samples import DuplicateSamples
from stepscope.analysis.rules.early_clipping import EarlyClipping
from stepscope.analysis.rules.entropy_sign import EntropySign
from stepscope.analysis.rules.evaluation_data import EvaluationData
from stepscope.analysis.rules.exclusive_classes import ExclusiveClasses
from stepscope.analysis.rules.exploding_gradient import ExplodingGradient
from stepscope.analysis.rules.exponential_loss import ExponentialLoss
from stepscope.analysis.rules.extreme_batch import ExtremeBatch
from stepscope.analysis.rules.extreme_features import ExtremeFeatures
from stepscope.analysis.rules.fading_signal import FadingSignal
from stepscope.analysis.rules.flat_scores import FlatScores
from stepscope.analysis.rules.flipped_masks import FlippedMasks
from stepscope.analysis.rules.forgetful_recurrence import ForgetfulRecurrence
from stepscope.analysis.rules.frozen_parameters import FrozenParameters
from stepscope.analysis.rules.functional_norm import FunctionalNorm
from stepscope.analysis.rules.future_leak import FutureLeak
from stepscope.analysis.rules.gan_balance import GanBalance
from stepscope.analysis.rules.gradient_cut import GradientCut
from stepscope.analysis.rules.greatest_answer import GreatestAnswer
from stepscope.analysis.rules.growing_signal import GrowingSignal
from stepscope.analysis.rules.growing_state import GrowingState
from stepscope.analysis.rules.growing_targets import GrowingTargets
from stepscope.analysis.rules.half_sigmoid import HalfSigmoid
from stepscope.analysis.rules.hidden_end import HiddenEnd
from stepscope.analysis.rules.hidden_sigmoid import HiddenSigmoid
from stepscope.analysis.rules.hidden_softmax import HiddenSoftmax
from stepscope.analysis.rules.identical_views import IdenticalViews
from stepscope.analysis.rules.idle_steps import IdleSteps
from stepscope.analysis.rules.ignored_freezing import IgnoredFreezing
from stepscope.analysis.rules.ignored_input import IgnoredInput
from stepscope.analysis.rules.ignored_targets import IgnoredTargets
from stepscope.analysis.rules.imbalanced_targets import ImbalancedTargets
from stepscope.analysis.rules.input_drift import InputDrift
from stepscope.analysis.rules.input_scale import InputScale
from stepscope.analysis.rules.kept_mask import KeptMask
from stepscope.analysis.rules.labels_of_others import LabelsOfOthers
from stepscope.analysis.rules.learning_rate import LearningRate
from stepscope.analysis.rules.learning_rate_decay import LearningRateDecay
from stepscope.analysis.rules.likelihood_sign import LikelihoodSign
from stepscope.analysis.rules.loss_balance import LossBalance
from stepscope.analysis.rules.loss_divergence import LossDivergence
from stepscope.analysis.rules.loss_jump import LossJump
from stepscope.analysis.rules.loss_plateau import LossPlateau
from stepscope.analysis.rules.loss_spike import LossSpike
from stepscope.analysis.rules.loss_start import LossStart
from stepscope.analysis.rules.lost_level import LostLevel
from stepscope.analysis.rules.lost_order import LostOrder
from stepscope.analysis.rules.lost_phase import LostPhase
from stepscope.analysis.rules.lost_scale import LostScale
from stepscope.analysis.rules.lost_signal import LostSignal
from stepscope.analysis.rules.masked_attention import MaskedAttention
from stepscope.analysis.rules.meaning_shift import MeaningShift
from stepscope.analysis.rules.missing_bias import MissingBias
from stepscope.analysis.rules.missing_divergence import MissingDivergence
from stepscope.analysis.rules.missing_nonlinearity import MissingNonlinearity
from stepscope.analysis.rules.mode_collapse import ModeCollapse
from stepscope.analysis.rules.module_never_called import ModuleNeverCalled
from stepscope.analysis.rules.no_backward import NoBackward
from stepscope.analysis.rules.no_gradient import NoGradient
from stepscope.analysis.rules.non_finite import NonFinite
from stepscope.analysis.rules.opposed_sides import OpposedSides
from stepscope.analysis.rules.optimizer_reset import OptimizerReset
from stepscope.analysis.rules.optimizer_settings import OptimizerSettings
from stepscope.analysis.rules.overfitting import Overfitting
from stepscope.analysis.rules.oversmoothing import Oversmoothing
from stepscope.analysis.rules.own_backward import OwnBackward
from stepscope.analysis.rules.parted_copies import PartedCopies
from stepscope.analysis.rules.partial_leak import PartialLeak
from stepscope.analysis.rules.penalised_copies import PenalisedCopies
from stepscope.analysis.rules.pointwise_filters import PointwiseFilters
from stepscope.analysis.rules.positive_weights import PositiveWeights
from stepscope.analysis.rules.posterior_collapse import PosteriorCollapse
from stepscope.analysis.rules.pretrained_input import PretrainedInput
from stepscope.analysis.rules.rare_updates import RareUpdates
from stepscope.analysis.rules.recurring_targets import RecurringTargets
from stepscope.analysis.rules.repeated_batch import RepeatedBatch
from stepscope.analysis.rules.repeated_randomness import RepeatedRandomness
from stepscope.analysis.rules.representation_collapse import RepresentationCollapse
from stepscope.analysis.rules.residual_balance import ResidualBalance
from stepscope.analysis.rules.rounded_updates import RoundedUpdates
from stepscope.analysis.rules.saturated_activation import SaturatedActivation
from stepscope.analysis.rules.scheduler_rhythm import SchedulerRhythm
from stepscope.analysis.rules.scrambled_input import ScrambledInput
from stepscope.analysis.rules.settings_change import SettingsChange
from stepscope.analysis.rules.several_labels import SeveralLabels
from stepscope.analysis.rules.shared_modules import SharedModules
from stepscope.analysis.rules.shifted_labels import ShiftedLabels
from stepscope.analysis.rules.short_training import ShortTraining
from stepscope.analysis.rules.shrinking_weights import ShrinkingWeights
from stepscope.analysis.rules.single_class import SingleClass
from stepscope.analysis.rules.single_unit import SingleUnit
from stepscope.analysis.rules.skipped_module import SkippedModule
from stepscope.analysis.rules.skipping_filters import SkippingFilters
from stepscope.analysis.rules.small_batch_norm import SmallBatchNorm
from stepscope.analysis.rules.softmax_over_batch import SoftmaxOverBatch
from stepscope.analysis.rules.squared_chances import SquaredChances
from stepscope.analysis.rules.stale_copy import StaleCopy
from stepscope.analysis.rules.state_behind_padding import StateBehindPadding
from stepscope.analysis.rules.sum_before_logarithm import SumBeforeLogarithm
from stepscope.analysis.rules.swapped_shares import SwappedShares
from stepscope.analysis.rules.target_scale import TargetScale
from stepscope.analysis.rules.targets_equal_inputs import TargetsEqualInputs
from stepscope.analysis.rules.terms_without_gradient import TermsWithoutGradient
from stepscope.analysis.rules.tiny_batch import TinyBatch
from stepscope.analysis.rules.too_many_classes import TooManyClasses
from stepscope.analysis.rules.trained_padding import TrainedPadding
from stepscope.analysis.rules.trained_twice import TrainedTwice
from stepscope.analysis.rules.unasked_critic import UnaskedCritic
from stepscope.analysis.rules.unbounded_loss import UnboundedLoss
from stepscope.analysis.rules.unchanged_parameters import UnchangedParameters
from stepscope.analysis.rules.uneven_means import UnevenMeans
from stepscope.analysis.rules.unmasked_padding import UnmaskedPadding
from stepscope.analysis.rules.unmixed_batches import UnmixedBatches
from stepscope.analysis.rules.unreachable_targets import UnreachableTargets
from stepscope.analysis.rules.unreached_vertices import UnreachedVertices
from stepscope.analysis.rules.unregistered_parameters import UnregisteredParameters
from stepscope.analysis.rules.unrelated_targets import UnrelatedTargets
from stepscope.analysis.rules.unscaled_distillation import UnscaledDistillation
from stepscope.analysis.rules.untied_weights import UntiedWeights
from stepscope.analysis.rules.untrained_parameters import UntrainedParameters
from stepscope.analysis.rules.unused_embeddings import UnusedEmbeddings
from stepscope.analysis.rules.vanishing_gradient import VanishingGradient
from stepscope.analysis.rules.variance_shift import VarianceShift
from stepscope.analysis.rules.weight_scale import WeightScale
from stepscope.analysis.rules.weights_reset import WeightsReset
from stepscope.analysis.rules.wide_bottleneck import WideBottleneck
from stepscope.analysis.rules.wrapped_bytes import WrappedBytes
from stepscope.store.errors import unknown

RULES: dict[str, type[Rule]] = {
    rule.name: rule
    for rule in (
        NonFinite,
        UnreachableTargets,
        ActivationBeforeLoss,
        ClippedPrediction,
        SeveralLabels,
        ShiftedLabels,
        HiddenEnd,
        ExclusiveClasses,
        ExponentialLoss,
        UnscaledDistillation,
        HalfSigmoid,
        HiddenSoftmax,
        HiddenSigmoid,
        LikelihoodSign,
        EntropySign,
        AttachedAdvantage,
        UnaskedCritic,
        OpposedSides,
        LabelsOfOthers,
        TermsWithoutGradient,
        UnevenMeans,
        AveragedTwice,
        PenalisedCopies,
        GreatestAnswer,
        SwappedShares,
        SumBeforeLogarithm,
        IgnoredTargets,
        ForgetfulRecurrence,
        StateBehindPadding,
        UnmaskedPadding,
        LostPhase,
        LostScale,
        LostLevel,
        WrappedBytes,
        OwnBackward,
        ScrambledInput,
        FlippedMasks,
        RoundedUpdates,
        BlindUpdates,
        UnchangedParameters,
        RareUpdates,
        GradientCut,
        NoGradient,
        NoBackward,
        ModuleNeverCalled,
        MissingNonlinearity,
        IgnoredInput,
        AccumulatedGradients,
        AlteredGradients,
        DiscardedGradients,
        BroadcastTarget,
        ConstantData,
        UnmixedBatches,
        ConstantOutput,
        DeadUnits,
        ExplodingGradient,
        RecurringTargets,
        InputScale,
        EvaluationData,
        PretrainedInput,
        InputDrift,
        LearningRate,
        Overfitting,
        SaturatedActivation,
        SmallBatchNorm,
        TinyBatch,
        VanishingGradient,
        WeightScale,
        LostSignal,
        GrowingSignal,
        FadingSignal,
        PositiveWeights,
        FunctionalNorm,
        DropoutMode,
        KeptMask,
        SoftmaxOverBatch,
        BatchLeak,
        UnreachedVertices,
        SingleClass,
        SingleUnit,
        PointwiseFilters,
        SkippingFilters,
        WideBottleneck,
        ShrinkingWeights,
        DecayedRows,
        LearningRateDecay,
        AdamEpsilon,
        ConstantClipping,
        EarlyClipping,
        TargetScale,
        SquaredChances,
        DtypeRange,
        AttentionCollapse,
        AttentionLogits,
        MaskedAttention,
        FutureLeak,
        LostOrder,
        UntrainedParameters,
        TrainedTwice,
        OptimizerReset,
        OptimizerSettings,
        ClampedWeights,
        StaleCopy,
        FlatScores,
        GrowingTargets,
        UnregisteredParameters,
        UntiedWeights,
        SharedModules,
        BatchNormMode,
        VarianceShift,
        SkippedModule,
        DuplicateSamples,
        IdenticalViews,
        TooManyClasses,
        ExtremeFeatures,
        GanBalance,
        RepresentationCollapse,
        ModeCollapse,
        Oversmoothing,
        MissingDivergence,
        PosteriorCollapse,
        SchedulerRhythm,
        UnrelatedTargets,
        FrozenParameters,
        IgnoredFreezing,
        ExtremeBatch,
        DataShift,
        MeaningShift,
        ChannelOrder,
        SettingsChange,
        RepeatedBatch,
        RepeatedRandomness,
        TargetsEqualInputs,
        PartedCopies,
        PartialLeak,
        ImbalancedTargets,
        ClassesAsNumbers,
        WeightsReset,
        UnboundedLoss,
        ResidualBalance,
        GrowingState,
        UnusedEmbeddings,
        TrainedPadding,
        LossBalance,
        LossStart,
        LossDivergence,
        LossJump,
        LossSpike,
        IdleSteps,
        LossPlateau,
        MissingBias,
        ShortTraining,
    )
}


def rule_names() -> tuple[str, ...]:
    """The names of all rules, in the order in which they are applied."""
    return tuple(RULES)


def make_rules(
    names: Iterable[str] | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Rule]:
    """The rules of these names, all unless given, with the thresholds that the settings give.

    Raises:
        UnknownNameError: there is no rule, or no setting of it, of this name.
    """
    wanted = list(RULES) if names is None else list(names)
    settings = settings or {}
    for name in (*wanted, *settings):
        if name not in RULES:
            raise unknown("rule", name, RULES)
    return [_make(RULES[name], settings.get(name, {})) for name in wanted]


def _make(rule: type[Rule], values: Mapping[str, Any]) -> Rule:
    known = [field.name for field in fields(rule)]
    for name in values:
        if name not in known:
            raise unknown(f"setting of the rule {rule.name!r}:", name, known)
    return rule(**values)
