"""How good generated images are: distances to real ones, in a named network's features."""

from benchmark.generation.extractors import (
    ClassifierExtractor,
    Extractor,
    Features,
    trained_extractor,
)
from benchmark.generation.inception import InceptionExtractor, WeightsMissingError
from benchmark.generation.measure import GenerationMeter, measure
from benchmark.generation.scores import (
    Statistics,
    frechet_distance,
    inception_score,
    kernel_distance,
    precision_recall,
    statistics_of,
)

__all__ = [
    "ClassifierExtractor",
    "Extractor",
    "Features",
    "GenerationMeter",
    "InceptionExtractor",
    "Statistics",
    "WeightsMissingError",
    "frechet_distance",
    "inception_score",
    "kernel_distance",
    "measure",
    "precision_recall",
    "statistics_of",
    "trained_extractor",
]
