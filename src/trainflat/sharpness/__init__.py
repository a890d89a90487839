"""Lists the measures of sharpness: functions of the loss around the weights of a trained model."""

from trainflat.core.registry import Registry
from trainflat.objective.base import Objective, model_loss
from trainflat.objective.passes import Effort
from trainflat.sharpness.ball import Ball, BallSharpness, ball_sharpness
from trainflat.sharpness.directions import filter_normalised
from trainflat.sharpness.gaussian import Gaussian, GaussianSharpness, gaussian_sharpness
from trainflat.sharpness.hessian import (
    Hessian,
    HessianEigenvalues,
    HessianSummary,
    HessianTrace,
    hessian_eigenvalues,
    hessian_trace,
)
from trainflat.sharpness.keskar import Keskar, KeskarSharpness, keskar_sharpness
from trainflat.sharpness.landscape import loss_plane
from trainflat.sharpness.lines import barrier, loss_line
from trainflat.sharpness.measure import Measure, Result, distinct
from trainflat.sharpness.slope import GradientNorm, Slope, gradient_norm
from trainflat.sharpness.spectrum import SpectralDensity, Spectrum, spectral_density, spectrum_record

MEASURES: Registry[Measure] = Registry(
    "measure of sharpness",
    ball=Ball,
    gaussian=Gaussian,
    gradient_norm=GradientNorm,
    hessian=Hessian,
    keskar=Keskar,
    spectrum=Spectrum,
)

__all__ = [
    "MEASURES",
    "BallSharpness",
    "Effort",
    "GaussianSharpness",
    "HessianEigenvalues",
    "HessianSummary",
    "HessianTrace",
    "KeskarSharpness",
    "Measure",
    "Objective",
    "Result",
    "Slope",
    "SpectralDensity",
    "ball_sharpness",
    "barrier",
    "distinct",
    "filter_normalised",
    "gaussian_sharpness",
    "gradient_norm",
    "hessian_eigenvalues",
    "hessian_trace",
    "keskar_sharpness",
    "loss_line",
    "loss_plane",
    "model_loss",
    "spectral_density",
    "spectrum_record",
]
