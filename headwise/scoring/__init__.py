"""Embeddings → scores, their gradients' losses, and what may be concluded from scores. It knows neither masks nor
models.
"""
