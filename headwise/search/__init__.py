"""Each search proposes masks and asks `evaluate(masks)` for exact scores; those with gradients take a tower and a loss,
too.
"""
