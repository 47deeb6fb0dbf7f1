"""What the heads do: effects, labels with their evidence, attributes of pictures, attention, examples, patterns.

A consumer of a finished study: it reads evaluation, scoring, data, towers and edits, never a search.
"""
