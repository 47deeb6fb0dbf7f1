"""The steps that verbs share: opening, bench, budget, searching, choosing, results, artefacts. Each says what goes in
and out.
"""
