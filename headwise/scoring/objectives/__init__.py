"""Embeddings → a score: what a search maximises, what is reported, and what is tested."""

from headwise.scoring.objectives.classes import Classification
from headwise.scoring.objectives.cola import MultiObject, SingleObject
from headwise.scoring.objectives.combined import Combined, Part
from headwise.scoring.objectives.prototypes import Prototypes
from headwise.scoring.objectives.retrieval import Retrieval
from headwise.scoring.objectives.score import Objective, Score

__all__ = [
    "Classification",
    "Combined",
    "MultiObject",
    "Objective",
    "Part",
    "Prototypes",
    "Retrieval",
    "Score",
    "SingleObject",
]
