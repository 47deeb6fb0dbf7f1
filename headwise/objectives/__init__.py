"""Embeddings → a score: what a search maximises, what is reported, and what is tested."""

from headwise.objectives.classes import Classification
from headwise.objectives.cola import MultiObject, SingleObject
from headwise.objectives.combined import Combined, Part
from headwise.objectives.prototypes import Prototypes
from headwise.objectives.retrieval import Retrieval
from headwise.objectives.score import Objective, Score

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
