"""Masks on models: live, folded into weights, written as a model folder."""
