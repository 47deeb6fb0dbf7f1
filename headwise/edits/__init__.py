"""The vocabulary: heads, grids, masks, what a suppressed head emits, and the file of a mask. It knows no model."""
