"""Measures models: scores, sizes, latency, sharpness and int8 copies of every stage."""

from trainflat.evaluation.agreement import Agreement, compare_answers
from trainflat.evaluation.answers import main_score
from trainflat.evaluation.flatness import checked_measures, expected_seconds, measure_flatness, objective_on
from trainflat.evaluation.int8 import measure_int8, measure_trained_int8, tensor_bytes
from trainflat.evaluation.latency import measure_latency
from trainflat.evaluation.predictions import predict, predictions_of, sample_split, score, scoring_seconds
from trainflat.evaluation.sizes import matrix_zeros, measure_sizes
from trainflat.evaluation.zeros import SPEED_NOTE, check_zeros

__all__ = [
    "SPEED_NOTE",
    "Agreement",
    "check_zeros",
    "checked_measures",
    "compare_answers",
    "expected_seconds",
    "main_score",
    "matrix_zeros",
    "measure_flatness",
    "measure_int8",
    "measure_latency",
    "measure_sizes",
    "measure_trained_int8",
    "objective_on",
    "predict",
    "predictions_of",
    "sample_split",
    "score",
    "scoring_seconds",
    "tensor_bytes",
]
