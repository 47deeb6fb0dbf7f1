"""Masks → embeddings → scores, and the record of every score. It does not know why a mask is asked for."""
